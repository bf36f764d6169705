import pytest

from dpmi.reporting.cost import costs
from dpmi.reporting.sorting import figure4, merge


def test_each_cell_is_set_against_the_original_of_its_own_seed(real_records):
    ours, _ = figure4(merge(real_records))
    steps = {r.run: r.timings["steps"] for r in ours.runs if r.status == "completed"}
    found = {cost.column.title: cost for cost in costs(ours)}
    assert "DP-SGD β=4" not in found
    assert found["original"].slowdown == 1
    assert found["DP-SGD β=1"].slowdown == pytest.approx(
        sum(
            steps[f"phantom_xray-dpsgd-beta1-seed{s}"] / steps[f"phantom_xray-none-seed{s}"]
            for s in (1, 2)
        )
        / 2
    )
    for cost in found.values():
        assert 0 < cost.steps < cost.total
        assert cost.memory is None or cost.memory > 0


def test_without_an_original_there_is_no_ratio(real_records):
    runs = [r for r in merge(real_records) if r.config["mechanism"]["name"] != "none"]
    ours, _ = figure4(runs)
    assert {cost.slowdown for cost in costs(ours)} == {None}
