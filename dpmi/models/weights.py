"""Where ResNet-18's first weights come from, and what is refused."""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models import ResNet18_Weights

from dpmi.errors import UserError
from dpmi.models.resnet import ResNet18, convert_norms

_HEAD = ("fc.weight", "fc.bias")


def build_resnet18(num_classes: int, norm: str, state: dict[str, Tensor] | None) -> ResNet18:
    """ResNet-18 from pretrained weights, with its norm layers converted.

    Args:
        num_classes: classes of the task. A head for other classes is dropped, and the new one
            starts at zero: every class equally likely, no direction to unlearn under noise.
        norm: "batch", "group" or "frozen_batch".
        state: torchvision's ``resnet18`` state dict, half precision accepted; None starts from
            torchvision's random initialisation.

    Raises:
        UserError: the state dict is not a ResNet-18's.
    """
    model = ResNet18(num_classes)
    if state is not None:
        _load(model, state)
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


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read a state dict; only tensors are unpickled (``weights_only``).

    Raises:
        UserError: no such file, or not a state dict.
    """
    if not path.is_file():
        raise UserError(
            f"model.weights={path}: no such file; allowed are phantom, imagenet, null, or the "
            "path of a state dict of torchvision's resnet18"
        )
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
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


def imagenet_state_dict(cache_dir: Path) -> dict[str, Tensor]:
    """torchvision's IMAGENET1K_V1 weights, downloaded once into ``cache_dir``.

    Raises:
        UserError: not in the cache, and the download failed.
    """
    folder = cache_dir / "weights"
    try:
        state: dict[str, Tensor] = ResNet18_Weights.IMAGENET1K_V1.get_state_dict(
            model_dir=str(folder), check_hash=True, map_location="cpu", weights_only=True
        )
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"model.weights=imagenet: the download into {folder} failed ({error}); connect, put "
            "torchvision's file resnet18-f37072fd.pth there by hand, or use model.weights=phantom"
        ) from error
    return state
