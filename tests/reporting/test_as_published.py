import csv
import io
import re

import pytest
from record_builders import failed, promise, published, seven
from rich.console import Console

from dpmi.reporting.charts.figure4 import figure4_chart
from dpmi.reporting.charts.style import save
from dpmi.reporting.sorting import figure4, with_missing
from dpmi.reporting.table import as_markdown, footnote, runs_csv, terminal_table


def rendered(records, width):
    console = Console(width=width, file=io.StringIO(), record=True)
    for panel in figure4(records):
        console.print(terminal_table(panel))
    return console.export_text()


def row(text, title):
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {title}")]
    return [cell.strip() for cell in line.split("|")[2:-1]]


def test_a_claim_is_shown_as_a_claim_and_never_as_an_epsilon():
    text = as_markdown(figure4(published()))
    promises = row(text, "privacy")
    assert promises == [
        *("no ε", "no ε (claimed 1)", "no ε (claimed 0.5)", "no ε (claimed 0.25)"),
        *("no ε (claimed 1)", "no ε (claimed 0.5)", "no ε (claimed 0.25)"),
    ]
    assert "ε=" not in text
    for line in csv.DictReader(runs_csv(figure4(published())).splitlines()):
        assert line["epsilon"] == line["delta"] == line["unit"] == ""
        claimed = "" if line["mechanism"] == "none" else f"{1 / float(line['beta'])}"
        assert line["claimed_epsilon"] == claimed


def test_the_best_epoch_on_test_stands_beside_the_last_under_another_name():
    text = as_markdown(figure4(published()))
    assert row(text, "chest_xray, best epoch on test") == ["", *["73.8%"] * 6]
    assert row(text, "chest_xray, test |")[1].startswith("**71.2%**")
    assert "too high" in text


def test_train_accuracy_is_predicted_where_the_original_was_run():
    predicted = f"{100 * (0.5 * 0.75 + 0.5 * 0.95):.1f}%"
    text = as_markdown(figure4(published()))
    assert row(text, "chest_xray, train, predicted") == ["", *[predicted] * 3, "", "", ""]
    assert "train, predicted" not in as_markdown(figure4(published()[1:]))
    without = [failed(mechanism="none"), *published()[1:]]
    assert "train, predicted" not in as_markdown(figure4(without))


def test_why_no_epsilon_holds_stands_under_the_table_once_a_mechanism():
    text = as_markdown([with_missing(panel) for panel in figure4(published()[:-1])])
    assert "not run" in text
    of = {"ldp_published": "LDP as published", "dpsgd_published": "DP-SGD as published"}
    for mechanism, title in of.items():
        why = promise(mechanism, 1.0).reason
        assert text.count(f"{title}: {why}.") == 1
        assert why not in as_markdown(figure4(seven()))


def test_the_posters_number_stands_beside_the_rerun_of_its_cell():
    text = as_markdown(figure4(published()))
    beside = [re.search(r"poster ([\d.]+)%", cell)[1] for cell in row(text, "chest_xray, test |")]
    assert beside == ["90.2", "91.0", "89.6", "91.7", "79.8", "77.7", "79.7"]


@pytest.mark.parametrize("dataset", ["chest_xray", "phantom_xray"])
def test_the_seven_columns_as_published_fit_a_terminal_with_no_word_broken(dataset):
    text = rendered(published(dataset), 80)
    assert max(len(line) for line in text.splitlines()) <= 80
    words = re.findall(r"[^\s│┃]+", text)
    assert words.count("published") == 6
    assert words.count("DP-SGD") == 3
    assert words.count("(claimed") == 6
    assert words.count("73.8%") == 6
    assert "…" not in text


def test_a_sweep_of_what_holds_says_nothing_of_claims():
    cells = figure4(seven())
    assert "published" not in footnote(cells)
    assert "best epoch on test |" not in as_markdown(cells)


def test_the_picture_has_a_place_for_each_cell(tmp_path):
    save(figure4_chart(figure4(published() + seven()[1:])), tmp_path / "figure.svg")
    assert (tmp_path / "figure.svg").stat().st_size > 10_000
