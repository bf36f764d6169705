"""How long an idle thread keeps a core busy while it waits for work."""

from __future__ import annotations

import os

_VARIABLE, _TURNS = "GOMP_SPINCOUNT", "20000"


def let_idle_threads_sleep() -> None:
    """Let OpenMP's threads sleep after some tens of microseconds; call before torch is imported.

    By default they wait in a loop for milliseconds after each operation, on the cores that the
    noise of DP-SGD is to be drawn on by other threads: its drawing took half as long again. What
    the user set in the environment stays. Changes speed only.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault(_VARIABLE, _TURNS)
