"""Who pays, of records whose groups are given."""

import csv
import math
from statistics import mean, stdev

import pytest
from record_builders import record
from scipy.stats import t

from dpmi.models.groups import Measured, Subgroup, worst_groups
from dpmi.reporting.charts.style import inline_svg
from dpmi.reporting.charts.who_pays import MOST, who_pays_chart
from dpmi.reporting.page import page
from dpmi.reporting.sections import sections
from dpmi.reporting.sorting import figure4
from dpmi.reporting.table import as_markdown, cells_csv, runs_csv
from dpmi.reporting.who_pays import groups_of, payers
from dpmi.reporting.who_pays_tables import groups_csv, who_pays_markdown

NOTHING = Measured(None, None, None)


def group(name, value, images=50, column="sex", auroc=0.9):
    share = Measured(value, value - 0.1, value + 0.05)
    measures = {
        "auroc": NOTHING if auroc is None else Measured(auroc, 0.8, 0.95),
        "balanced_accuracy": share, "accuracy": share, "ece": Measured(0.1, None, None),
    }  # fmt: skip
    return Subgroup(column, name, images, images // 2, {"well": images, "ill": 0}, measures)


def run(mechanism, groups, balanced=0.8, **changes):
    one = record(mechanism, 1.0, **changes)
    metrics = one.metrics | {"test/balanced_accuracy": balanced}
    found = {"groups": groups, "worst_groups": worst_groups(groups), "metrics": metrics}
    return one.model_copy(update={"keyed_data": "same", **found})


@pytest.fixture
def two():
    """An original and a private run: women lose 20 points, men one, a handful all."""
    plain = [group("f", 0.85), group("m", 0.8), group("x", 1.0, images=4)]
    noised = [group("f", 0.65), group("m", 0.79), group("x", 0.1, images=4)]
    return [run("none", plain), run("dpsgd", noised, balanced=0.7)]


def cell(panel, mechanism):
    return next(column for column in panel.columns if column.mechanism == mechanism)


def test_who_pays_is_the_group_that_loses_most_to_the_original_of_the_same_seed(two):
    (panel,) = figure4(two)
    plain, private = payers(panel, groups_of(panel))
    assert (plain.most, plain.whole) == (None, None)
    assert plain.worst.name == "m"
    assert private.most.title == "sex=f"  # not the four, of whom chance may say anything
    assert private.most.loss.value == pytest.approx(0.2)
    assert (private.worst.name, private.whole) == ("f", pytest.approx(0.1))
    half = math.hypot(0.1, 0.05)  # by the ends of both, as if independent
    assert private.most.loss.low == pytest.approx(0.2 - half)
    assert private.most.loss.high == pytest.approx(0.2 + half)
    assert private.most.loss.over == "patients"
    (line,) = [
        line
        for line in csv.DictReader(cells_csv([panel]).splitlines())
        if (line["mechanism"], line["split"]) == ("dpsgd", "test")
    ]
    assert (line["worst_group"], line["group_that_loses_most"]) == ("sex=f", "sex=f")
    assert float(line["its_loss"]) == pytest.approx(0.2)
    assert float(line["worst_group_balanced_accuracy"]) == pytest.approx(0.65)


def test_of_several_seeds_a_loss_is_the_mean_of_the_pairs_with_their_spread():
    lost = (0.10, 0.13, 0.05)
    runs = []
    for seed, loss in enumerate(lost):
        runs.append(run("none", [group("f", 0.8 + 0.01 * seed)], seed=seed))
        runs.append(run("dpsgd", [group("f", 0.8 + 0.01 * seed - loss)], seed=seed))
    (panel,) = figure4(runs)
    private = next(g for g in groups_of(panel) if g.cell.mechanism == "dpsgd")
    half = t.ppf(0.975, 2) * stdev(lost) / math.sqrt(3)
    assert private.loss.value == pytest.approx(mean(lost))
    assert (private.loss.low, private.loss.high) == (
        pytest.approx(mean(lost) - half), pytest.approx(mean(lost) + half),
    )  # fmt: skip
    assert private.loss.over == "seeds"
    assert private.measures["accuracy"].low == pytest.approx(0.81 - mean(lost) - 0.1)


@pytest.mark.parametrize("other", [{"keyed_data": "other"}, {"config": None}, {"groups": []}])
def test_a_run_on_other_images_of_another_seed_or_without_groups_is_no_original(two, other):
    plain, private = two
    if "config" in other:
        other = {"config": plain.config | {"seed": 7}}
    (panel,) = figure4([plain.model_copy(update=other), private])
    found = [g for g in groups_of(panel) if g.cell.mechanism == "dpsgd"]
    assert [g.name for g in found] == ["f", "m", "x"]
    assert all(g.loss is None for g in found)


def test_a_mean_of_values_some_of_which_are_undefined_says_over_how_many():
    runs = [
        run("none", [group("f", 0.8, auroc=auroc)], seed=seed).model_copy(
            update={"metrics": {"test/accuracy": 0.8, "test/auroc": auroc or math.nan}}
        )
        for seed, auroc in enumerate((0.7, None, 0.9))
    ]
    (panel,) = figure4(runs)
    (its,) = groups_of(panel)
    assert its.shown("auroc") == "0.800 (2 of 3 runs)"
    assert its.shown("accuracy") == "0.800"
    assert "0.800 (2 of 3 runs)" in as_markdown([panel])
    (test_line,) = (
        line for line in csv.DictReader(cells_csv([panel]).splitlines()) if line["split"] == "test"
    )
    assert test_line["auroc"] == "0.800000 (2 of 3 runs)"
    found = [line["auroc"] for line in csv.DictReader(runs_csv([panel]).splitlines())
            if line["split"] == "test"]  # fmt: skip
    assert sorted(found) == ["0.7", "0.9", "undefined"]


def test_a_metric_that_is_nowhere_defined_is_the_word_in_every_table():
    one = run("none", [group("f", 0.8, auroc=None)])
    undefined = {"test/auroc": math.nan, "test/recall/ill": math.nan, "test/recall/well": 0.8}
    (panel,) = figure4([one.model_copy(update={"metrics": one.metrics | undefined})])
    test = panel.columns[cell(panel, "none")]["test"]
    assert (test.auroc, test.mean_of("auroc")) == ("undefined", None)
    assert test.absent_classes == ["ill"]
    assert test.shown("worst_recall") == "0.800"  # of the classes that are there
    (line,) = csv.DictReader(groups_csv([panel]).splitlines())
    assert line["auroc"] == line["auroc_low_95"] == "undefined"
    markdown = as_markdown([panel])
    assert "undefined" in markdown
    assert "no test image is of class ill, whose recall is undefined" in markdown
    text = page(sections([panel]), [], panel.runs, 0)
    assert text.count(">undefined<") >= 2  # of the cell and of the group
    assert ">nan<" not in text


def test_page_markdown_and_chart_hold_any_name_a_table_may_give(two):
    odd = "<b>$x_1$|</b>" + "long " * 10
    renamed = [
        one.model_copy(update={"groups": [group(odd, 0.8), group("f", 0.7, images=3)]})
        for one in two
    ]
    (panel,) = figure4(renamed)
    (its,) = sections([panel])
    text = page([its], [], renamed, 0)
    assert "Who pays" in text
    assert "<b>$x" not in text
    assert "&lt;b&gt;$x_1$|" in text
    assert "few images" in text
    tables = who_pays_markdown(its.payers, its.groups)
    assert all(line.count("|") - line.count("\\|") == table.splitlines()[0].count("|")
               for table in tables for line in table.splitlines())  # fmt: skip
    (chart,) = its.who_pays
    assert "$x_1$" in inline_svg(chart)


def test_a_chart_has_the_largest_groups_and_the_tables_have_all():
    groups = [group(f"site {n:02}", 0.8, images=10 + n) for n in range(MOST + 3)]
    (panel,) = figure4([run("none", groups)])
    found = groups_of(panel)
    chart = who_pays_chart(panel, "sex", found, "who")
    assert "site 14" in chart.svg
    assert "site 02" not in chart.svg
    assert len(found) == len(list(csv.DictReader(groups_csv([panel]).splitlines()))) == MOST + 3


def test_records_without_groups_have_no_such_section():
    (panel,) = figure4([record("none", 1.0)])
    text = page(sections([panel]), [], panel.runs, 0)
    assert "who-pays" not in text
