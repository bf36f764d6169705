import pytest
from record_builders import seven

from dpmi.reporting.charts.reliability import pooled, reliability_chart
from dpmi.reporting.sorting import figure4


def test_the_bins_of_several_runs_are_pooled_by_their_images():
    one = [(0.55, 0.5, 10), (0.95, 1.0, 30)]
    other = [(0.58, 0.8, 30), (0.75, 0.6, 5)]
    assert pooled([one]) == one
    first, second, third = pooled([one, other])
    assert first == pytest.approx(((0.55 * 10 + 0.58 * 30) / 40, (5 + 24) / 40, 40))
    assert (second, third) == (other[1], one[1])


def test_a_panel_of_runs_without_bins_has_no_reliability_diagram():
    records = [r.model_copy(update={"reliability": []}) for r in seven()]
    assert reliability_chart(figure4(records)[0], "reliability-1") is None


def test_each_mechanism_has_its_diagram_and_its_error_is_stated():
    found = [(0.6, 0.5, 20), (0.9, 0.95, 60)]
    records = [
        r.model_copy(update={"reliability": found, "metrics": r.metrics | {"test/ece": 0.0625}})
        for r in seven()
    ]
    chart = reliability_chart(figure4(records)[0], "reliability-1")
    assert [axes.get_title(loc="left") for axes in chart.figure.axes] == [
        "original", "LDP", "DP-SGD",
    ]  # fmt: skip
    assert chart.description.count("0.062") == 7
    diagonal, curve = chart.figure.axes[0].lines
    assert list(diagonal.get_xdata()) == list(diagonal.get_ydata())
    assert list(curve.get_xdata()) == [0.6, 0.9]
    assert list(curve.get_ydata()) == [0.5, 0.95]
