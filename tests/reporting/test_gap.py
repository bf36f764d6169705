import math

import pytest
from record_builders import seven

from dpmi.reporting.gap import gap_chart, gaps
from dpmi.reporting.sorting import figure4, merge


def test_the_closed_form_predicts_the_posters_train_accuracy_to_a_point_and_a_half():
    (panel,) = figure4(seven())  # of whatever images: the poster's are its own
    posters = {gap.cell: gap for gap in gaps(panel) if gap.who == "poster"}
    assert {cell: round(100 * gap.predicted, 1) for cell, gap in posters.items()} == {
        "LDP β=1": 90.4,
        "LDP β=2": 84.3,
        "LDP β=4": 79.9,
    }
    for gap in posters.values():
        assert gap.train == pytest.approx(gap.predicted, abs=0.015)
        assert gap.test > gap.train


def test_a_real_published_run_is_predicted_from_its_own_record_and_original(real_records):
    ours, theirs = figure4(merge(real_records))
    independent, published = gaps(ours)
    assert (independent.blank, independent.observed, independent.predicted) == (None, None, None)
    (original,) = (c["train"].mean for col, c in ours.columns.items() if col.mechanism == "none")
    (run,) = (r for r in ours.runs if r.config["mechanism"]["name"] == "ldp_published")
    majority = max(run.data["class_counts"]["train"].values()) / 60
    blank = published.blank
    assert math.exp(-1 / 4) <= blank <= 1
    assert published.observed == pytest.approx(blank, abs=4 * (blank * (1 - blank) / 60) ** 0.5)
    assert published.observed == run.mechanism["nonprivate/blank_share"]
    assert published.predicted == pytest.approx(blank * majority + (1 - blank) * original)
    assert gaps(theirs) == []
    assert gap_chart(theirs, [], "gap") is None
