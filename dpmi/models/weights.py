"""Where ResNet-18's first weights come from, and what is refused."""

from __future__ import annotations

import hashlib
import logging
import os
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn
from torchvision.models import ResNet18_Weights

from dpmi.base.errors import UserError
from dpmi.models.resnet import ResNet18, convert_norms

SUFFIX = ".safetensors"
_DIGEST, _TOLD = "sha256", "dpmi"  # in the file's metadata

_log = logging.getLogger(__name__)

_HEAD = ("fc.weight", "fc.bias")


def build_resnet18(num_classes: int, norm: str, state: dict[str, Tensor] | None) -> ResNet18:
    """ResNet-18 from pretrained weights, with its norm layers converted.

    Args:
        num_classes: classes of the task. A head for other classes is dropped, and the new one
            starts at zero: every class equally likely, no direction to unlearn under noise.
        norm: "batch", "group" or "frozen_batch".
        state: torchvision's ``resnet18`` state dict, half precision accepted; for "group" also
            without BatchNorm's statistics, as a run with "group" leaves it. None starts from
            torchvision's random initialisation.

    Raises:
        UserError: the state dict is not a ResNet-18's.
    """
    model = ResNet18(num_classes)
    converted = norm == "group" and state is not None and not any(map(_is_statistic, state))
    if converted:
        convert_norms(model.net, norm)
    if state is not None:
        _load(model, state)
    if not converted:
        convert_norms(model.net, norm)
    return model


def _load(model: ResNet18, state: dict[str, Tensor]) -> None:
    own = model.net.state_dict()
    head_fits = all(k in state and state[k].shape == own[k].shape for k in _HEAD)
    wanted = own if head_fits else {k: v for k, v in own.items() if k not in _HEAD}
    given = {k: v for k, v in state.items() if head_fits or k not in _HEAD}
    missing, unknown = sorted(wanted.keys() - given.keys()), sorted(given.keys() - wanted.keys())
    misshapen = [k for k in wanted if k in given and given[k].shape != wanted[k].shape]
    for kind, names in (("lacks", missing), ("has unknown", unknown), ("misshapes", misshapen)):
        if names:
            raise UserError(
                f"model.weights: the state dict {kind} {len(names)} entries, first {names[0]}; "
                "allowed is a state dict of torchvision's resnet18 with any head"
            )
    model.net.load_state_dict({k: v.to(own[k].dtype) for k, v in given.items()}, strict=False)
    if not head_fits:
        nn.init.zeros_(model.net.fc.weight)
        nn.init.zeros_(model.net.fc.bias)


def _is_statistic(name: str) -> bool:
    """Whether it is one of BatchNorm's, which a network with GroupNorm has none of."""
    return name.rpartition(".")[2] in ("running_mean", "running_var", "num_batches_tracked")


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The state dict of :func:`read_weights`."""
    return read_weights(path)[0]


def read_weights(path: Path) -> tuple[dict[str, Tensor], str | None]:
    """Read a state dict: safetensors by its ending, else what ``torch.save`` wrote.

    Of the latter only tensors are unpickled (``weights_only``). The digest that
    :func:`write_state_dict` leaves in a file is verified.

    Returns:
        The state dict, and what was told with it; None where nothing was.

    Raises:
        UserError: no such file, not a state dict, or damaged.
    """
    refuse_absent(path)
    return _read_safetensors(path) if path.suffix == SUFFIX else (_read_pickle(path), None)


def refuse_absent(path: Path) -> None:
    """Refuse a file of weights that is not there.

    Raises:
        UserError: it is not.
    """
    if not path.is_file():
        raise UserError(
            f"model.weights={path}: no such file; allowed are phantom, imagenet, null, or the "
            "path of a state dict of torchvision's resnet18 (.safetensors, or of torch.save)"
        )


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], str | None]:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise UserError(
            f"model.weights={path}: not a whole file of safetensors ({error}); get it again"
        ) from error
    digest, told = metadata.get(_DIGEST), metadata.get(_TOLD)
    if (digest or told) is not None and digest != weights_digest(state, told):
        raise UserError(
            f"model.weights={path}: damaged, its tensors or what is told with them are not what "
            "was written; get it again"
        )
    return state, told


def _read_pickle(path: Path) -> dict[str, Tensor]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a file may hold anything, and torch raises many types on it
        raise UserError(
            f"model.weights={path}: not a state dict that loads with weights_only=True "
            f"({type(error).__name__}); save one with torch.save(net.state_dict(), PATH)"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise UserError(
            f"model.weights={path}: holds no state dict (names to tensors); save one with "
            "torch.save(net.state_dict(), PATH)"
        )
    return state


def write_state_dict(state: dict[str, Tensor], path: Path, told: str | None = None) -> None:
    """Write safetensors with a digest, whole or not at all.

    Args:
        state: names to tensors, on any device.
        path: ends in ``.safetensors``.
        told: what is to be known of them; part of the digest.

    Raises:
        OSError: it cannot be written; nothing is left of it then.
    """
    state = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    metadata = {"format": "pt", _DIGEST: weights_digest(state, told)}
    content = safetensors.torch.save(state, metadata | ({} if told is None else {_TOLD: told}))
    part = path.with_suffix(f".{os.getpid()}.part")
    try:
        part.write_bytes(content)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def weights_digest(state: dict[str, Tensor], told: str | None = None) -> str:
    """SHA-256 of names, types, shapes and values, and of what is told with them."""
    sha256 = hashlib.sha256()
    for name, value in sorted(state.items()):
        sha256.update(f"{name} {value.dtype} {tuple(value.shape)};".encode())
        sha256.update(value.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    if told is not None:
        sha256.update(told.encode())
    return sha256.hexdigest()


def imagenet_state_dict(cache_dir: Path) -> dict[str, Tensor]:
    """torchvision's IMAGENET1K_V1 weights, downloaded once into ``cache_dir`` and verified.

    Raises:
        UserError: not in the cache, and the download failed.
    """
    folder = cache_dir / "weights"
    file = folder / Path(ResNet18_Weights.IMAGENET1K_V1.url).name
    if file.is_file() and not file.stem.endswith(f"-{_file_digest(file)[:8]}"):
        _log.warning("%s: damaged; downloaded again.", file)
        file.unlink()
    try:
        state: dict[str, Tensor] = ResNet18_Weights.IMAGENET1K_V1.get_state_dict(
            model_dir=str(folder), check_hash=True, map_location="cpu", weights_only=True
        )
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"model.weights=imagenet: the download into {folder} failed ({error}); connect, put "
            f"torchvision's file {file.name} there by hand, or use model.weights=phantom"
        ) from error
    return state


def _file_digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
