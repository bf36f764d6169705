"""Loading libraries without searching them for garbage."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def loading() -> Iterator[None]:
    """Around imports that take seconds: no garbage is collected meanwhile.

    torch, Lightning and what they import make a million objects that stay. Python's collector goes
    through them again and again while their number grows, for a sixth of the time that it takes to
    load them. Changes speed only.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()
