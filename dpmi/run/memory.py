"""Memory that is asked for again and again should not be given back in between."""

from __future__ import annotations

import ctypes
import platform

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of mallopt(3)
_NEVER = 2**31 - 1


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
