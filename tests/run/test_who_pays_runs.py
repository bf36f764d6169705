"""Metrics by group, and metrics that are not defined: whole runs on a table made here."""

import csv
import io
import json
import math

import numpy as np
import pytest
import pytorch_lightning as L
import torch
from PIL import Image
from rich.console import Console
from wandb_run import items, offline_records

from dpmi.models.by_group import by_group
from dpmi.report import main
from dpmi.run.given import Given
from dpmi.run.job import Run
from dpmi.run.parts import prepared_data
from dpmi.run.records.reading import read_public_record, read_record

CLASSES = ("calm", "striped", "spotted")
GROUPS = "data.groups=[ward,sex]"


def draw(root, classes=3):
    """90 images of 45 patients, 30 of them to test on, of whom none is spotted."""
    rng = np.random.default_rng(0)
    root.mkdir()
    rows = []
    for number in range(90):
        split = "test" if number >= 60 else "train"
        label = number % (2 if split == "test" else classes)
        pixels = rng.integers(0, 200, (32, 32), dtype=np.uint8) // 2
        pixels[:: 2 + label] = 255
        Image.fromarray(pixels).save(root / f"{number}.png")
        ward = ("zebra-ward", "quagga-ward", "")[number % 5 % 3]
        sex = "okapi-sex" if number >= 60 and label else "tapir-sex"
        rows.append([f"{number}.png", CLASSES[label], f"p{number // 2}", split, ward, sex])
    with (root / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["path", "label", "patient", "split", "ward", "sex"], *rows])
    return ("data=csv", f"data.root={root}", "data.csv=labels.csv", "data.channels=1")


class Sees(L.Callback):
    """What the network says of the test images, by itself."""

    def __init__(self, split):
        self.pixels, self.labels = (
            torch.from_numpy(np.array(x)) for x in (split.pixels, split.labels)
        )

    def on_test_end(self, trainer, pl_module):
        with torch.no_grad():
            self.probabilities = pl_module.net(self.pixels.float() / 255).softmax(1)


@pytest.fixture(scope="module")
def job(composed, tiny, tmp_path_factory):
    """Run a job: ``job("mechanism=none")`` gives its folder and what its network said."""
    base = tmp_path_factory.mktemp("house")
    words = draw(base / "images")
    settings = [word for word in tiny if not word.startswith("data") and word != "logger=csv"]

    def run(*overrides):
        folder = tmp_path_factory.mktemp("sweep") / "job"
        folder.mkdir()
        ours = ("data.image_size=32", "data.batch_size=20", GROUPS, f"cache_dir={base / 'cache'}")
        config = composed(*settings, *words, *ours, *overrides)
        data = prepared_data(config)
        sees = Sees(data.splits["test"])
        with pytest.MonkeyPatch.context() as patch:
            for name in ("WANDB_CACHE_DIR", "WANDB_DATA_DIR", "WANDB_ARTIFACT_DIR"):
                patch.setenv(name, str(base / "cache"))
            patch.setenv("HOME", str(base))
            patch.delenv("WANDB_API_KEY", raising=False)
            given = Given(data, watch=(sees,))
            Run(config, folder, Console(file=io.StringIO()), given=given).execute()
        return folder, sees, data

    return run


@pytest.fixture(scope="module")
def original(job):
    return job("mechanism=none", "logger=csv")


@pytest.fixture(scope="module")
def private(job):
    """The same by DP-SGD, by somebody who lets W&B have all that no ε covers."""
    words = ("mechanism.accountant=rdp", "logger=wandb", "logger.mode=offline")
    return job("mechanism=dpsgd", *words, "logger.nonprivate=true")


def test_a_record_has_of_each_group_what_the_networks_predictions_give(original, private):
    for folder, sees, data in (original, private):
        record = read_record(folder / "record.json")
        assert record.status == "completed", record.reason
        test = data.splits["test"]
        tested = sees.probabilities, sees.labels
        expected = by_group(tested, test.groups, test.patients, data.classes)
        assert [group.title for group in record.groups] == [
            "ward=quagga-ward", "ward=unknown", "ward=zebra-ward", "sex=okapi-sex", "sex=tapir-sex",
        ]  # fmt: skip
        for found, its in zip(record.groups, expected, strict=True):
            assert (found.images, found.patients, found.class_counts) == (
                its.images, its.patients, its.class_counts,
            )  # fmt: skip
            for name, measured in its.measures.items():
                for end in ("value", "low", "high"):
                    value = getattr(measured, end)
                    assert getattr(found.measures[name], end) == (
                        None if value is None else pytest.approx(value, abs=1e-5)
                    ), (found.title, name, end)
        right = (sees.probabilities.argmax(1) == sees.labels).float()
        ward = [row for row, name in enumerate(test.groups["ward"]) if name == "unknown"]
        (unknown,) = [group for group in record.groups if group.name == "unknown"]
        assert unknown.measures["accuracy"].value == pytest.approx(float(right[ward].mean()))
        assert record.worst_groups["accuracy"].value == min(
            group.measures["accuracy"].value for group in record.groups if group.images >= 10
        )


def test_what_the_test_images_cannot_tell_is_null_in_the_record_and_undefined_in_the_log(original):
    folder, sees, _ = original
    content = json.loads((folder / "record.json").read_text())
    assert content["metrics"]["test/recall/spotted"] is None
    assert math.isnan(read_record(folder / "record.json").metrics["test/recall/spotted"])
    right = sees.probabilities.argmax(1) == sees.labels
    recalls = [float(right[sees.labels == k].float().mean()) for k in (0, 2)]
    balanced = content["metrics"]["test/balanced_accuracy"]
    assert balanced == pytest.approx(sum(recalls) / 2)
    one_sex = next(group for group in content["groups"] if group["column"] == "sex")
    assert one_sex["measures"]["auroc"] == {"value": None, "low": None, "high": None}
    rows = list(csv.DictReader((folder / "metrics.csv").open()))
    assert {row["test/recall/spotted"] for row in rows} == {"", "undefined"}
    public = json.loads((folder / "public.json").read_text())
    assert public["metrics"]["test_images/recall/spotted"] is None


def test_groups_of_a_users_own_images_leave_nothing_of_theirs(original, private):
    """Though he lets all metrics leave: neither names nor figures."""
    for folder, _, _ in (original, private):
        public = read_public_record(folder / "public.json")
        assert (public.groups, public.worst_groups) == ([], {})
        leaves = [folder / "public.json", *folder.glob("wandb/offline-run-*/*.wandb")]
        for path in leaves:
            content = path.read_bytes()
            for word in (b"ward", b"-sex", b"by_group"):
                assert word not in content, (path, word)


def test_wandb_has_no_number_of_what_is_not_defined(private):
    history, summary = {}, {}
    for entry in offline_records(private[0]):
        kind = entry.WhichOneof("record_type")
        history |= items(entry.history.item) if kind == "history" else {}
        summary |= items(entry.summary.update) if kind == "summary" else {}
    assert "test/recall/calm" in history
    assert "test/recall/spotted" not in history
    assert summary["test/recall/spotted"] == "undefined"


def test_groups_of_public_images_leave(composed, tiny, tmp_path):
    config = composed(*tiny, "mechanism=none", "data.groups=chest", f"cache_dir={tmp_path}")
    folder = tmp_path / "job"
    folder.mkdir()
    Run(config, folder, Console(file=io.StringIO())).execute()
    record = read_record(folder / "record.json")
    assert [group.title for group in record.groups] == ["chest=large", "chest=small"]
    assert sum(group.images for group in record.groups) == 30
    public = read_public_record(folder / "public.json")
    assert (public.groups, public.worst_groups) == (record.groups, record.worst_groups)


def test_a_report_says_who_pays_and_which_class_is_not_there(original, private, tmp_path):
    out = tmp_path / "report"
    assert main([str(original[0]), str(private[0]), "-o", str(out)]) == 0
    records = [read_record(folder / "record.json") for folder in (original[0], private[0])]
    lines = list(csv.DictReader((out / "groups.csv").open()))
    assert len(lines) == 10
    for line in lines:
        title = f"{line['grouped_by']}={line['group']}"
        plain, own = (
            next(g for g in record.groups if g.title == title).measures["balanced_accuracy"].value
            for record in records
        )
        if line["mechanism"] == "dpsgd":
            assert float(line["loss_of_balanced_accuracy"]) == pytest.approx(plain - own, abs=1e-6)
            assert line["loss_interval_over"] == "patients"
        assert line["auroc"] == "undefined" if line["grouped_by"] == "sex" else float(line["auroc"])
    markdown = (out / "report.md").read_text()
    for text in (markdown, (out / "report.html").read_text()):
        assert "no test image is of class spotted, whose recall is undefined" in text
        assert "zebra-ward" in text
    public = tmp_path / "public"
    assert main([str(original[0]), "-o", str(public), "--public"]) == 0
    assert not (public / "groups.csv").exists()
    assert "no test image is of class spotted" in (public / "report.md").read_text()
