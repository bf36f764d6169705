"""State dicts under the names of others: read where they are unambiguous, refused where not."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from dpmi.backbones import backbone
from dpmi.base.errors import UserError
from dpmi.models.preprocessing import IMAGENET, INPUTS

# DataParallel's, and what a LightningModule's network mostly goes by.
_PREFIXES = ("module.", "model.", "net.", "backbone.")
_XRV_THRESHOLDS, _XRV_CLASSES = "op_threshs", 18  # of torchxrayvision's networks alone
_COUNT = "num_batches_tracked"
_SHOWN = 3  # names in a refusal


@dataclass(frozen=True)
class Read:
    """A state dict under torchvision's names.

    Attributes:
        state: of all names that it had.
        source: whose names and preprocessing it had.
    """

    state: dict[str, Tensor]
    source: Literal["torchvision", "timm", "torchxrayvision"]


def translated(name: str, state: dict[str, Tensor]) -> Read:
    """Bring torchvision's, timm's, torchxrayvision's and wrapped names to torchvision's.

    Args:
        name: of the backbone.
        state: as a file has it.
    """
    for prefix in _PREFIXES * 2:  # model.net., module.model., ...
        if all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    own, read = backbone(name), dict(state)
    thresholds = read.pop(_XRV_THRESHOLDS, None)
    read = {_renamed(key, own.older): value for key, value in read.items()}
    by_timm = {key: _renamed(key, own.timm) for key in read}
    if any(key != renamed for key, renamed in by_timm.items()):
        return Read({by_timm[key]: value for key, value in read.items()}, "timm")
    head = read.get(f"{own.head}.weight")
    gray = _channels(read) == 1
    if thresholds is not None or (gray and head is not None and len(head) == _XRV_CLASSES):
        return Read(read, "torchxrayvision")
    return Read(read, "torchvision")


def _renamed(key: str, renames: tuple[tuple[str, str], ...]) -> str:
    for pattern, replacement in renames:
        renamed = re.sub(pattern, replacement, key)
        if renamed != key:
            return renamed
    return key


def _channels(state: dict[str, Tensor]) -> int | None:
    """That the first convolution takes; None where there is none."""
    return next((value.shape[1] for value in state.values() if value.ndim == 4), None)


def chosen_input(name: str, requested: str, read: Read, stated: str | None) -> str:
    """How weights are shown images.

    Args:
        name: of the backbone.
        requested: ``model.input``.
        read: the weights.
        stated: the input that a run's file states; None where it is no run's.

    Raises:
        UserError: it is not known, or the weights contradict it.
    """
    by_source = {"torchvision": IMAGENET, "torchxrayvision": "xrv"}
    known = stated or by_source.get(read.source, backbone(name).timm_input)
    if stated and requested not in ("auto", stated):
        raise UserError(
            f"model.input={requested}: the weights were trained with model.input={stated}; allowed "
            f"are auto and {stated}"
        )
    chosen = known if requested == "auto" else requested
    if chosen is None:
        raise UserError(
            f"model.input=auto: {name} of timm comes with either preprocessing, and the file does "
            "not say which; give imagenet (mean and standard deviation of ImageNet) or half "
            "(values from -1 to 1), as its pretrained_cfg has it"
        )
    channels, taken = INPUTS[chosen].channels, _channels(read.state)
    if taken is not None and taken != channels:
        how = (
            "images of that kind"
            if requested != "auto"
            else f"model.input={chosen}, which is usual"
        )
        raise UserError(
            f"model.input={requested}: the first convolution of model.weights takes {taken} "
            f"channels, and {how} have {channels}; allowed is, of {', '.join(INPUTS)}, the one "
            "that they were trained with"
        )
    return chosen


def has_statistics(state: dict[str, Tensor]) -> bool:
    """Whether it has BatchNorm's statistics, which a network with GroupNorm has none of."""
    last = ("running_mean", "running_var", _COUNT)
    return any(name.rpartition(".")[2] in last for name in state)


def fitted(
    name: str, state: dict[str, Tensor], own: dict[str, Tensor], side: int
) -> tuple[dict[str, Tensor], bool]:
    """What of a state dict a network can load.

    Args:
        name: of the backbone.
        state: under torchvision's names.
        own: of the network.
        side: of the images, in pixels, which it is made to fit.

    Returns:
        The state dict, without a head for other classes; and whether its head fits.

    Raises:
        UserError: it is of another network.
    """
    its = backbone(name)
    head = (f"{its.head}.weight", f"{its.head}.bias")
    head_fits = all(k in state and state[k].shape == own[k].shape for k in head)
    wanted = own if head_fits else {k: v for k, v in own.items() if k not in head}
    given = {k: v for k, v in state.items() if head_fits or k not in head}
    # Files older than BatchNorm's count of batches lack it; nothing depends on it.
    missing = [k for k in wanted if k not in given and not k.endswith(_COUNT)]
    unknown = [k for k in given if k not in wanted]
    if its.resized and not missing and not unknown:
        try:
            given = its.resized(given, side)
        except ValueError as error:
            raise UserError(
                f"model.weights: cannot be fitted to images of {side} px ({error})"
            ) from error
    given = {k: _shaped(v, wanted[k]) if k in wanted else v for k, v in given.items()}
    misshapen = [k for k in wanted if k in given and given[k].shape != wanted[k].shape]
    wrong = [
        f"{kind} {len(keys)} entries ({', '.join(keys[:_SHOWN])}{', ...' * (len(keys) > _SHOWN)})"
        for kind, keys in (("lacks", missing), ("has unknown", unknown), ("misshapes", misshapen))
        if keys
    ]
    if wrong:
        raise UserError(
            f"model.weights: the state dict {', '.join(wrong)}; allowed is one of {name} with any "
            "head, by the names of torchvision or timm, or of a LightningModule around it "
            "(model., net.)"
        )
    return {k: v.to(own[k].dtype) for k, v in given.items()}, head_fits


def _shaped(value: Tensor, own: Tensor) -> Tensor:
    """Timm has a scale of channels as (C,), torchvision as (C, 1, 1)."""
    same = value.numel() == own.numel() and value.squeeze().shape == own.squeeze().shape
    return value.reshape(own.shape) if same else value
