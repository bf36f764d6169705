"""Audit of a DP-SGD run by all methods."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable

from dpmi.auditing.black_box import RealRun, audit_black_box
from dpmi.auditing.gradients import audit_gradients
from dpmi.auditing.others import audit_others
from dpmi.auditing.result import Audit
from dpmi.config.schema import Config

# Of the probability that some bound does not hold; canaries have the rest.
_OTHERS_ERROR, _BLACK_BOX_ERROR = 0.1, 0.05
_OTHERS = 0.15  # of the time


def audit_dpsgd(
    config: Config,
    n: int,
    *,
    seconds: float,
    confidence: float = 0.95,
    claimed: float | None = None,
    real: RealRun | None = None,
    progress: Callable[[int, float], None] = lambda runs, passed: None,
) -> Audit:
    """Attack ``config`` by canaries, then as one who knows all other images; see there.

    Args:
        config: of a run with ``mechanism=dpsgd``.
        n: training images of that run.
        seconds: that may pass; each method makes one run in any case.
        confidence: with which all bounds hold at once.
        claimed: ε that the audited run states; by default that of the replica.
        real: what is to be attacked from its final weights alone, too; None leaves that out.
        progress: called after each run.

    Raises:
        UserError: a run did not complete, or has no ε.
    """
    started, error, runs = time.monotonic(), 1 - confidence, 0

    def report(made: int, _: float) -> None:
        progress(runs + made, time.monotonic() - started)

    more = []
    if real is not None:
        more.append(audit_black_box(config, real, confidence=1 - _BLACK_BOX_ERROR * error))
        report(runs := 1, 0.0)
    left = max(0.0, seconds - (time.monotonic() - started))
    audit = audit_gradients(
        config,
        n,
        seconds=(1 - _OTHERS) * left,
        confidence=1 - (1 - _OTHERS_ERROR - _BLACK_BOX_ERROR) * error,
        claimed=claimed,
        progress=report,
    )
    runs += audit.runs
    others = audit_others(
        config,
        n,
        seconds=_OTHERS * left,
        confidence=1 - _OTHERS_ERROR * error,
        progress=report,
    )
    for found in [others, *more]:
        audit = dataclasses.replace(
            audit,
            bounds=audit.bounds | found.bounds,
            canaries=audit.canaries + found.canaries,
            runs=audit.runs + found.runs,
        )
    return dataclasses.replace(audit, confidence=confidence, seconds=time.monotonic() - started)
