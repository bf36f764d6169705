"""Loading libraries without searching them for garbage."""

from __future__ import annotations

import atexit
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def loading() -> Iterator[None]:
    """Around imports that take seconds: no garbage is collected meanwhile, nor among them later.

    torch, Lightning and what they import make half a million objects that stay. Python's collector
    goes through them again and again while their number grows, for a sixth of the time that it
    takes to load them; and then 0.3 s at each whole collection, of which a run needs two (see
    ``dpmi.run.memory``). Changes speed only.
    """
    collecting, loaded = gc.isenabled(), len(sys.modules)
    gc.disable()
    try:
        yield
        # Not where all was loaded before: an earlier run's garbage would stay, too.
        if len(sys.modules) > loaded:
            gc.freeze()
            atexit.register(gc.unfreeze)  # or libraries report as leaked what is never collected
    finally:
        if collecting:
            gc.enable()
