"""Where a tensor is, as far as it matters to whoever reads it."""

from __future__ import annotations

from torch import Tensor


def on_host(tensor: Tensor) -> bool:
    """Whether its values can be read at once.

    Elsewhere reading one makes the process wait for all the work that it has given to the device,
    which is idle meanwhile: what runs at every step reads none.
    """
    return tensor.device.type == "cpu"
