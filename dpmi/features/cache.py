"""Features on disk: computed once for an image, a view and weights, shared by every run.

``cache_dir/features/<recipe>-<data>.safetensors`` holds, for each split and each stage up to the
deepest asked, the channel means of every image, and a digest of its pixels. The recipe is a hash of
the weights' digest, the crop, the view and the exposure; the data is one of the data set's
fingerprint (which is of contents and order): together all that the features depend on. A data set
that shares images with another, as a new split of the same images does, takes theirs from its file.
"""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from torch import Tensor

from dpmi.backbones import backbone
from dpmi.base.errors import UserError
from dpmi.data.prepare import PreparedData
from dpmi.features.backbone import FrozenBackbone, seen
from dpmi.models.network import Pretrained
from dpmi.models.weights import SUFFIX, read_state_dict, weights_digest, write_state_dict

VERSION = 3  # of what is computed; another number leaves old files alone
_BATCH = 32
_DIGESTS = "sha256"  # beside the stages' names

Pooled = dict[str, dict[str, Tensor]]  # split to stage to (n, C) float32


@dataclass(frozen=True)
class FeatureRequest:
    """What the features of one view depend on.

    Attributes:
        data: decoded images.
        image_size: side of the square cut from their centre, in pixels.
        pretrained: the network.
        deepest: the last stage that is wanted.
        view, exposure: how an image is shown (``backbone.seen``).
    """

    data: PreparedData
    image_size: int
    pretrained: Pretrained
    deepest: str
    view: str
    exposure: str

    def recipe(self, deepest: str) -> str:
        """Part of a file's name: of how features are computed, for stages to ``deepest``."""
        net = self.pretrained
        assert net.state is not None  # features are of public weights
        parts = [VERSION, self.image_size, deepest, net.name, net.input]
        parts += [weights_digest(net.state), self.view, self.exposure]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]

    @property
    def stages(self) -> list[str]:
        """All features to the deepest."""
        return backbone(self.pretrained.name).features_to(self.deepest)

    def file(self, deepest: str) -> str:
        """Name of the file that these features are kept in, with those of stages to ``deepest``."""
        data = hashlib.sha256(self.data.fingerprint.sha256.encode()).hexdigest()[:32]
        return f"{self.recipe(deepest)}-{data}{SUFFIX}"


def pooled_features(
    request: FeatureRequest, cache_dir: Path, console: Console, device: str = "cpu"
) -> Pooled:
    """Return the features of one view, from the cache where they are there, else computing them.

    Of several processes that ask at once one computes, the others wait for it. A file is written
    whole or not at all; a damaged one is reported and made again.

    Args:
        request: which.
        cache_dir: they are kept in ``cache_dir/features``.
        console: shows the progress.
        device: that computes them.

    Raises:
        UserError: the cache cannot be written.
    """
    folder = cache_dir / "features"
    features = backbone(request.pretrained.name).features
    deep_enough = features[features.index(request.deepest) :]  # a deeper file serves, too
    for deepest in deep_enough:
        if (found := _read(folder / request.file(deepest), request, console)) is not None:
            return found
    path = folder / request.file(request.deepest)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):
            if (found := _read(path, request, None)) is None:  # not made by another meanwhile
                files = [f for d in deep_enough for f in folder.glob(f"{request.recipe(d)}-*")]
                known = _rows([f for f in sorted(files) if f.suffix == SUFFIX], request.stages)
                found, digests = _compute(request, known, console, device)
                named = {f"{s}/{stage}": x for s, of in found.items() for stage, x in of.items()}
                write_state_dict(named | {f"{s}/{_DIGESTS}": d for s, d in digests.items()}, path)
    except OSError as error:
        raise UserError(
            f"cache_dir={cache_dir}: the features cannot be kept there "
            f"({error.strerror or error}); make room, or name a folder that can be written"
        ) from error
    return found


def _read(path: Path, request: FeatureRequest, console: Console | None) -> Pooled | None:
    """Features that are there and whole."""
    if not path.is_file():
        return None
    try:
        named = read_state_dict(path)
    except UserError:
        if console:
            console.print(f"{path}: damaged; computed anew", style="yellow", markup=False)
        return None
    stages = request.stages
    return {s: {stage: named[f"{s}/{stage}"] for stage in stages} for s in request.data.splits}


def _rows(files: list[Path], stages: list[str]) -> dict[bytes, dict[str, Tensor]]:
    """Features of single images that other data sets have, by the digests of their pixels."""
    rows: dict[bytes, dict[str, Tensor]] = {}
    for file in files:
        try:
            named = read_state_dict(file)
        except UserError:  # damaged; its own data set will say so
            continue
        for split in {name.rpartition("/")[0] for name in named}:
            of = {stage: named[f"{split}/{stage}"] for stage in stages}
            for row, digest in enumerate(named[f"{split}/{_DIGESTS}"]):
                rows[digest.numpy().tobytes()] = {stage: x[row] for stage, x in of.items()}
    return rows


def _compute(
    request: FeatureRequest, known: dict[bytes, dict[str, Tensor]], console: Console, device: str
) -> tuple[Pooled, dict[str, Tensor]]:
    """Features of all images of all splits, and the digests of their pixels, (n, 32) uint8."""
    started = time.perf_counter()
    splits, size, stages = request.data.splits, request.image_size, request.stages
    frozen = FrozenBackbone(request.pretrained, request.deepest, size).to(device)
    digests = {name: [_digest(x) for x in _cut(s.pixels, size)] for name, s in splits.items()}
    todo = {
        name: np.array([i for i, digest in enumerate(of) if digest not in known], dtype=np.int64)
        for name, of in digests.items()
    }
    count, every = sum(map(len, todo.values())), sum(map(len, digests.values()))
    which = f"{count} images" if count == every else f"{count} of {every} images, others are known"
    if count and not console.is_terminal:
        console.print(f"computing the features of {which} ({request.view}), once")
    pooled: Pooled = {}
    with _progress(console) as progress, torch.inference_mode():
        task = progress.add_task(f"features ({request.view})", total=count)
        for name, split in splits.items():
            of = {
                stage: torch.empty(len(digests[name]), frozen.channels[stage]) for stage in stages
            }
            for start in range(0, len(todo[name]), _BATCH):
                rows = todo[name][start : start + _BATCH]
                images = torch.from_numpy(_cut(split.pixels[rows], size).astype(np.float32))
                shown = seen(images.div_(255).to(device), request.view, request.exposure)
                for stage, values in frozen(shown).items():
                    of[stage][rows] = values.cpu()
                progress.advance(task, len(rows))
            for row, digest in enumerate(digests[name]):
                for stage, value in known.get(digest, {}).items():
                    of[stage][row] = value
            pooled[name] = of
    if count:
        console.print(
            f"features of {which} ({request.view}): {time.perf_counter() - started:.0f} s"
        )
    sha256s = {
        name: torch.from_numpy(np.frombuffer(b"".join(of), dtype=np.uint8).reshape(-1, 32).copy())
        for name, of in digests.items()
    }
    return pooled, sha256s


def _cut(pixels: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """(B, C, R, R) to the centre (B, C, size, size)."""
    edge = round((pixels.shape[-1] - size) / 2)  # as torchvision's CenterCrop
    return pixels[..., edge : edge + size, edge : edge + size]


def _digest(image: NDArray[np.uint8]) -> bytes:
    """SHA-256 of shape and values."""
    return hashlib.sha256(f"{image.shape};".encode() + image.tobytes()).digest()


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    return Progress(
        *columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal
    )
