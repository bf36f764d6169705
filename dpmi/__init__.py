"""dpmi: differentially private training on medical images, as a benchmark."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dpmi.using.loading import load

__all__ = ["load"]


def __getattr__(name: str) -> Any:
    """``dpmi.load``, which imports torch when it is first asked for."""
    if name != "load":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from dpmi.using.loading import load

    return load
