import csv
import io
import re
from dataclasses import replace
from itertools import pairwise
from xml.etree import ElementTree

import pytest
from record_builders import failed, published, record, seven
from rich.console import Console

from dpmi.reporting.cells import Panel
from dpmi.reporting.charts.figure4 import figure4_chart
from dpmi.reporting.charts.style import save
from dpmi.reporting.sorting import figure4
from dpmi.reporting.sweep_report import CSV_FILE, MARKDOWN_FILE, PLOT_FILE, report_sweep
from dpmi.run.records.writing import write_record


# The reason holds what rich would read as markup, and Markdown as a cell's end.
@pytest.mark.parametrize("reason", ["disk full", "[/tmp/x] a|b [red]", "first\nsecond [/]"])
def test_a_failed_cell_is_shown_as_failed_with_its_reason(tmp_path, reason):
    sweep = [*seven()[:-1], failed(reason, beta=4.0)]
    for number, run in enumerate(sweep):
        (tmp_path / str(number)).mkdir()
        write_record(run, tmp_path / str(number))
    console = Console(width=200, file=io.StringIO(), record=True)
    assert report_sweep(tmp_path, console) == 1
    printed = console.export_text()
    assert f"chest_xray-dpsgd-beta4-seed42 failed: {reason}" in printed
    assert "see below" in printed
    assert "7 records" in printed
    (row,) = (
        row
        for row in csv.DictReader((tmp_path / CSV_FILE).open(newline=""))
        if row["status"] == "failed" and row["split"] == "test"
    )
    assert (row["reason"], row["accuracy"], row["epsilon"]) == (reason, "", "")
    assert row["poster_accuracy"] == "0.7965"
    markdown = (tmp_path / MARKDOWN_FILE).read_text()
    lines = [line for line in markdown.splitlines() if line.startswith("|")]
    assert "**failed**" in lines[3]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {9}


def test_a_sweep_without_records_is_reported(tmp_path):
    console = Console(width=200, file=io.StringIO(), record=True)
    assert report_sweep(tmp_path, console) == 0
    assert "no run left a record" in console.export_text()
    assert not list(tmp_path.iterdir())


def test_the_picture_shows_each_cells_accuracy_the_posters_and_the_majority_class(tmp_path):
    counts = {
        "class_counts": {"test": {"NORMAL": 234, "PNEUMONIA": 390}},
        "counts": {"train": 5216, "test": 624},
    }
    runs = [record("none", data=counts), *seven()[1:-1], failed(beta=4.0)]
    (panel,) = figure4(runs)
    save(figure4_chart([panel, Panel("phantom_xray", "", panel.columns)]), tmp_path / PLOT_FILE)
    picture = ElementTree.parse(tmp_path / PLOT_FILE)
    drawn = [text.text for text in picture.iter("{http://www.w3.org/2000/svg}text")]
    assert drawn.count("81.2") == 2 * 5
    assert drawn.count("failed") == 2
    assert sum("majority class, 62.5 %" in words for words in drawn) == 2
    assert drawn.count("poster, picked on test") == drawn.count("authors' last epoch") == 2


def test_the_picture_marks_the_best_epoch_on_test_where_the_runs_looked():
    (looked,), (not_looked,) = figure4(published()), figure4(seven())
    found = [tip for tip in figure4_chart([looked]).tips if "best epoch on test" in tip]
    assert len(found) == 6
    assert "LDP as published β=1: best epoch on test 73.8 %, picked on the test images" in found
    assert not any("best epoch on test" in tip for tip in figure4_chart([not_looked]).tips)


LONG = ("calibration=noise_multiplier, max_grad_norm=0.7", "unit=patient, pool=8")


@pytest.mark.parametrize("columns", [3, 5, 7])
@pytest.mark.parametrize("variants", [("",), LONG])
@pytest.mark.parametrize("mechanism", ["ldp_features", "dpsgd_published"])
def test_no_label_of_the_picture_runs_into_the_next_or_out_of_it(columns, variants, mechanism):
    (panel,) = figure4(seven())
    long = {
        replace(column, mechanism=mechanism, variant=variants[number % len(variants)]): cells
        for number, (column, cells) in enumerate([*panel.columns.items()][:columns])
    }
    chart = figure4_chart([Panel("chest_xray", "", long)])
    assert chart.svg  # drawn: every label has its place
    boxes = [label.get_window_extent() for label in chart.figure.axes[0].get_xticklabels()]
    assert len(boxes) == columns
    assert all(left.x1 < right.x0 for left, right in pairwise(boxes))
    edge = chart.figure.bbox
    assert all(edge.x0 <= box.x0 and box.x1 <= edge.x1 and edge.y0 <= box.y0 for box in boxes)
