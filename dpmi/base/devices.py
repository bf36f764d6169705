"""Tensors on a device other than the processor, read and handed over without waiting for it.

Work is given to a GPU ahead of time. Whoever reads a value of it waits until all that was given
out is done, and the GPU is idle until there is more: what runs at every step reads none.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def on_host(tensor: Tensor) -> bool:
    """Whether its values can be read at once."""
    return tensor.device.type == "cpu"


def handed_over(values: NDArray[Any], device: torch.device) -> Tensor:
    """Copy an array to a device, without waiting until it is there; on the processor, share it."""
    tensor = torch.from_numpy(np.ascontiguousarray(values))
    if device.type == "cuda":  # from pinned memory alone is the copy made in the background
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


class Later:
    """What a small tensor holds now, to be read when the device has come to it.

    Args:
        tensor: on any device; copied, where it is not on the processor.
    """

    def __init__(self, tensor: Tensor) -> None:
        self._value, self._copied = tensor, None
        if tensor.is_cuda:
            host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            self._value = host.copy_(tensor, non_blocking=True)
            self._copied = torch.cuda.Event()
            self._copied.record()

    def read(self) -> Tensor:
        """Its values, on the processor; waits for what was given out before it, and no longer."""
        if self._copied is not None:
            self._copied.synchronize()
        return self._value
