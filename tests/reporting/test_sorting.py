import csv

import pytest
from record_builders import failed, record

from dpmi.config.identity import NOT_IDENTITY
from dpmi.reporting.sorting import figure4, merge, with_missing
from dpmi.reporting.table import cells_csv


def titles(panel):
    return [column.title for column in panel.columns]


def configured(run, key, value):
    """The run, with one key of its config changed."""
    section, _, name = key.rpartition(".")
    changed = {**run.config.get(section, {}), name: value} if section else value
    return run.model_copy(update={"config": run.config | {section or name: changed}})


def test_a_run_of_two_sweeps_counts_once_and_the_completed_one_stands_for_it():
    first, again, other = failed(seed=1), record(seed=1, test=0.7), record(seed=2, test=0.8)
    assert merge([[first], [again, other]]) == [again, other]
    assert merge([[again], [first]]) == [again]
    last = record(seed=1, test=0.6)
    assert merge([[again], [last]]) == [last]


def test_real_sweeps_merge_to_one_figure_and_another_set_up_stands_apart(real_records):
    runs = merge(real_records)
    assert (sum(map(len, real_records)), len(runs)) == (11, 10)
    ours, theirs = figure4(runs)
    assert titles(ours) == [
        *("original", "LDP β=1", "DP-SGD β=1", "DP-SGD β=4", "LDP as published β=4")
    ]
    assert ours.setup == "batch_size=10, norm=group"
    assert theirs.setup == "batch_size=32, norm=batch"
    assert titles(theirs) == ["original", "DP-SGD as published β=2"]
    seeds = {column.title: cells["test"].seeds for column, cells in ours.columns.items()}
    assert seeds["LDP β=1"] == seeds["original"] == 2
    assert (seeds["LDP as published β=4"], seeds["DP-SGD β=4"]) == (1, 0)


def test_missing_and_failed_cells_are_shown_as_such(real_records):
    ours, _ = (with_missing(panel) for panel in figure4(merge(real_records)))
    status = {column.title: cells["test"].status for column, cells in ours.columns.items()}
    assert status == {
        "original": "completed",
        "LDP β=1": "completed",
        "LDP β=4": "not run",
        "DP-SGD β=1": "completed",
        "DP-SGD β=4": "failed",
        "LDP as published β=1": "not run",
        "LDP as published β=4": "completed",
    }
    lines = list(csv.DictReader(cells_csv([ours]).splitlines()))
    assert len(lines) == 2 * len(status)
    for line in lines:
        shown = line["status"] == "completed"
        assert bool(line["accuracy"]) == bool(line["low_95"]) == shown
        assert float(line["majority_class"]) >= 0.5


def test_the_posters_cells_are_missed_on_its_data_sets_and_nowhere_else():
    (panel,) = (with_missing(p) for p in figure4([record("dpsgd", 2.0)]))
    assert titles(panel) == ["original", "DP-SGD β=1", "DP-SGD β=2", "DP-SGD β=4"]
    (panel,) = (with_missing(p) for p in figure4([record("dpsgd", 2.0, dataset="phantom_xray")]))
    assert titles(panel) == ["original", "DP-SGD β=2"]


@pytest.mark.parametrize(
    ("key", "values", "message"),
    [
        ("mechanism.delta", (1e-4, 1e-5), ("delta=0.0001", "delta=1e-05")),
        ("privacy.max_epsilon", (None, 0.5), ("max_epsilon=0.5", "max_epsilon=None")),
        ("max_grad_norm", (1.0, 5.0), ("max_grad_norm=1.0", "max_grad_norm=5.0")),
    ],
)
def test_runs_of_another_guarantee_are_another_cell_and_never_averaged(key, values, message):
    (panel,) = figure4([configured(record(seed=1), key, value) for value in values])
    assert titles(panel) == [f"DP-SGD β=1 ({which})" for which in message]


@pytest.mark.parametrize(
    "key", [*sorted(NOT_IDENTITY - {"logger"}), "data.num_workers", "data.root"]
)
def test_runs_that_differ_in_how_they_ran_are_of_one_cell(key):
    (panel,) = figure4([configured(record(seed=n), key, n) for n in (1, 2)])
    assert titles(panel) == ["DP-SGD β=1"]
