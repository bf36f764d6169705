import pytest
from record_builders import record

from dpmi.reporting.cells import WORST_RECALL
from dpmi.reporting.sorting import figure4, merge


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
