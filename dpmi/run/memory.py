"""Memory of the process: reused instead of returned, and measured."""

from __future__ import annotations

import ctypes
import gc
import platform
from pathlib import Path

import torch

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of mallopt(3)
_NEVER = 2**31 - 1
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_RESET_PEAK = "5"  # proc(5)


def keep_freed_memory() -> None:
    """Let glibc reuse large buffers instead of mapping and zeroing new pages for each.

    DP-SGD on a CPU makes and drops per-example gradients, hundreds of MB, in every layer of every
    pass; half of its time went into page faults. Changes speed only; elsewhere than on glibc it
    does nothing.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, _NEVER)


def peak_resident_mb() -> float:
    """Peak resident memory of this process, in MB, since it began or since the peak was reset."""
    if _STATUS.is_file():  # ru_maxrss would count the parent's, too, from before the exec
        return _status_mb("VmHWM")
    import resource  # not on Windows, where there is nothing to read

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # bytes, on macOS


class PeakMemory:
    """What a run needs most while it trains, from where the process stood before it.

    A sweep runs its jobs in one process: what an earlier job left and what the libraries take is
    no part of it. Where the system cannot forget an earlier peak (elsewhere than on Linux), there
    is no figure for a CPU.
    """

    def __init__(self) -> None:
        self._device: torch.device | None = None
        self._before = _status_mb("VmRSS") if _give_back() else None

    def training_starts(self, device: torch.device) -> None:
        """Forget peaks so far, such as those of decoding images or of pretraining."""
        self._device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        elif self._before is not None:
            _give_back()

    def mb(self) -> float | None:
        """Peak in MB, allocated on the GPU, else resident; None where it is not known."""
        if self._device is None:
            return None
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device) / 2**20
        return None if self._before is None else max(0.0, _status_mb("VmHWM") - self._before)


def _give_back() -> bool:
    """Return freed memory to the system and forget the peak; whether the system can."""
    gc.collect()
    try:
        if platform.libc_ver()[0] == "glibc":
            ctypes.CDLL(None).malloc_trim(0)
        _CLEAR.write_text(_RESET_PEAK)
    except OSError:
        return False
    return _STATUS.is_file()


def _status_mb(field: str) -> float:
    (line,) = (line for line in _STATUS.read_text().splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1]) / 2**10
