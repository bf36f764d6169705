"""Metrics that are not defined of the images at hand: NaN here, a word where people read them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from dpmi.models.names import UNDEFINED


def is_undefined(value: Any) -> bool:
    """Whether a metric has no value."""
    return isinstance(value, float | Tensor) and math.isnan(value)


def in_words(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Metrics with a word in place of NaN."""
    return {name: UNDEFINED if is_undefined(value) else value for name, value in metrics.items()}
