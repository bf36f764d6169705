"""What a search varies: Hydra's grammar of sweeps, in the distributions of Optuna."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from dpmi.base.errors import UserError

Values = Mapping[str, Any]  # of what is varied, by key
GRAMMAR = (
    "allowed are choice(A,B) or A,B, range(FROM,TO,STEP), interval(FROM,TO), "
    "int(interval(FROM,TO)) and, of numbers above 0, tag(log,interval(FROM,TO))"
)


@dataclass(frozen=True)
class Space:
    """The overrides of a search.

    Attributes:
        words: by key, in order: an override as it was given, or what its values are drawn from.
        groups: keys that choose a config group's option.
    """

    words: Mapping[str, str | BaseDistribution]
    groups: frozenset[str]

    @property
    def varied(self) -> dict[str, BaseDistribution]:
        """What values are drawn from, by key."""
        return {key: d for key, d in self.words.items() if isinstance(d, BaseDistribution)}

    def overrides(self, values: Values) -> list[str]:
        """The overrides of one run."""
        return [
            word if isinstance(word, str) else f"{key}={values[key]}"
            for key, word in self.words.items()
        ]

    def examples(self) -> Iterator[dict[str, Any]]:
        """Values to be checked before the first run.

        All combinations of the groups' options, for these decide what other keys there are and
        mean; with each of them every other choice, and both ends of what is a number, one at a
        time.
        """
        ends = {key: _ends(distribution) for key, distribution in self.varied.items()}
        groups = [key for key in ends if key in self.groups]
        for options in itertools.product(*(ends[key] for key in groups)):
            first = {key: values[0] for key, values in ends.items()}
            first |= dict(zip(groups, options, strict=True))
            yield first
            for key in ends.keys() - set(groups):
                yield from (first | {key: value} for value in ends[key][1:])


def read_space(words: Sequence[str], loader: ConfigLoader) -> Space:
    """Read the overrides of a command line.

    Raises:
        OverrideParseException: not Hydra's grammar.
        UserError: what a search cannot draw from, or nothing to draw; names the override.
    """
    read: dict[str, str | BaseDistribution] = {}
    for override in OverridesParser.create(config_loader=loader).parse_overrides(list(words)):
        swept = override.is_sweep_override()
        read[override.get_key_element()] = (
            _distribution(override) if swept else str(override.input_line)
        )
    groups = frozenset(key for key in read if loader.get_group_options(key.lstrip("+~")))
    space = Space(read, groups)
    if not space.varied:
        raise UserError(
            f"hydra/sweeper=optuna: nothing is varied, so there is nothing to search; {GRAMMAR}"
        )
    return space


def _distribution(override: Override) -> BaseDistribution:
    value: Any = override.value()
    tags: set[str] = getattr(value, "tags", set())
    try:
        if getattr(value, "shuffle", False):
            raise ValueError("the order of values means nothing here")
        if tags - {"log"}:
            raise ValueError(f"no such tag: {', '.join(sorted(tags - {'log'}))}")
        if isinstance(value, IntervalSweep):
            return _interval(value.start, value.end, log=bool(tags))
        if isinstance(value, RangeSweep):
            return _range(value, log=bool(tags))
        if tags:
            raise ValueError("choices have no logarithm")
        choices = list(dict.fromkeys(override.sweep_string_iterator()))
        if not choices:
            raise ValueError("no option fits")
        return CategoricalDistribution(choices)
    except ValueError as error:  # Optuna's, too
        why = str(error).rstrip(".")
        raise UserError(f"{override.input_line}: {why}; {GRAMMAR}") from error


def _interval(start: Any, end: Any, *, log: bool) -> BaseDistribution:
    if not -math.inf < start < end < math.inf:
        raise ValueError("no interval of numbers")
    if isinstance(start, int) and isinstance(end, int):
        return IntDistribution(start, end, log=log)
    return FloatDistribution(float(start), float(end), log=log)


def _range(value: RangeSweep, *, log: bool) -> BaseDistribution:
    """Values from its start on, before its stop."""
    start, stop, step = (Decimal(str(number)) for number in (value.start, value.stop, value.step))
    count = math.ceil((stop - start) / step) if step else 0
    if count < 1:
        raise ValueError("no number is in it")
    low, high = sorted((start, start + (count - 1) * step))
    if all(isinstance(number, int) for number in (value.start, value.stop, value.step)):
        return IntDistribution(int(low), int(high), log=log, step=int(abs(step)))
    if log:
        raise ValueError("steps of a logarithm are whole numbers")
    return FloatDistribution(float(low), float(high), step=float(abs(step)))


def _ends(distribution: BaseDistribution) -> Sequence[Any]:
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    return distribution.low, distribution.high
