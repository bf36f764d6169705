"""Audit of a DP-SGD run by all methods."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable

from dpmi.auditing.gradients import audit_gradients
from dpmi.auditing.others import audit_others
from dpmi.auditing.result import Audit
from dpmi.config import Config

_CANARIES = 0.85  # of the time
_CANARIES_ERROR = 0.9  # of the probability that some bound does not hold


def audit_dpsgd(
    config: Config,
    n: int,
    *,
    seconds: float,
    confidence: float = 0.95,
    claimed: float | None = None,
    progress: Callable[[int, float], None] = lambda runs, passed: None,
) -> Audit:
    """Attack ``config`` by canaries, then as one who knows all other images; see there.

    Args:
        config: of a run with ``mechanism=dpsgd``.
        n: training images of that run.
        seconds: that may pass; each method makes one run in any case.
        confidence: with which all bounds hold at once.
        claimed: ε that the audited run told; by default what the replica tells.
        progress: called after each run.

    Raises:
        UserError: a run did not complete, or told no ε.
    """
    started, error = time.monotonic(), 1 - confidence
    canaries = audit_gradients(
        config,
        n,
        seconds=_CANARIES * seconds,
        confidence=1 - _CANARIES_ERROR * error,
        claimed=claimed,
        progress=progress,
    )
    others = audit_others(
        config,
        n,
        seconds=(1 - _CANARIES) * seconds,
        confidence=1 - (1 - _CANARIES_ERROR) * error,
        progress=lambda runs, passed: progress(canaries.runs + runs, time.monotonic() - started),
    )
    return dataclasses.replace(
        canaries,
        confidence=confidence,
        bounds=canaries.bounds | others.bounds,
        canaries=canaries.canaries + others.canaries,
        runs=canaries.runs + others.runs,
        seconds=time.monotonic() - started,
    )
