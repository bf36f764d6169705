"""All mechanisms on the one axis that they share: the ε of an image that is replaced."""

import re
from dataclasses import replace

from record_builders import promise, published, record, seven

from dpmi.reporting.charts.price import price_chart
from dpmi.reporting.charts.style import LINES
from dpmi.reporting.sections import prices, sections
from dpmi.reporting.sorting import figure4


def of_image(mechanism, beta, epsilon):
    return replace(promise(mechanism, beta), replace_one_epsilon=epsilon)


def at(chart, title, metric):
    """Where the mark of a cell stands, and whether it is filled."""
    (number,) = [n for n, tip in enumerate(chart.tips) if re.match(rf"{title}.*: {metric} ", tip)]
    (line,) = [
        line
        for axes in chart.figure.axes
        for line in axes.lines
        if line.get_gid() == f"tip-{number}"
    ]
    (x,), (y,) = line.get_data()
    return float(x), float(y), line.get_markerfacecolor() != "none"


def test_a_pixels_mechanism_stands_at_the_epsilon_of_its_images():
    runs = [
        record("ldp", 1.0, test=0.83, guarantee=of_image("ldp", 1.0, 4080.0)),
        record("dpsgd", 2.0, test=0.81, guarantee=of_image("dpsgd", 2.0, 0.98)),
    ]
    chart = price_chart(figure4(runs), "price-1")
    assert at(chart, "LDP β=1", "accuracy") == (4080.0, 0.83, True)
    assert at(chart, "DP-SGD β=2", "accuracy") == (0.98, 0.81, True)
    assert at(chart, "DP-SGD β=2", "AUROC") == (0.98, 0.876, True)
    assert "LDP β=1 0.876 at ε 4080" in chart.description


def test_what_has_no_epsilon_stands_beyond_the_axis_and_is_hollow():
    runs = [*published(), *seven()]
    chart = price_chart(figure4(runs), "price-1")
    most = max(r.guarantee.replace_one_epsilon or 0 for r in runs)
    places = {at(chart, name, "accuracy")[0] for name in ("original", "LDP as published β=1")}
    (nowhere,) = places
    assert nowhere > most
    for name in ("original", "LDP as published β=1", "DP-SGD as published β=4"):
        assert not at(chart, name, "accuracy")[2]
    posters = [line for line in chart.figure.axes[1].lines if line.get_marker() in ("*", "x")]
    assert posters
    assert {float(line.get_xdata()[0]) for line in posters} == places  # whatever the poster claims
    assert chart.figure.axes[1].get_xticklabels()[-1].get_text() == "no ε"


def test_each_data_set_with_an_epsilon_has_one_chart_of_all_its_setups():
    other = []
    for run in seven():
        config = run.config | {"data": run.config["data"] | {"image_size": 64}}
        digest = run.config_digest + "64"
        other.append(run.model_copy(update={"config": config, "config_digest": digest}))
    runs = [*seven(), *other, *seven("aptos"), record("none", dataset="phantom_xray")]
    charts = prices(figure4(runs))
    assert [chart.title.rsplit(": ")[1] for chart in charts] == ["aptos", "chest_xray"]
    both = sum(tip.startswith("DP-SGD β=1") and "accuracy" in tip for tip in charts[1].tips)
    assert both >= 2


def test_each_of_six_levels_of_noise_has_a_line_of_its_own_in_every_chart():
    runs = [record("dpsgd", beta) for beta in (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)]
    (made,) = sections(figure4(runs))
    assert made.reliability
    assert made.risk
    drawn = [line for line in made.curves.figure.axes[0].lines if len(line.get_xdata())]
    assert len(drawn) == len({str(line) for line in LINES}) == len(runs)


def test_six_setups_stand_in_one_chart():
    runs = []
    for side in (32, 48, 64, 80, 96, 128):
        for run in seven():
            config = run.config | {"data": run.config["data"] | {"image_size": side}}
            update = {"config": config, "config_digest": f"{run.config_digest}{side}"}
            runs.append(run.model_copy(update=update))
    (chart,) = prices(figure4(runs))
    assert "Set-up 6" in chart.description


def test_figures_of_other_test_images_stand_in_a_chart_of_their_own():
    runs = []
    for tested_on in ("official", "held_out"):
        for run in seven():
            config = run.config | {"data": run.config["data"] | {"test": tested_on}}
            digest = run.config_digest + tested_on
            runs.append(run.model_copy(update={"config": config, "config_digest": digest}))
    titles = [chart.title for chart in prices(figure4(runs))]
    assert [title.rsplit(": ")[-1] for title in titles] == ["held out", "official"]


def test_without_any_epsilon_there_is_no_chart():
    assert price_chart(figure4([record("none")]), "price-1") is None
