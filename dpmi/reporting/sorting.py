"""Records sorted into the cells of Figure 4."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from dpmi.config.identity import NOT_IDENTITY
from dpmi.config.sections import MECHANISMS
from dpmi.reporting.cells import SPLITS, TITLES, Cell, Column, Panel
from dpmi.reporting.poster import BETAS, TEST_MAJORITY, published
from dpmi.run.records.record import RunRecord

# Sections that all cells of a set-up share, and keys that distinguish repeats of a cell, not cells.
_SETUP = ("data", "model", "trainer")
_SAME_SETUP = NOT_IDENTITY | {"data.root", "data.csv", "data.num_workers"}
_SAME_SETUP |= {"trainer.accelerator", "trainer.test_every_epoch"}


def merge(sweeps: Iterable[Sequence[RunRecord]]) -> list[RunRecord]:
    """The runs of several sweeps, each once.

    Runs of the same digest compute the same: counted twice, they would narrow an interval. One
    that completed stands for those that did not, else the one of the last sweep.
    """
    kept: dict[str, RunRecord] = {}
    for records in sweeps:
        for record in records:
            before = kept.get(record.config_digest)
            if before is None or record.status == "completed" or before.status != "completed":
                kept[record.config_digest] = record
    return list(kept.values())


def figure4(records: Sequence[RunRecord]) -> list[Panel]:
    """Sort records into panels, by name of the data set and then by set-up."""
    by_dataset: dict[str, list[RunRecord]] = defaultdict(list)
    for record in records:
        by_dataset[record.config["data"]["name"]].append(record)
    panels = []
    for dataset, of_dataset in sorted(by_dataset.items()):
        setups = _distinguishing([_setup(record) for record in of_dataset])
        for setup in sorted(set(setups)):
            chosen = [r for r, its in zip(of_dataset, setups, strict=True) if its == setup]
            panels.append(Panel(dataset, setup, _columns(dataset, chosen)))
    return panels


def with_missing(panel: Panel) -> Panel:
    """The panel with empty cells for what a whole figure would have.

    That is the original, and each mechanism that ran at each β that any ran at; at the poster's β,
    too, on its data sets.
    """
    betas = {c.beta for c in panel.columns if c.mechanism != "none"}
    if panel.dataset in TEST_MAJORITY:
        betas |= set(BETAS)
    families = {(c.mechanism, c.variant) for c in panel.columns if c.mechanism != "none"}
    wanted = {_column("none", 0.0, "")}
    wanted |= {_column(mechanism, beta, v) for mechanism, v in families for beta in betas}
    columns = {
        column: panel.columns.get(column) or _cells(panel.dataset, column, [])
        for column in sorted(wanted | set(panel.columns))
    }
    return replace(panel, columns=columns)


def _columns(dataset: str, records: Sequence[RunRecord]) -> dict[Column, dict[str, Cell]]:
    runs: dict[Column, list[RunRecord]] = defaultdict(list)
    by_mechanism: dict[str, list[RunRecord]] = defaultdict(list)
    for record in records:
        by_mechanism[record.config["mechanism"]["name"]].append(record)
    for mechanism, of_mechanism in by_mechanism.items():
        variants = _distinguishing([_variant(record) for record in of_mechanism])
        for record, variant in zip(of_mechanism, variants, strict=True):
            beta = 0.0 if mechanism == "none" else float(record.config["beta"])
            runs[_column(mechanism, beta, variant)].append(record)
    return {column: _cells(dataset, column, runs[column]) for column in sorted(runs)}


def _column(mechanism: str, beta: float, variant: str) -> Column:
    return Column(list(TITLES).index(mechanism), beta, variant, mechanism)


def _cells(dataset: str, column: Column, runs: Sequence[RunRecord]) -> dict[str, Cell]:
    beta = None if column.mechanism == "none" else column.beta
    mechanism = column.mechanism.removesuffix("_published")  # the poster's cell is the same
    return {
        split: Cell(tuple(runs), published().get((dataset, mechanism, beta, split)), split)
        for split in SPLITS
    }


def _setup(record: RunRecord) -> dict[str, Any]:
    flat = _flat({name: record.config[name] for name in _SETUP if name in record.config})
    return {key: value for key, value in flat.items() if key not in _SAME_SETUP}


def _variant(record: RunRecord) -> dict[str, Any]:
    mechanism = record.config["mechanism"]
    its = MECHANISMS[mechanism["name"]]
    own = (its.uses & {"max_grad_norm"}) | ({"privacy"} if its.has_epsilon else set())
    flat = _flat(
        {"mechanism": mechanism} | {k: record.config[k] for k in own if k in record.config}
    )
    return {key: value for key, value in flat.items() if key not in _SAME_SETUP}


def _distinguishing(values: Sequence[dict[str, Any]]) -> list[str]:
    """Of each, the keys in which not all are alike: "image_size=64, max_epochs=5"."""
    keys = sorted({key for value in values for key in value})
    differ = [key for key in keys if len({repr(value.get(key)) for value in values}) > 1]
    return [
        ", ".join(f"{key.split('.')[-1]}={value[key]}" for key in differ if key in value)
        for value in values
    ]


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        flat |= _flat(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return flat
