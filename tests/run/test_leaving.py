"""What leaves the house: whole runs on a user's own images, and all that W&B and the public get."""

import csv
import io
import json
import re
from dataclasses import fields

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from wandb_run import items, offline_records
from wandb_server import WandbServer

from dpmi.config import schema_keys
from dpmi.models.classifier import ImageClassifier
from dpmi.privacy.guarantee import Guarantee
from dpmi.run import leaving
from dpmi.run.job import Run
from dpmi.run.record import publishable, read_public_record, read_record

MECHANISMS = {
    "none": ("mechanism=none",),
    "ldp": ("mechanism=ldp", "beta=2"),
    "dpsgd": ("mechanism=dpsgd", "mechanism.accountant=rdp"),
}
# Places and people, as they stand in paths and tables.
PLACES = ("zebra-clinic", "quagga-list", "okapi-patient", "tapir-file")
# What is known of the training images, by name.
FACTS = ("nonprivate", "step_time", "batch_size", "sha256", "class_counts", "duplicates", "corrupt",
         "dropped", "val/", "physical", "sample_rate", "steps", "ledger", "timings", "memory",
         "curves", "noise_seed", "config_digest")  # fmt: skip
OURS = ("logger=wandb", "data.image_size=32", "data.channels=1", "data.batch_size=13")


def draw(folder, change=False):
    """70 images of a clinic in a table; or the same but for facts about the training images.

    Those are: pixels of one, the class of one, whose they are, and that two are the same.
    """
    rng = np.random.default_rng(0)
    root = folder / "zebra-clinic"
    root.mkdir(parents=True)
    rows = []
    for number in range(70):
        pixels = rng.integers(0, 200, (32, 32), dtype=np.uint8) // 2
        label, split = number % 2, ("train" if number < 50 else "val" if number < 58 else "test")
        pixels[:: 2 + label] = 255
        patient = f"okapi-patient-{number}"
        if change and split == "train":
            patient = f"okapi-patient-{number // 10}"
            label = 1 if number == 4 else label
            pixels = np.full_like(pixels, 7) if number in (8, 10) else pixels
        Image.fromarray(pixels).save(root / f"tapir-file-{number}.png")
        rows.append([f"tapir-file-{number}.png", ("calm", "striped")[label], patient, split])
    with (root / "quagga-list.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["path", "label", "patient", "split"], *rows])
    return ("data=csv", f"data.root={root}", "data.csv=quagga-list.csv", *OURS)


@pytest.fixture
def job(composed, tiny, tmp_path, monkeypatch):
    """Run a job here: ``job("logger=wandb")`` gives record, public record and folder."""
    for name in ("WANDB_API_KEY", "WANDB_MODE", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("sys.argv", ["dpmi.train", "data.root=zebra-clinic", "noise_seed=80427316"])
    for name in ("WANDB_CACHE_DIR", "WANDB_DATA_DIR", "WANDB_ARTIFACT_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "cache"))
    settings = [word for word in tiny if not word.startswith("data") and word != "logger=csv"]

    def run(*overrides, name="sweep"):
        folder = tmp_path / name / "job"
        folder.mkdir(parents=True)
        config = composed(*settings, *overrides, f"cache_dir={tmp_path / 'cache'}")
        Run(config, folder, Console(width=1000, file=io.StringIO())).execute()
        record = read_record(folder / "record.json")
        return record, read_public_record(folder / "public.json"), folder

    return run


def offline_files(folder):
    """What `wandb sync` would push: not W&B's own logs, which stay."""
    (run,) = folder.glob("wandb/offline-run-*")
    return [p for p in run.rglob("*") if p.is_file() and "logs" not in p.relative_to(run).parts]


def assert_tells_nothing(content, record):
    text = content.decode("latin1")
    for word in (*PLACES, record.data["sha256"], record.config_digest, "13.0", ".png"):
        assert word not in text, word
    for fact in FACTS:
        assert fact not in text, fact


@pytest.fixture(params=MECHANISMS)
def mechanism(request):
    return MECHANISMS[request.param]


def test_of_a_users_own_images_wandb_gets_what_is_covered_and_test_metrics(
    job, mechanism, tmp_path
):
    record, _, folder = job(*draw(tmp_path), *mechanism, name="zebra-clinic-sweep")
    assert record.status == "completed", record.reason
    assert {p.suffix for p in offline_files(folder)} == {".wandb", ".txt"}  # of packages
    rows, summary, config = [], {}, {}
    for entry in offline_records(folder):
        kind = entry.WhichOneof("record_type")
        assert kind != "stats"
        if kind == "history":
            rows.append(items(entry.history.item))
        if kind == "summary":
            summary |= items(entry.summary.update)
        if kind == "run":
            config |= items(entry.run.config.update)
        if kind == "config":
            config |= items(entry.config.update)
    (row,) = rows  # the number of rows and their times would tell of batches
    of_test = {name for name in record.metrics if name.startswith("test/")}
    spent = {"epsilon", "delta"} if record.guarantee.delta else set()
    assert {name for name in row if name[0] != "_"} == of_test | spent
    assert summary["told"].startswith("what the guarantee covers")
    assert summary["guarantee"]["epsilon"] == record.guarantee.epsilon
    assert {key for key in config if key[0] != "_"} == publishable(record).config.keys()
    for path in offline_files(folder):
        assert_tells_nothing(path.read_bytes(), record)


def test_of_a_users_own_images_a_server_gets_no_more(job, tmp_path, monkeypatch):
    with WandbServer() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
        words = (*draw(tmp_path), *MECHANISMS["dpsgd"], "logger.mode=online")
        record, _, _ = job(*words, name="zebra-clinic-sweep")
    assert record.status == "completed", record.reason
    ((line,),) = server.lines.values()
    assert line["test/accuracy"] == record.metrics["test/accuracy"]
    sent = b"\n".join(server.bodies)
    assert b"test/accuracy" in sent
    # The query itself names fields of W&B's own: only what is not part of one is of the run.
    assert_tells_nothing(re.sub(rb'"query":"(\\.|[^"\\])*"', b"", sent), record)


def test_what_no_epsilon_covers_leaves_where_the_user_says_so(job, tmp_path):
    record, public, folder = job(
        *draw(tmp_path), *MECHANISMS["dpsgd"], "logger.nonprivate=true", name="zebra-clinic-sweep"
    )
    content = b"".join(path.read_bytes() for path in offline_files(folder))
    for word in ("nonprivate/loss", "nonprivate/step_time", "batch_size", "val/accuracy"):
        assert word.encode() in content
    for word in (*PLACES, record.data["sha256"], record.config_digest):
        assert word.encode() not in content
    assert public.executed["plan"]["expected_batch_size"] == 13
    assert public.executed["ledger"] == record.mechanism["ledger"]


def test_a_public_record_tells_nothing_of_a_users_own_images(job, mechanism, tmp_path):
    record, public, folder = job(*draw(tmp_path), *mechanism)
    assert record.status == "completed", record.reason
    assert_tells_nothing((folder / "public.json").read_bytes(), record)
    assert public.metrics["test_images/accuracy"] == record.metrics["test/accuracy"]
    assert all(name.startswith("test_images/") for name in public.metrics)
    assert public.executed == {}
    assert public.guarantee.epsilon == record.guarantee.epsilon
    covered = "the guarantee covers" if record.guarantee.epsilon else "no ε covers the training"
    assert public.public.startswith(covered)


def test_a_public_record_is_the_same_whatever_the_training_images_are(job, mechanism, tmp_path):
    """But for statistics of the test images, and the keyed fingerprint, which tells it is not."""
    told = []
    for name, change in (("one", False), ("other", True)):
        record, public, _ = job(*draw(tmp_path / name, change), *mechanism, name=name)
        assert record.status == "completed", record.reason
        told.append((record, public))
    (one, public), (other, of_other) = told
    assert one.data["class_counts"]["train"] != other.data["class_counts"]["train"]
    assert one.data["duplicates_within_split"] != other.data["duplicates_within_split"]
    assert public.data != of_other.data
    assert public.metrics.keys() == of_other.metrics.keys()
    same = {"data": None, "metrics": {}, "cell": None}  # the cell: its config has another root
    assert public.model_copy(update=same) == of_other.model_copy(update=same)


def test_two_runs_of_a_house_on_the_same_images_are_matched(job, tmp_path):
    words = draw(tmp_path)
    _, one, _ = job(*words, *MECHANISMS["none"], name="one")
    _, other, _ = job(*words, *MECHANISMS["ldp"], name="other")
    assert one.data == other.data
    assert one.cell != other.cell


def test_a_noise_seed_leaves_with_no_public_file(job, tmp_path):
    words = (*draw(tmp_path), *MECHANISMS["ldp"], "noise_seed=80427316")
    record, _, folder = job(*words)
    assert record.status == "completed", record.reason
    for path in (folder / "public.json", folder / "record.json", *offline_files(folder)):
        assert b"80427316" not in path.read_bytes(), path


def test_a_run_that_fails_keeps_its_reason_in_the_house(job, tmp_path):
    words = draw(tmp_path)
    (tmp_path / "zebra-clinic" / "tapir-file-3.png").write_bytes(b"no image")
    record, public, folder = job(*words, *MECHANISMS["none"])
    assert record.status == public.status == "failed"
    assert "tapir-file-3" in record.reason
    assert b"tapir-file-3" not in (folder / "public.json").read_bytes()


@pytest.mark.parametrize("of", ["a logger", "the screen", "the loggers themselves"])
def test_a_loss_of_private_images_that_is_not_named_so_is_refused(job, tiny, monkeypatch, of):
    step = ImageClassifier.training_step

    def plants(self, batch, batch_idx):
        if of == "the loggers themselves":
            self.logger.log_metrics({"train_loss": 0.5}, batch_idx)
        else:
            self.log("train_loss", 0.5, logger=of == "a logger", prog_bar=True, batch_size=1)
        return step(self, batch, batch_idx)

    monkeypatch.setattr(ImageClassifier, "training_step", plants)
    drawn = [word for word in tiny if word.startswith("data")]
    record, _, folder = job(*drawn, *MECHANISMS["dpsgd"], "logger=csv")
    assert record.status == "failed"
    assert record.reason.startswith("train_loss: logged under a name that does not say what covers")
    assert "nonprivate/train_loss" in record.reason
    metrics = folder / "metrics.csv"
    assert not metrics.exists() or "train_loss" not in metrics.read_text().replace("/train_", "")


def test_every_key_that_may_leave_is_one_of_the_config():
    assert schema_keys() >= leaving.CONFIG | leaving.CONFIG_OF_PUBLIC_DATA


def test_no_place_and_no_batch_size_is_on_the_list():
    for key in leaving.CONFIG | leaving.CONFIG_OF_PUBLIC_DATA:
        assert not re.search(r"root|csv|dir|noise_seed|logger", key)
    assert not re.search(r"batch_size|fraction|images|split", " ".join(leaving.CONFIG))


def test_a_value_that_nobody_has_listed_stays():
    named = {
        "test/accuracy": 1,
        "epsilon": 2,
        "nonprivate/loss": 3,
        "gradient_norm": 4,
        "val/f1": 5,
    }
    assert leaving.leaving_metrics(named) == {"test/accuracy": 1, "epsilon": 2}
    config = {
        "data": {"name": "csv", "new": 1},
        "new": 2,
        "seed": 3,
        "logger": {"nonprivate": False},
    }
    assert leaving.public_config(config) == {"data": {"name": "csv"}, "seed": 3}
    open_to_all = config | {"logger": {"nonprivate": True}}
    assert leaving.public_config(open_to_all) == {"data": {"name": "csv"}, "seed": 3}


def test_weights_of_a_users_own_are_told_without_their_place():
    config = {"data": {"name": "phantom_xray"}, "model": {"weights": "/zebra-clinic/w.pth"}}
    assert leaving.public_config(config)["model"] == {"weights": "a file"}


def test_each_field_of_a_guarantee_is_decided_upon():
    private = {"private"}
    assert {field.name for field in fields(Guarantee)} - leaving.GUARANTEE <= private


def test_a_public_record_is_plain_json_that_says_first_what_covers_it(job, tiny):
    drawn = [word for word in tiny if word.startswith("data")]
    _, public, folder = job(*drawn, *MECHANISMS["none"], "logger=csv")
    content = json.loads((folder / "public.json").read_text(), parse_constant=pytest.fail)
    assert list(content)[:3] == ["public", "schema_name", "version"]
    assert public.executed == {}
    assert public.config["data"]["batch_size"] == 10  # of public data
