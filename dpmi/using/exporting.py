"""What ``python -m dpmi.export`` does: a trained model as one graph, checked before it is kept."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from dpmi.base.errors import UserError
from dpmi.data.readers.phantom import PhantomSource
from dpmi.run.left import Left, read_left
from dpmi.run.records.public import PUBLIC_FILE
from dpmi.using.loading import backbone_of, built
from dpmi.using.model import TrainedModel

OPSET = 18  # of ONNX
TOLERANCE = 1e-5  # in a probability: kernels add up in other orders
SUFFIXES = {"onnx": ".onnx", "torch": ".pt2"}
_INPUT, _OUTPUT, _BATCH = "images", "probabilities", "batch"
_TRACED, _CHECKED = 2, 5  # images: another number than the graph was made with


class Deployed(nn.Module):
    """A trained model with all of its preprocessing but decoding and resizing."""

    def __init__(self, model: TrainedModel) -> None:
        super().__init__()
        self.model = model
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """uint8 (B, 1 or 3, R, R), as decoded and resized, to probabilities (B, K)."""
        return self.model(self.model.pixels(images))


def export(run: Path, kind: str, output: Path | None, backbone: Path | None) -> list[Path]:
    """Write a run's model as one graph, with its public record beside it.

    Args:
        run: the folder of a run.
        kind: "onnx" or "torch".
        output: the file; None: ``model.onnx`` or ``model.pt2`` in the run's folder.
        backbone: of a head, the file of the network that it reads.

    Returns:
        The graph, and the public record.

    Raises:
        UserError: the run cannot be used, the extra is not installed, or nothing can be written.
    """
    if kind == "onnx":
        _require_onnx()
    left = read_left(run)
    model = built(left, backbone_of(left, backbone)).to(memory_format=torch.contiguous_format)
    path = output or run / f"model{SUFFIXES[kind]}"
    record = path.with_name(PUBLIC_FILE if path.parent == run else f"{path.stem}.{PUBLIC_FILE}")
    whole, make = Deployed(model), _onnx_graph if kind == "onnx" else _torch_graph
    with _quiet():
        content, found = make(whole, _metadata(left, model))
    _check(whole, found, path)
    part = path.with_name(f"{path.name}.part")
    try:
        part.write_bytes(content)
        if path.parent != run:
            shutil.copyfile(run / PUBLIC_FILE, record)
        os.replace(part, path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
    return [path, record]


def images_like(model: TrainedModel, count: int) -> Tensor:
    """Drawn uint8 images of the shape that a model is given, (count, C, R, R)."""
    name, side = "phantom_xray" if model.channels == 1 else "phantom_fundus", model.pixels.side
    drawn = [PhantomSource(name).load(f"{name}/seed=0/{i}", side) for i in range(count)]
    return torch.from_numpy(np.stack(drawn).transpose(0, 3, 1, 2).copy())


def _metadata(left: Left, model: TrainedModel) -> dict[str, str]:
    """What is to be known of a graph by whoever has it alone."""
    side, colour = model.pixels.side, "gray" if model.channels == 1 else "RGB"
    return {
        "classes": json.dumps(model.classes, ensure_ascii=False),
        "guarantee": str(model.guarantee),
        "input": f"uint8 (batch, {model.channels}, {side}, {side}): {colour}, shorter edge resized "
        f"to {side} px (bilinear, antialiased, as Pillow does), centre square",
        "output": "probability of each finding; it is present from 0.5 on"
        if model.multilabel
        else "probability of each class; the decision is the highest",
        "run": left.record.run,
    }


def _require_onnx() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"--format onnx: {error.name} is not installed; pip install 'dpmi[onnx]'"
        ) from error


def _onnx_graph(whole: Deployed, metadata: dict[str, str]) -> tuple[bytes, nn.Module]:
    """What a file is to hold, and what it computes."""
    program = torch.onnx.export(
        whole,
        (images_like(whole.model, _TRACED),),
        dynamo=True,
        input_names=[_INPUT],
        output_names=[_OUTPUT],
        dynamic_shapes={_INPUT: {0: torch.export.Dim(_BATCH)}},
        opset_version=OPSET,
        external_data=False,
        verbose=False,
    )
    assert program is not None
    program.model.metadata_props.update(metadata)
    content = program.model_proto.SerializeToString()
    return content, _OnnxGraph(content)


class _OnnxGraph(nn.Module):
    """A graph of ONNX, by onnxruntime on the CPU."""

    def __init__(self, content: bytes) -> None:
        super().__init__()
        import onnxruntime

        providers = ["CPUExecutionProvider"]
        self._session = onnxruntime.InferenceSession(content, providers=providers)

    def forward(self, images: Tensor) -> Tensor:
        (probabilities,) = self._session.run([_OUTPUT], {_INPUT: images.numpy()})
        return torch.from_numpy(probabilities)


def _torch_graph(whole: Deployed, metadata: dict[str, str]) -> tuple[bytes, nn.Module]:
    """What a file is to hold, and what it computes."""
    shapes = {_INPUT: {0: torch.export.Dim(_BATCH)}}
    made = torch.export.export(
        whole, (images_like(whole.model, _TRACED),), dynamic_shapes=shapes, strict=False
    )
    extra = {"dpmi.json": json.dumps(metadata, ensure_ascii=False)}
    torch.export.save(made, buffer := io.BytesIO(), extra_files=extra)
    buffer.seek(0)
    return buffer.getvalue(), torch.export.load(buffer).module()


@torch.no_grad()
def _check(whole: Deployed, found: nn.Module, path: Path) -> None:
    """Refuse a graph that decides otherwise than the model that it was made of."""
    images = images_like(whole.model, _CHECKED)
    off = float((found(images) - whole(images)).abs().max())
    if not off <= TOLERANCE:
        raise UserError(
            f"{path}: not written, for the graph's probabilities are off by up to {off:.2g} on "
            f"drawn images, more than {TOLERANCE:g}; try the other --format"
        )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what exporters advise their developers."""
    with warnings.catch_warnings(), open(os.devnull, "w") as nowhere:
        warnings.simplefilter("ignore")
        with contextlib.redirect_stdout(nowhere):
            yield
