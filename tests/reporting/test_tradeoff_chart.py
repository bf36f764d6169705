"""Test metrics against the ε that was promised."""

import math
from dataclasses import replace

from record_builders import promise, record

from dpmi.reporting.charts.tradeoff import tradeoff_chart
from dpmi.reporting.sorting import figure4


def test_an_infinite_epsilon_has_no_place_on_the_axis():
    runs = [
        record("dpsgd", beta, guarantee=replace(promise("dpsgd", beta), epsilon=epsilon))
        for beta, epsilon in ((1.0, 1.0), (0.001, math.inf))
    ]
    (panel,) = figure4(runs)
    chart = tradeoff_chart(panel, "tradeoff-1")
    assert all(math.isfinite(end) for axes in chart.figure.axes for end in axes.get_xlim())
    assert {tip.split(":")[0] for tip in chart.tips} == {"DP-SGD β=1"}
    (alone,) = figure4(runs[1:])
    assert tradeoff_chart(alone, "tradeoff-1") is None
