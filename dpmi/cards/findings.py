"""What a card says of a run that learned several findings, and what of it can be checked."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from statistics import fmean

from dpmi.cards.check import Check, failed, passed
from dpmi.models.groups import OF_FINDINGS
from dpmi.models.names import UNDEFINED
from dpmi.run.records.public import PublicRecord

_TITLES = {"auroc": "AUROC", "average_precision": "average precision", "ece": "calibration error"}
_FLOAT = 1e-5  # metrics are in single precision


def findings_of(record: PublicRecord) -> tuple[str, ...]:
    """Names of the findings that a run learned; none of a run of classes."""
    prefix = "test_images/auroc/"
    return tuple(m.removeprefix(prefix) for m in record.metrics if m.startswith(prefix))


def facts_of(record: PublicRecord, findings: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """The metrics of the mean of all findings, and of each by itself."""
    return tuple((name or "Mean of the findings", _value(record, name)) for name in ("", *findings))


def _value(record: PublicRecord, finding: str) -> str:
    values = {
        metric: record.metrics.get(f"test_images/{metric}{f'/{finding}' if finding else ''}")
        for metric in OF_FINDINGS
    }
    return "; ".join(
        f"{_title(metric)} {plain(value)}" for metric, value in values.items() if value is not None
    )


def _title(metric: str) -> str:
    return _TITLES.get(metric, metric.replace("_", " "))


def plain(value: float) -> str:
    """Of a metric; a word where it is not defined."""
    return UNDEFINED if math.isnan(value) else f"{value:.3f}"


def mean_checks(record: PublicRecord, findings: Sequence[str]) -> Iterator[Check]:
    """Whether each metric is the mean of those of the findings of which it is defined."""
    for metric in OF_FINDINGS:
        name = f"{_title(metric)} is the mean over findings"
        each = [record.metrics.get(f"test_images/{metric}/{of}", math.nan) for of in findings]
        defined = [value for value in each if not math.isnan(value)]
        stated = record.metrics.get(f"test_images/{metric}", math.nan)
        mean = fmean(defined) if defined else math.nan
        agree = abs(mean - stated) <= _FLOAT or (math.isnan(mean) and math.isnan(stated))
        shown = f"{len(defined)} of {len(findings)} findings"
        yield passed(name, shown) if agree else failed(name, f"{plain(mean)}, not {plain(stated)}")
