"""Where a network's first weights come from, and what is refused."""

from __future__ import annotations

import hashlib
import logging
import os
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor
from torchvision.models import get_weight

from dpmi.backbones import backbone
from dpmi.base.errors import UserError
from dpmi.models.weight_file import refuse_absent

SUFFIX = ".safetensors"
_OF_A_RUN = "RunCheckpoint"  # among the callbacks of a checkpoint that this program wrote
_DIGEST, _PROVENANCE = "sha256", "dpmi"  # in the file's metadata

_log = logging.getLogger(__name__)

# Where a checkpoint keeps a network's weights beside other things: Lightning's, and other habits.
_WITHIN = ("state_dict", "model_state_dict", "model")


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The state dict of :func:`read_weights`."""
    return read_weights(path)[0]


def read_weights(path: Path) -> tuple[dict[str, Tensor], str | None]:
    """Read a state dict: safetensors by its ending, else what ``torch.save`` wrote.

    Of the latter only tensors and plain values are unpickled (``weights_only``); of a checkpoint,
    as Lightning leaves it, the state dict within is read. The digest that
    :func:`write_state_dict` leaves in a file is verified.

    Returns:
        The state dict, and the metadata kept with it; None where there is none.

    Raises:
        UserError: no such file, not a state dict, or damaged.
    """
    refuse_absent(path)
    return _read_safetensors(path) if path.suffix == SUFFIX else (_read_pickle(path), None)


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], str | None]:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise UserError(
            f"model.weights={path}: not a whole file of safetensors ({error}); get it again"
        ) from error
    digest, provenance = metadata.get(_DIGEST), metadata.get(_PROVENANCE)
    if (digest or provenance) is not None and digest != weights_digest(state, provenance):
        raise UserError(
            f"model.weights={path}: damaged, its tensors or their metadata are not what "
            "was written; get it again"
        )
    return state, provenance


def _read_pickle(path: Path) -> dict[str, Tensor]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a file may hold anything, and torch raises many types on it
        raise UserError(
            f"model.weights={path}: not a state dict that loads with weights_only=True "
            f"({type(error).__name__}); save one with torch.save(net.state_dict(), PATH)"
        ) from error
    if isinstance(state, dict):
        if _OF_A_RUN in (state.get("callbacks") or {}):
            raise UserError(
                f"model.weights={path}: a checkpoint of a run of this program, which does not say "
                "what the run spent on its images; give the model.safetensors of a completed run"
            )
        within = [key for key in _WITHIN if _is_state_dict(state.get(key))]
        state = state[within[0]] if len(within) == 1 else state
    if not _is_state_dict(state):
        raise UserError(
            f"model.weights={path}: holds no state dict (names to tensors); save one with "
            "torch.save(net.state_dict(), PATH)"
        )
    read: dict[str, Tensor] = dict(state)
    return read


def _is_state_dict(value: object) -> bool:
    return (
        isinstance(value, dict)
        and bool(value)
        and all(
            isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in value.items()
        )
    )


def write_state_dict(state: dict[str, Tensor], path: Path, provenance: str | None = None) -> None:
    """Write safetensors with a digest, whole or not at all.

    Args:
        state: names to tensors, on any device.
        path: ends in ``.safetensors``.
        provenance: metadata of the file; part of the digest.

    Raises:
        OSError: it cannot be written; nothing is left of it then.
    """
    state = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    metadata = {"format": "pt", _DIGEST: weights_digest(state, provenance)}
    content = safetensors.torch.save(
        state, metadata | ({} if provenance is None else {_PROVENANCE: provenance})
    )
    part = path.with_suffix(f".{os.getpid()}.part")
    try:
        part.write_bytes(content)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def weights_digest(state: dict[str, Tensor], provenance: str | None = None) -> str:
    """SHA-256 of names, types, shapes and values, and of their metadata."""
    sha256 = hashlib.sha256()
    for name, value in sorted(state.items()):
        sha256.update(f"{name} {value.dtype} {tuple(value.shape)};".encode())
        sha256.update(value.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    if provenance is not None:
        sha256.update(provenance.encode())
    return sha256.hexdigest()


def imagenet_state_dict(name: str, cache_dir: Path) -> dict[str, Tensor]:
    """torchvision's ImageNet weights, downloaded once into ``cache_dir`` and verified.

    Args:
        name: of the backbone.
        cache_dir: they are kept in ``cache_dir/weights``.

    Raises:
        UserError: not in the cache, and the download failed.
    """
    folder, weights = cache_dir / "weights", get_weight(backbone(name).imagenet)
    file = folder / Path(weights.url).name
    if file.is_file() and not file.stem.endswith(f"-{_file_digest(file)[:8]}"):
        _log.warning("%s: damaged; downloaded again.", file)
        file.unlink()
    try:
        state: dict[str, Tensor] = weights.get_state_dict(
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
