"""A run that learned several findings, used: loaded, predicted with, evaluated, exported, told."""

import csv
import json
import shutil

import numpy as np
import pytest
import torch
from rich.console import Console
from sklearn.metrics import roc_auc_score

import dpmi
from dpmi.attack import main as attack
from dpmi.attacking.result import read_attacks
from dpmi.base.errors import UserError
from dpmi.card import main as card
from dpmi.cards.checks import verify
from dpmi.evaluate import main as evaluate_command
from dpmi.predict import main as predict
from dpmi.reporting.full_report import write_report
from dpmi.run.records.reading import read_public_record, read_record
from dpmi.using.evaluating import evaluate
from dpmi.using.exporting import TOLERANCE, export

pytestmark = pytest.mark.usefixtures("one_thread")

FINDINGS = ("Lying", "Third")


@pytest.fixture
def run(trained):
    return trained("findings")


def truth(run):
    """(30, 2) of the test images; NaN where the table says nothing."""
    rows = [row for row in csv.DictReader(run.table.open()) if row["split"] == "test"]
    return np.array([[float(row[name] or "nan") for name in FINDINGS] for row in rows])


def test_the_record_has_each_findings_metrics_of_the_images_of_which_it_is_known(run):
    record, known = read_record(run.folder / "record.json"), truth(run)
    assert np.isnan(known).sum(0).tolist() == [0, 6]
    each = []
    for k, name in enumerate(FINDINGS):
        those = ~np.isnan(known[:, k])
        each.append(roc_auc_score(known[those, k], run.probabilities[those, k]))
        assert record.metrics[f"test/auroc/{name}"] == pytest.approx(each[-1], abs=1e-6)
    assert record.metrics["test/auroc"] == pytest.approx(np.mean(each), abs=1e-6)
    assert "test/accuracy" not in record.metrics
    assert [name.split("/")[2] for name in record.metrics if name.startswith("nonprivate/")] != []
    assert record.data["class_counts"]["test"] == {"Lying": 15, "Third": 8}
    assert set(record.curves) == {"nonprivate/loss", "epsilon"}
    assert 0.9 < record.guarantee.epsilon <= 1
    assert [one["name"] for one in record.mechanism["plan"]["statistics"]] == [
        "class_counts", "class_logits",
    ]  # fmt: skip
    public = read_public_record(run.folder / "public.json")
    assert (public.test_images, public.groups) == (30, [])  # a user's own
    assert public.config["data"]["task"] == "multilabel"


def test_a_loaded_model_gives_a_probability_for_each_finding_and_says_which_are_present(run):
    model = dpmi.load(run.folder)
    assert (model.classes, model.multilabel) == (FINDINGS, True)
    batch = torch.stack([model.preprocess(path) for path in run.paths])
    torch.testing.assert_close(model(batch), run.probabilities, rtol=0, atol=1e-6)
    assert (model(batch).sum(1) - 1).abs().max() > 0.01
    for found, row in zip(model.predict(run.paths), run.probabilities.tolist(), strict=True):
        present = [name for name, p in zip(FINDINGS, row, strict=True) if p >= 0.5]
        assert found.decision == ("|".join(present) or "none")


def test_predict_writes_a_column_for_each_finding(run, capsys):
    assert predict([str(run.folder), *map(str, run.paths[:3])]) == 0
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    columns = ["path", "probability_Lying", "probability_Third", "decision", "error"]
    assert list(rows[0]) == columns
    for row, expected in zip(rows, run.probabilities.tolist(), strict=False):
        found = [float(row[f"probability_{name}"]) for name in FINDINGS]
        assert found == pytest.approx(expected, abs=2e-6)


def measure(run, tmp_path, *words):
    return evaluate(run.folder, words, tmp_path / "found.json", None, Console(quiet=True))[0]


def test_on_the_runs_own_images_evaluate_gives_the_records_metrics_to_the_bit(run, tmp_path):
    found, record = measure(run, tmp_path), read_record(run.folder / "record.json")
    of_test = {name: v for name, v in record.metrics.items() if name.startswith("test/")}
    assert {f"test/{name}": value for name, value in found.metrics.items()} == of_test
    assert (found.groups, found.reliability) == (record.groups, [])
    assert [group.title for group in found.groups] == ["site=A", "site=B"]
    low, high = found.intervals["auroc"].low, found.intervals["auroc"].high
    assert low < found.metrics["auroc"] < high
    assert found.class_counts == {"Lying": 15, "Third": 8}


def test_others_images_are_measured_by_the_runs_findings_whatever_else_they_are_labelled_with(
    run, tmp_path
):
    lines = ["path,label"]
    for path, row in zip(run.paths, truth(run), strict=True):
        shown = [name for name, value in zip(FINDINGS, row, strict=True) if value == 1]
        lines.append(f"{path.name},{'|'.join([*shown, 'Scoliosis'])}")
    (tmp_path / "theirs.csv").write_text("\n".join(lines) + "\n")
    words = ("data=csv", f"data.root={run.images}", f"data.csv={tmp_path / 'theirs.csv'}")
    found, own = measure(run, tmp_path, *words), measure(run, tmp_path)
    assert (found.own, found.count, found.trained_on) == (False, 30, 0)
    assert found.metrics["auroc/Lying"] == pytest.approx(own.metrics["auroc/Lying"], abs=1e-6)
    assert found.class_counts == own.class_counts
    assert found.not_labelled == own.not_labelled == ()
    for data, message in (
        ("nih", "labels none of the findings that"),
        ("folder", "is of one class"),
    ):
        with pytest.raises(UserError, match=message):
            measure(run, tmp_path, f"data={data}", f"data.root={run.images}")


@pytest.mark.parametrize("header", ["path,Lying", "path,label"], ids=["columns", "names"])
def test_images_that_are_labelled_with_some_of_the_findings_are_measured_by_these(
    run, tmp_path, capsys, header
):
    values = ("", "Lying") if header == "path,label" else ("0", "1")
    rows = zip(run.paths, truth(run)[:, 0], strict=True)
    lines = [header, *(f"{path.name},{values[int(shown)]}" for path, shown in rows)]
    (tmp_path / "some.csv").write_text("\n".join(lines) + "\n")
    words = ["data=csv", f"data.root={run.images}", f"data.csv={tmp_path / 'some.csv'}"]
    assert evaluate_command([str(run.folder), *words, "-o", str(tmp_path / "some.json")]) == 0
    assert "have no labels of Third: these metrics are undefined" in capsys.readouterr().out
    found, own = json.loads((tmp_path / "some.json").read_text()), measure(run, tmp_path)
    assert found["not_labelled"] == ["Third"]
    for metric in ("auroc", "average_precision", "balanced_accuracy", "ece"):
        its = found["metrics"][f"{metric}/Lying"]
        assert its == pytest.approx(own.metrics[f"{metric}/Lying"], abs=1e-6)
        assert found["metrics"][metric] == its
        assert found["metrics"][f"{metric}/Third"] is None


def test_an_exported_graph_gives_the_same_probabilities(run, tmp_path):
    path, _ = export(run.folder, "torch", tmp_path / "out.pt2", None)
    extra = {"dpmi.json": ""}
    graph = torch.export.load(path, extra_files=extra).module()
    model = dpmi.load(run.folder)
    images = torch.stack([model.decode(path) for path in run.paths])
    torch.testing.assert_close(graph(images), run.probabilities, rtol=0, atol=TOLERANCE)
    assert json.loads(extra["dpmi.json"])["output"].startswith("probability of each finding")


def test_a_card_lists_each_finding_and_holds(run, tmp_path):
    assert card([str(run.folder), "--out", str(tmp_path)]) == 0
    page = next(tmp_path.rglob("card.md")).read_text()
    assert "Mean of the findings" in page
    assert "Lying, Third" in page
    assert "30 test images" in page
    found = verify(next(tmp_path.rglob("card.html")), run.folder / "model.safetensors")
    assert found.holds
    checked = {check.name: check.status for check in found.checks}
    assert checked["AUROC is the mean over findings"] == "passed"


def test_the_report_has_auroc_in_place_of_accuracy_and_a_table_of_findings(run, tmp_path):
    write_report([run.folder], tmp_path / "report")
    text = (tmp_path / "report" / "report.md").read_text()
    auroc = read_record(run.folder / "record.json").metrics["test/auroc/Lying"]
    assert f"| AUROC | Lying | {auroc:.3f} |" in text
    assert "**AUROC 0." in text
    assert "nan" not in text
    page = (tmp_path / "report" / "report.html").read_text()
    assert "Each finding by itself" in page
    assert 'id="reliability"' not in page


@pytest.mark.slow  # 16 whole networks
def test_membership_is_attacked_by_what_is_known_of_each_finding(run, tmp_path, capsys):
    copy = shutil.copytree(run.folder, tmp_path / "run")
    assert attack(["membership", str(copy), "--models", "16"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "log odds that a model gives each finding" in out
    assert read_attacks(copy).membership.models == 16
