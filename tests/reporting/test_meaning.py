import csv
from dataclasses import replace

import pytest
from record_builders import failed, published, record, seven

from dpmi.privacy.guarantee import Group, Guarantee
from dpmi.privacy.risk import patient_risk, risks
from dpmi.privacy.spending import LedgerEntry
from dpmi.reporting.as_public import as_far_as_public
from dpmi.reporting.charts.risk import risk_chart
from dpmi.reporting.page import page
from dpmi.reporting.risk import CSV_HEADER, cell_risks, csv_values, markdown_rows
from dpmi.reporting.sections import sections
from dpmi.reporting.sorting import figure4
from dpmi.reporting.table import cells_csv
from dpmi.run.records.public import publishable


def of(noise):
    """What follows from one release with this noise."""
    promised = Guarantee("dpsgd", 1.0, 1e-5, "image", "zero-out", "prv")
    return risks(promised, [LedgerEntry(noise, 1.0, 1)])


def panel_of(records):
    (panel,) = figure4(records)
    return panel


def test_a_cell_has_the_bounds_of_its_least_private_run():
    runs = [record("dpsgd", seed=seed, risk=of(noise)) for seed, noise in ((1, 9.0), (2, 4.0))]
    (found,) = cell_risks(panel_of(runs))
    assert found.risks == of(4.0)


def test_where_an_image_is_the_unit_the_patient_with_the_most_images_has_bounds_of_their_own():
    """In a report of private records; a public one knows of no patient."""
    entries = [LedgerEntry(9.0, 1.0, 1)]
    promised = Guarantee("dpsgd", 1.0, 1e-5, "image", "zero-out", "prv")
    known = replace(promised, private={"largest_patient": Group(30, 74.2)})
    run = record("dpsgd", guarantee=known, risk=of(9.0), patient_risk=patient_risk(known, entries))
    (found,) = cell_risks(panel_of([run]))
    assert [risk.unit for risk in found.risks] == ["image", "patient with 30 images"]
    assert len(markdown_rows([found])) == 2
    assert csv_values(panel_of([run]).columns[found.column]["test"])[0] == of(9.0)[0].accuracy
    for public, expected in ((False, True), (True, False)):
        shown_run = as_far_as_public(publishable(run)) if public else run
        shown = page(sections(figure4([shown_run])), [], [shown_run], 0, public=public)
        assert ("All 30 images of that patient together have ε = 74.2." in shown) == expected
        assert (
            "everything but one patient with 30 images is right in at most" in shown
        ) == expected


def test_where_a_run_has_no_guarantee_nothing_is_bounded_and_the_reason_is_stated():
    none = Guarantee.none("dpsgd", "the noise can be repeated")
    runs = [record("dpsgd", seed=1), record("dpsgd", seed=2, guarantee=none, risk=())]
    (found,) = cell_risks(panel_of(runs))
    assert (found.risks, found.reason) == ((), "the noise can be repeated")
    assert cell_risks(panel_of([failed()])) == []


@pytest.fixture(scope="module")
def shown():
    records = seven()
    return page(sections(figure4(records)), [], records, 0)


def test_the_page_says_of_each_private_cell_what_its_guarantee_means(shown):
    meaning = shown[shown.index('id="risk"') : shown.index('id="reliability"')]
    assert meaning.count("everything but one image is right in at most") == 3
    assert meaning.count("everything but one pixel is right in at most 74 of 100") == 3
    assert meaning.count("For one image the bound says nothing") == 3
    assert "Nothing bounds what an attacker can do: trained on the images without" in meaning
    for sentence in meaning.split("by chance")[:-1]:
        assert any(f"({unit})" in sentence for unit in ("pixel, replace-one", "image, zero-out"))


def test_the_chart_has_a_row_a_unit_and_its_lines_are_the_curves_of_the_records():
    panel = panel_of(seven())
    found = cell_risks(panel)
    chart = risk_chart(panel, found, "risk-1")
    assert [axes.get_title(loc="left") for axes in chart.figure.axes[::2]] == [
        "one pixel", "one image",
    ]  # fmt: skip
    for linear, logarithmic, of_row in zip(
        chart.figure.axes[::2], chart.figure.axes[1::2], (("pixel",), ("image",)), strict=True
    ):
        curves = [risk.curve for its in found for risk in its.risks if risk.unit in of_row]
        for axes in (linear, logarithmic):
            drawn = [tuple(zip(*line.get_data(), strict=True)) for line in axes.lines[1:]]
            assert [points for points in drawn if len(points) > 1] == curves
        assert (logarithmic.get_xscale(), logarithmic.get_yscale()) == ("log", "log")
    assert chart.description.count("best guess right in") == 9
    assert len(chart.tips) == 2 * 9


def test_cells_without_any_guarantee_have_no_chart_and_no_rows():
    panel = panel_of(published())
    found = cell_risks(panel)
    assert risk_chart(panel, found, "risk-1") is None
    assert markdown_rows(found) == []
    assert len(found) == 7
    assert all(its.reason for its in found)


def test_the_csv_has_the_bounds_of_the_guarantees_own_unit():
    lines = list(csv.DictReader(cells_csv([panel_of(seven())]).splitlines()))
    for line in lines:
        found = [line[name] for name in CSV_HEADER]
        if line["mechanism"] == "none":
            assert set(found) == {""}
        else:
            assert 0.5 < float(line["attack_accuracy"]) < 0.75
            assert line["attack_most"] == ("256" if line["mechanism"] == "ldp" else "1000")


def test_a_number_in_a_table_is_rounded_up():
    (found,) = cell_risks(panel_of([record("dpsgd", risk=of(4.0))]))
    ((_, _, right, at_a_thousandth, *_),) = markdown_rows([found])
    assert float(right) >= 100 * found.risks[0].accuracy
    assert float(at_a_thousandth) >= 100 * found.risks[0].true_positive_rates["0.001"]
