"""The bound on any attacker as SVG, drawn without a library: the same bytes everywhere."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dpmi.privacy.risk import Risk
from dpmi.privacy.tradeoff import LEAST_RATE

SIDE, LEFT, TOP = 150, 42, 18  # of a panel, in units of the drawing
APART = SIDE + LEFT + 14
_DECADES = (0.0001, 0.01, 1.0)
_PARTS = (0.0, 0.5, 1.0)
Place = Callable[[float], float]  # of a rate, along an axis from 0 to 1


@dataclass(frozen=True)
class Panel:
    """Axes of false over true positive rates.

    Attributes:
        title: above it.
        left: of its axes, where they begin.
        ticks: place along an axis, from 0, and its words.
        lines: of each risk, points of a polyline.
    """

    title: str
    left: int
    ticks: tuple[tuple[float, str], ...]
    lines: tuple[str, ...]


def panels(risks: Sequence[Risk]) -> tuple[Panel, ...]:
    """Linear and logarithmic axes; none where no bound says anything."""
    telling = [risk for risk in risks if not risk.says_nothing]
    if not telling:
        return ()
    return (
        _panel("true positive rate, at most", LEFT, lambda rate: rate, _PARTS, telling),
        _panel("where he seldom errs", LEFT + APART, _log, _DECADES, telling),
    )


def _panel(
    title: str, left: int, place: Place, ticks: Sequence[float], risks: Sequence[Risk]
) -> Panel:
    return Panel(
        title,
        left,
        tuple((SIDE * place(tick), f"{tick:g}") for tick in ticks),
        tuple(_line(risk, left, place) for risk in risks),
    )


def _line(risk: Risk, left: int, place: Place) -> str:
    points = [
        (left + SIDE * place(rate), TOP + SIDE * (1 - place(power)))
        for rate, power in ((LEAST_RATE, risk.curve[0][1]), *risk.curve)
    ]
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _log(rate: float) -> float:
    return 1 - math.log(max(rate, LEAST_RATE)) / math.log(LEAST_RATE)
