"""Types of the values in a config, with their limits: numbers, ranges, names, each or auto."""

from __future__ import annotations

import math
import sys
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator

from dpmi.base.places import from_home

# Nobody means numbers beyond these, on which libraries fail late, or compute infinities.
_MOST = 2**31 - 1
_LEAST_SCALE, _MOST_SCALE = 1e-9, 1e9
_MOST_RATE = 1_000_000

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Scale = Annotated[float, Field(ge=_LEAST_SCALE, le=_MOST_SCALE, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1, le=_MOST)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]  # numpy's and scikit-learn's generators take no other
Drawn = Annotated[int, Field(ge=0, le=10_000_000)]  # images of which a list is kept in memory


def _count_or_auto(value: object) -> object:
    if value == "auto" or (type(value) is int and 1 <= value <= _MOST):
        return value
    raise ValueError(f"allowed are auto and integers greater than or equal to 1 and up to {_MOST}")


def _truth_or_auto(value: object) -> object:
    if value == "auto" or type(value) is bool:
        return value
    raise ValueError("allowed are auto, true and false")


def _count_or_all(value: object) -> object:
    if value == "all" or (type(value) is int and 1 <= value <= _MOST):
        return value
    raise ValueError(f"allowed are all and integers greater than or equal to 1 and up to {_MOST}")


def _each_once(names: list[str]) -> list[str]:
    if names and len(set(names)) == len(names):
        return names
    raise ValueError("name one or more, each once")


def listed(value: object) -> object:
    """A name, or several with commas between them, as a list."""
    return [name.strip() for name in value.split(",")] if isinstance(value, str) else value


def _delta_or_auto(value: object) -> object:
    if value == "auto" or (isinstance(value, float) and 0 < value < 1):
        return value
    raise ValueError("allowed are auto, and numbers greater than 0 and less than 1")


def _is_number(value: object, most: float) -> bool:
    return isinstance(value, int | float) and type(value) is not bool and 0 < value <= most


def _rate_or_auto(value: object) -> object:
    if value == "auto" or _is_number(value, _MOST_RATE):
        return value
    raise ValueError(f"allowed are auto, and numbers greater than 0 and up to {_MOST_RATE}")


def _walk_or_auto(value: object) -> object:
    if value is None or value == "auto" or _is_number(value, sys.float_info.max):
        return value
    raise ValueError("allowed are auto, null, and numbers greater than 0")


TruthOrAuto = Annotated[bool | Literal["auto"], PlainValidator(_truth_or_auto)]
CountOrAuto = Annotated[int | Literal["auto"], PlainValidator(_count_or_auto)]
CountOrAll = Annotated[int | Literal["all"], PlainValidator(_count_or_all)]
Share = Annotated[float, Field(gt=0, lt=1)]
Place = Annotated[str, AfterValidator(from_home)]
EachOnce = AfterValidator(_each_once)
Name = Annotated[str, Field(min_length=1)]
Names = Annotated[Annotated[list[Name], EachOnce] | None, BeforeValidator(listed)]

DeltaOrAuto = Annotated[float | Literal["auto"], PlainValidator(_delta_or_auto)]
RateOrAuto = Annotated[float | Literal["auto"], PlainValidator(_rate_or_auto)]
WalkOrAuto = Annotated[float | Literal["auto"] | None, PlainValidator(_walk_or_auto)]


class Section(BaseModel):
    """Refuses keys that it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _two_numbers(value: object) -> tuple[float, float] | None:
    """From a list, or from a text with a comma between them."""
    if value is None:
        return None
    parts = value.split(",") if isinstance(value, str) else value
    try:
        first, second = (float(part) for part in parts)  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        first = second = math.nan
    if not (math.isfinite(first) and math.isfinite(second)):
        raise ValueError("allowed are null and two numbers, as [0,4095]")
    return first, second


def _range(value: object) -> tuple[float, float] | None:
    pair = _two_numbers(value)
    if pair is not None and pair[0] >= pair[1]:
        raise ValueError("the first number must be lower than the second")
    return pair


def _window(value: object) -> tuple[float, float] | None:
    pair = _two_numbers(value)
    if pair is not None and pair[1] < 1:
        raise ValueError("the second number, the width, must be 1 or more")
    return pair


def _depth_or_auto(value: object) -> object:
    if value == "auto" or (type(value) is int and 8 <= value <= 16):
        return value
    raise ValueError("allowed are auto and integers from 8 to 16")


_Pair = tuple[float, float] | None
Range = Annotated[_Pair, BeforeValidator(_range)]
Window = Annotated[_Pair, BeforeValidator(_window)]
DepthOrAuto = Annotated[int | Literal["auto"], PlainValidator(_depth_or_auto)]
