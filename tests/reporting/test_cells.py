import csv

import pytest
from record_builders import failed, record

from dpmi.reporting.cells import WORST_RECALL, figure4, merge, with_missing
from dpmi.reporting.table import cells_csv


def titles(panel):
    return [column.title for column in panel.columns]


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


def test_the_interval_is_over_seeds_where_there_are_several_else_over_images(real_records):
    ours, _ = figure4(merge(real_records))
    for column, cells in ours.columns.items():
        for split, images in (("train", 60), ("test", 30)):
            interval = cells[split].interval
            if column.title == "DP-SGD β=4":
                assert interval is None
            elif column.title == "LDP as published β=4":
                assert (interval.over, interval.n) == ("images", images)
            else:
                assert (interval.over, interval.n) == ("seeds", 2)
            if interval:
                assert interval.low <= cells[split].mean <= interval.high


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


def test_runs_of_another_delta_are_another_cell_and_never_averaged():
    def at(delta):
        run = record("dpsgd", 1.0, seed=1)
        mechanism = run.config["mechanism"] | {"delta": delta}
        return run.model_copy(update={"config": run.config | {"mechanism": mechanism}})

    (panel,) = figure4([at(1e-4), at(1e-5)])
    assert titles(panel) == ["DP-SGD β=1 (delta=0.0001)", "DP-SGD β=1 (delta=1e-05)"]


@pytest.mark.parametrize("metric", ["accuracy", "auroc"])
def test_a_metric_that_is_no_number_is_left_out(metric):
    nan = {"test/accuracy": float("nan"), "test/auroc": float("nan")}
    (panel,) = figure4([record(seed=1), record(seed=2, metrics=nan)])
    (cells,) = panel.columns.values()
    assert len(cells["test"].values(metric)) == 1


def test_the_worst_recall_is_that_of_the_class_that_fared_worst():
    metrics = {"test/accuracy": 0.7, "test/recall/NORMAL": 0.2, "test/recall/PNEUMONIA": 0.9}
    (panel,) = figure4([record(metrics=metrics)])
    (cells,) = panel.columns.values()
    assert cells["test"].values(WORST_RECALL) == [0.2]
