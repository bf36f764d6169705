"""One check of a card, and its result."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Status = Literal["passed", "failed", "cannot be checked"]


@dataclass(frozen=True)
class Check:
    """What was looked at, whether it holds, and what was found."""

    name: str
    status: Status
    detail: str = ""


def passed(name: str, detail: str = "") -> Check:
    """It holds."""
    return Check(name, "passed", detail)


def failed(name: str, detail: str) -> Check:
    """It does not."""
    return Check(name, "failed", detail)


def unknown(name: str, detail: str) -> Check:
    """It cannot be checked, and why."""
    return Check(name, "cannot be checked", detail)


def compare(name: str, stated: object, found: object, show: bool = True) -> Check:
    """Whether what the card states is what was found."""
    if stated == found:
        return passed(name, str(found) if show else "")
    return failed(name, f"stated {stated}, found {found}" if show else "the two are not the same")


def near(name: str, stated: float, found: float, tolerance: float) -> Check:
    """The same of numbers, up to a relative tolerance."""
    if math.isclose(stated, found, rel_tol=tolerance, abs_tol=tolerance * 1e-12):
        return passed(name, f"{stated:.6g}")
    return failed(name, f"stated {stated:.6g}, found {found:.6g}")
