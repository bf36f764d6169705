"""Whole runs that learn several findings of an archive's images, as the command runs them."""

import math
import signal

import job_processes
import numpy as np
import pytest
from compared_runs import assert_same, differences, killed_after
from PIL import Image

from dpmi.run.records.reading import read_record

FINDINGS = ("Effusion", "Mass")
DPSGD = ("mechanism=dpsgd", "mechanism.accountant=rdp", "noise_seed=5")


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """NIH's set in small: 40 patients of two images, whose findings can be seen in them."""
    root, rng = tmp_path_factory.mktemp("nih"), np.random.default_rng(0)
    lines = ["Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Sex,"]
    lists = {"train_val_list.txt": [], "test_list.txt": []}
    (root / "images").mkdir()
    for n in range(80):
        name, shown = f"{n // 2:08}_{n % 2:03}.png", rng.random(2) < 0.5
        pixels = rng.integers(60, 140, (32, 32))
        pixels[20:] += 110 * shown[0]
        pixels[:8, :8] += 110 * shown[1]
        Image.fromarray(pixels.astype(np.uint8)).save(root / "images" / name)
        names = [finding for finding, its in zip(FINDINGS, shown, strict=True) if its]
        lines.append(
            f"{name},{'|'.join(names) or 'No Finding'},{n % 2},{n // 2},57,{'FM'[n % 4 // 2]},"
        )
        lists["test_list.txt" if n >= 56 else "train_val_list.txt"].append(name)
    (root / "Data_Entry_2017.csv").write_text("\n".join(lines))
    for name, names in lists.items():
        (root / name).write_text("\n".join(names))
    return root


@pytest.fixture(scope="module")
def words(archive, tiny, tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    settings = [word for word in tiny if not word.startswith("data")]
    own = (
        *("data=nih", f"data.root={archive}", "data.task=multilabel", "data.image_size=32"),
        "model.prior=midway",
        *(f"data.findings=[{','.join(FINDINGS)}]", "data.batch_size=8", f"cache_dir={cache}"),
    )
    return lambda *more: (*settings, *own, *more)


def finished(folder, words):
    assert job_processes.run(folder, *words) == 0, job_processes.printed(folder)
    return read_record(folder / "record.json")


@pytest.mark.parametrize(
    ("mechanism", "unit"),
    [
        (("mechanism=none",), None),
        (("mechanism=ldp",), "pixel of a patient"),
        (("mechanism=dpsgd", "mechanism.accountant=rdp", "data.multiplicity=2"), "patient"),
        (
            *(("mechanism=dpsgd", "mechanism.accountant=rdp", "privacy.unit=image"),),
            "image",
        ),
    ],
)
def test_findings_are_learned_under_each_mechanism_with_their_metrics_and_its_guarantee(
    mechanism, unit, words, tmp_path
):
    record = finished(tmp_path / "job", words(*mechanism, "data.groups=[sex]"))
    assert record.guarantee.unit == unit
    for prefix in ("test", "val", "nonprivate/train"):
        assert math.isfinite(record.metrics[f"{prefix}/auroc"])
        for name in ("auroc", "average_precision", "balanced_accuracy", "ece"):
            assert {f"{prefix}/{name}/{finding}" for finding in FINDINGS} <= set(record.metrics)
    assert not [name for name in record.metrics if "accuracy" in name and "balanced" not in name]
    assert [group.title for group in record.groups] == ["sex=F", "sex=M"]
    assert record.worst_groups["auroc"].group in ("sex=F", "sex=M")
    printed = job_processes.printed(tmp_path / "job")
    assert "val AUROC" in printed
    assert f"test AUROC {record.metrics['test/auroc']:.3f}, train AUROC" in " ".join(
        printed.split()
    )


def test_without_privacy_the_planted_findings_are_found(words, tmp_path):
    more = ("mechanism=none", "trainer.max_epochs=8", "model.learning_rate=0.05")
    record = finished(tmp_path / "job", words(*more))
    assert all(record.metrics[f"test/auroc/{finding}"] > 0.9 for finding in FINDINGS)
    assert record.curves["nonprivate/loss"][-1] < 0.5 * record.curves["nonprivate/loss"][0]


@pytest.mark.slow
def test_a_run_of_findings_killed_on_its_way_ends_to_the_bit_as_one_that_was_not(words, tmp_path):
    its = words(*DPSGD, "trainer.max_epochs=2", "trainer.checkpoint_seconds=0")
    finished(tmp_path / "whole", its)
    assert killed_after(tmp_path / "job", its, 3) == -signal.SIGKILL
    finished(tmp_path / "job", its)
    assert_same(tmp_path / "job", tmp_path / "whole")


@pytest.mark.slow
def test_two_processes_learn_the_findings_that_one_learns(words, tmp_path):
    its = words(*DPSGD, "model.learning_rate=0.0001", "privacy.unit=image")
    one = finished(tmp_path / "one", its)
    two = finished(tmp_path / "two", ("trainer=ddp", "trainer.devices=2", *its))
    assert max(differences(tmp_path / "one", tmp_path / "two").values()) < 1e-5
    assert one.metrics == pytest.approx(two.metrics, abs=1e-4, nan_ok=True)


def test_what_no_image_shows_is_refused_before_any_training(words, tmp_path):
    its = words("mechanism=none", "data.findings=[Effusion,Hernia]")
    assert job_processes.run(tmp_path / "job", *its) == 1
    printed = " ".join(job_processes.printed(tmp_path / "job").split())
    assert "no training image shows Hernia" in printed
    assert "data.findings=[Effusion]" in printed
