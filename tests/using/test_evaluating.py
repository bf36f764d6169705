"""``python -m dpmi.evaluate``: the run's own metrics again, and those of other images."""

import json
import shutil
import stat
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

import dpmi
from dpmi.base.errors import UserError
from dpmi.run.records.reading import read_record
from dpmi.using.evaluating import evaluate
from dpmi.using.evaluation import Evaluation

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def measure(trained, tmp_path):
    """Evaluate a run: ``measure("ldp", "data=folder", ...)``."""

    def call(name, *words):
        output = tmp_path / "found.json"
        quiet = Console(quiet=True)
        return evaluate(trained(name).folder, words, output, None, quiet)[0]

    return call


@pytest.fixture
def elsewhere(trained, tmp_path):
    """The test images as another hospital has them: a folder for each class, no splits."""
    run, root = trained("none"), tmp_path / "elsewhere"
    for path, label in zip(run.paths, run.labels, strict=True):
        (root / label).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, root / label)
    return root


@pytest.mark.parametrize("cell", ["none", "ldp", "dpsgd", "head", "ordinal"])
def test_on_the_runs_own_test_images_it_gives_the_records_metrics_to_the_bit(
    cell, trained, measure
):
    found, record = measure(cell), read_record(trained(cell).folder / "record.json")
    of_test = {name: v for name, v in record.metrics.items() if name.startswith("test/")}
    assert {f"test/{name}": value for name, value in found.metrics.items()} == of_test
    assert len(of_test) >= 6
    assert found.reliability == record.reliability
    assert found.groups == record.groups
    assert [group.title for group in found.groups] == ["site=A", "site=B"]
    assert found.worst_groups == record.worst_groups
    assert (found.own, found.count, found.patients, found.trained_on) == (True, 30, 15, 0)


def test_nothing_is_spent_and_nothing_but_a_private_file_is_left(trained):
    folder = trained("dpsgd").folder
    cache = read_record(folder / "record.json").config["cache_dir"]
    accounts = Path(cache) / "accounts"

    def contents(place):
        return {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}

    before, spent = contents(folder), contents(accounts)
    assert spent
    found, path = evaluate(folder, (), None, None, Console(quiet=True))
    assert path.parent == folder
    assert path.name.startswith("evaluation-csv-")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert Evaluation.model_validate_json(path.read_text()) == found
    assert contents(folder) == before | {path: path.read_bytes()}
    assert contents(accounts) == spent
    path.unlink()


@pytest.mark.parametrize("cell", ["ldp", "head"])
def test_of_a_folder_without_splits_all_images_are_measured(cell, trained, measure, elsewhere):
    run, found = trained(cell), measure(cell, "data=folder", f"data.root={elsewhere}")
    assert (found.own, found.count, found.trained_on, found.patients) == (False, 30, 0, None)
    decided = [prediction.decision for prediction in dpmi.load(run.folder).predict(run.paths)]
    right = np.mean([d == label for d, label in zip(decided, run.labels, strict=True)])
    assert found.metrics["accuracy"] == pytest.approx(right)
    assert found.class_counts == dict(sorted(Counter(run.labels).items()))
    record = read_record(run.folder / "record.json")
    for name in ("auroc", "balanced_accuracy", "ece", "f1"):
        assert found.metrics[name] == pytest.approx(record.metrics[f"test/{name}"], abs=1e-5)
        its = found.intervals.get(name)
        assert its is None or its.low <= found.metrics[name] <= its.high


def test_classes_are_matched_by_name_not_by_their_order(trained, tmp_path, measure):
    """A class that the run knows may be absent; what is there keeps its meaning."""
    run = trained("none")
    rows = ["path,label,patient,split,ward"]
    rows += [f"{p.name},{label},p,test,W" for p, label in zip(run.paths, run.labels, strict=True)]
    (tmp_path / "other.csv").write_text("\n".join(rows) + "\n")
    words = ("data=csv", f"data.root={run.images}", f"data.csv={tmp_path / 'other.csv'}")
    found = measure("none", *words, "data.groups=[ward]")
    record = read_record(run.folder / "record.json")
    for name in ("recall/lying", "recall/standing", "accuracy"):
        assert found.metrics[name] == record.metrics[f"test/{name}"]
    assert [(group.title, group.images) for group in found.groups] == [("ward=W", 30)]
    assert found.patients == 1


def test_training_images_among_those_measured_are_counted(trained, tmp_path, measure):
    run = trained("none")
    header, *rows = run.table.read_text().splitlines()
    rows = [row.replace(",train,", ",test,") for row in rows[50:]]
    (tmp_path / "all.csv").write_text("\n".join([header, *rows]) + "\n")
    words = ("data=csv", f"data.root={run.images}", f"data.csv={tmp_path / 'all.csv'}")
    assert measure("none", *words).trained_on == 10
    (cache := tmp_path / "cache").mkdir()
    found = measure("none", *words, f"cache_dir={cache}")
    assert found.trained_on == 10  # the account is where the run's cache is
    assert (cache / "images").is_dir()


def test_an_image_that_cannot_be_decoded_stops_it_or_is_left_out_as_in_training(measure, elsewhere):
    (elsewhere / "lying" / "broken.png").write_bytes(b"no image")
    words = ("data=folder", f"data.root={elsewhere}")
    with pytest.raises(UserError, match=r"lying/broken.png: the image cannot be decoded"):
        measure("none", *words)
    found = measure("none", *words, "data.on_corrupt=skip")
    assert (found.count, found.skipped) == (30, 1)


def test_classes_of_other_names_are_refused(measure, elsewhere):
    (elsewhere / "lying").rename(elsewhere / "asleep")
    with pytest.raises(UserError, match=r"asleep, standing\) are not those .*\(lying, standing\)"):
        measure("none", "data=folder", f"data.root={elsewhere}")


def test_images_that_have_changed_since_are_not_the_runs_own(trained, tmp_path):
    """Else other images would be measured under the run's name."""
    run = trained("none")
    for file in ("public.json", "model.safetensors", "record.json"):
        shutil.copy(run.folder / file, tmp_path)
    record = json.loads((tmp_path / "record.json").read_text())
    record["data"]["sha256"] = "0" * 64
    (tmp_path / "record.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match="its images have changed since it was run"):
        evaluate(tmp_path, (), None, None, Console(quiet=True))
    (tmp_path / "record.json").unlink()
    with pytest.raises(UserError, match=r"record.json says, and it is not here; give others by"):
        evaluate(tmp_path, (), None, None, Console(quiet=True))


@pytest.mark.parametrize(("words", "message"), [
    (["data.image_size=64"], "data.image_size=64: allowed are KEY=VALUE of the images"),
    (["data=folder", "mechanism=none"], "mechanism=none: allowed are KEY=VALUE of the images"),
    (["elsewhere"], "elsewhere: allowed are KEY=VALUE of the images"),
    (["data.root=elsewhere"], "data.root: of which images? Give data=..., too"),
    (["data.groups=[ward]"], "data.groups=ward: data=csv has no such groups; allowed are site"),
    (["data=fodler"], "data=fodler: no such option; allowed are"),
    (["data=folder", "data.root=absent"], "no images at data.root=absent"),
    (["data=phantom_fundus"], "has images in colour, and the run was trained on gray ones"),
    (["data=phantom_xray"], "its classes (NORMAL, PNEUMONIA) are not those of the classifier"),
])  # fmt: skip
def test_what_cannot_be_measured_is_refused_and_nothing_is_left(measure, tmp_path, words, message):
    with pytest.raises(UserError) as refused:
        measure("none", *words)
    assert message in str(refused.value)
    assert not (tmp_path / "found.json").exists()
