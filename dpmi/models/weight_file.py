"""Files of weights, without torch."""

from __future__ import annotations

from pathlib import Path

from dpmi.base.errors import UserError


def refuse_absent(path: Path) -> None:
    """Refuse a file of weights that is not there.

    Raises:
        UserError: it is not.
    """
    if not path.is_file():
        raise UserError(
            f"model.weights={path}: no such file; allowed are phantom, imagenet, null, or the "
            "path of a state dict of the network (.safetensors, or of torch.save)"
        )
