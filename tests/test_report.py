import csv
import json
import re
import shutil
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from dpmi.report import main
from dpmi.run.records.reading import read_records
from dpmi.verify import main as verify


def test_the_report_is_a_page_markdown_csv_and_pictures(real_report):
    names = {path.name for path in real_report.iterdir()}
    assert {"report.html", "report.md", "cells.csv", "runs.csv"} <= names
    charts = {
        "price-1",
        "figure4-1",
        "tradeoff-1",
        "risk-1",
        "curves-1",
        "gap-1",
        "figure2-1",
        "cost-1",
        "figure4-2",
    }
    assert {f"{chart}{suffix}" for chart in charts for suffix in (".svg", ".png")} <= names
    for path in real_report.glob("*.svg"):
        ElementTree.parse(path)
    for target in re.findall(r"!\[.*?\]\((.*?)\)", (real_report / "report.md").read_text()):
        assert (real_report / target).is_file()


class Page(HTMLParser):
    """What the page names and would fetch."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.fetched, self.ids = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.tags.append((tag, values))
        self.ids += [values["id"]] if "id" in values else []
        for name in ("src", "href", "xlink:href", "data", "srcset"):
            if name in values and tag != "a":
                self.fetched.append(values[name])


def test_the_page_fetches_nothing_and_names_each_thing_once(real_report):
    text = (real_report / "report.html").read_text()
    page = Page(text)
    assert all(target.startswith(("data:", "#")) for target in page.fetched)
    assert "@import" not in text
    assert not re.search(r"url\((?!#|data:)", text)
    assert len(page.ids) == len(set(page.ids))


def test_every_picture_has_words_and_every_table_a_caption_and_headings(real_report):
    text = (real_report / "report.html").read_text()
    page = Page(text)
    images = [values for tag, values in page.tags if tag == "img"]
    assert len(images) >= 5
    assert all(values.get("alt") for values in images)
    charts = [v for tag, v in page.tags if tag == "svg"]
    assert len(charts) >= 7
    for values in charts:
        title, words = values["aria-labelledby"].split()
        assert re.search(rf'<title id="{title}">[^<]+</title>', text)
        assert re.search(rf'<desc id="{words}">[^<]+</desc>', text)
    for table in re.findall(r"<table.*?</table>", text, flags=re.DOTALL):
        assert "<caption>" in table
        assert 'scope="col"' in table
        assert 'scope="row"' in table


def test_every_cell_is_shown_with_its_guarantee_or_how_it_ended(real_report):
    lines = list(csv.DictReader((real_report / "cells.csv").open()))
    assert {line["status"] for line in lines} == {"completed", "failed", "not run"}
    for line in lines:
        if line["status"] != "completed":
            assert not line["accuracy"]
        elif line["mechanism"] in ("ldp", "dpsgd"):
            assert all(line[name] for name in ("epsilon", "delta", "unit", "adjacency"))
        else:
            assert not line["epsilon"]
            assert bool(line["claimed_epsilon"]) == line["mechanism"].endswith("_published")
    text = (real_report / "report.html").read_text()
    assert "not run" in text
    assert re.search(r"<strong class=\"bad\">failed</strong>: .+", text)


def test_a_record_of_an_unknown_version_is_refused_by_name(real_sweeps, tmp_path, capsys):
    shutil.copytree(real_sweeps[0], tmp_path / "sweep")
    (path, *_) = sorted((tmp_path / "sweep").rglob("record.json"))
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": 99}))
    assert main([str(tmp_path / "sweep")]) == 2
    printed = capsys.readouterr().err
    assert str(path) in printed
    assert "99" in printed
    assert not (tmp_path / "sweep" / "report").exists()


def test_a_report_says_whether_it_may_be_published(real_report):
    for name in ("report.html", "report.md"):
        assert "Made of private records (record.json)" in (real_report / name).read_text()


def test_a_public_report_is_made_of_public_records_alone(real_sweeps, tmp_path):
    """With nothing else at hand it is the same; and it tells nothing of training images."""
    records = []
    for number, sweep in enumerate(real_sweeps):
        records += read_records(sweep)
        for path in sweep.rglob("public.json"):
            place = tmp_path / str(number) / path.relative_to(sweep)
            place.parent.mkdir(parents=True)
            shutil.copy(path, place)
    out = tmp_path / "out"
    assert main([str(tmp_path / "0"), str(tmp_path / "1"), "--public", "-o", str(out)]) == 0
    text = (out / "report.html").read_text()
    assert "Made of public records (public.json) alone" in text
    assert {line["split"] for line in csv.DictReader((out / "cells.csv").open())} == {"test"}
    written = b"".join(path.read_bytes() for path in out.iterdir()).decode("latin1")
    completed = [record for record in records if record.status == "completed"]
    for record in completed:
        assert record.run in text
        for fact in (record.config_digest, record.data["sha256"], record.sample.before):
            assert fact not in written
    for heading in ('id="gap"', 'id="figure2"', 'id="cost"', "Train accuracy", "nonprivate"):
        assert heading not in written
    assert {p.name for p in out.glob("*.svg")} == {
        *("price-1.svg", "figure4-1.svg", "figure4-2.svg"),
        *("tradeoff-1.svg", "tradeoff-2.svg", "risk-1.svg"),
        *("reliability-1.svg", "reliability-2.svg"),
    }


@pytest.mark.parametrize("make", [False, True], ids=["absent", "empty"])
def test_a_folder_without_records_is_refused_by_name(tmp_path, capsys, make):
    folder = tmp_path / "sweep"
    if make:
        folder.mkdir()
    assert main([str(folder)]) == 2
    assert str(folder) in capsys.readouterr().err
    assert not (folder / "report").exists()


def test_the_same_records_give_the_same_report_however_often_they_are_given(
    real_sweeps, real_report, tmp_path
):
    assert main([*map(str, real_sweeps * 2), "-o", str(tmp_path)]) == 0
    for name in ("cells.csv", "runs.csv", "report.md", "figure4-1.svg", "figure2-1.png"):
        assert (tmp_path / name).read_bytes() == (real_report / name).read_bytes()
    once, twice = ((folder / "report.html").read_text() for folder in (real_report, tmp_path))
    assert "1 repeat counted once" in once
    assert twice == once.replace("1 repeat counted once", "12 repeats counted once")


def test_cards_of_all_that_completed_lie_beside_the_report_and_are_linked_from_it(
    real_sweeps, tmp_path, capsys
):
    out = tmp_path / "report"
    (copy := tmp_path / "sweep").mkdir()
    for folder in sorted(real_sweeps[1].iterdir()):
        shutil.copytree(folder, copy / folder.name)
    without = copy / "0" / "model.safetensors"
    without.unlink()
    assert main([str(copy), "--out", str(out), "--cards"]) == 0
    records = read_records(copy)
    completed = [record for record in records if record.status == "completed"]
    linked = {
        values["href"]
        for tag, values in Page((out / "report.html").read_text()).tags
        if tag == "a" and values.get("href", "").startswith("cards/")
    }
    assert len(completed) < len(records)  # one failed
    assert len(linked) == len(completed) - 1  # one has no weights
    assert f"no card: {without}" in capsys.readouterr().out
    for target in linked:
        assert (out / target).is_file()
        assert verify([str(out / target), str(_weights_of(copy, target))]) == 0


def _weights_of(sweep, target):
    [found] = [
        folder / "model.safetensors"
        for folder in sweep.iterdir()
        if (record := json.loads((folder / "public.json").read_text()))["cell"]
        and f"{record['run']}-{record['cell'][:6]}" == target.split("/")[1]
    ]
    return found
