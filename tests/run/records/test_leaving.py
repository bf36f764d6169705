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

from dpmi.config.schema import plain_values, schema_keys
from dpmi.models.classifier import ImageClassifier
from dpmi.privacy.guarantee import Guarantee
from dpmi.run.job import Run
from dpmi.run.records import leaving
from dpmi.run.records.public import publishable
from dpmi.run.records.reading import read_public_record, read_record

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
         "curves", "config_digest")  # fmt: skip
SEED = "noise_seed=80427316"
OURS = (
    *("logger=wandb", "data.image_size=32", "data.channels=1", "data.batch_size=13"),
    "privacy.unit=image",  # the clinics have other numbers of patients, which are public
)


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


@pytest.fixture(scope="module")
def job(composed, tiny, tmp_path_factory):
    """Run a job here: ``job("logger=wandb")`` gives record, public record and folder."""
    base = tmp_path_factory.mktemp("house")
    settings = [word for word in tiny if not word.startswith("data") and word != "logger=csv"]

    def run(*overrides):
        folder = tmp_path_factory.mktemp("zebra-clinic-sweep") / "job"
        folder.mkdir()
        config = composed(*settings, *overrides, f"cache_dir={base / 'cache'}")
        with pytest.MonkeyPatch.context() as patch:
            for name in ("WANDB_CACHE_DIR", "WANDB_DATA_DIR", "WANDB_ARTIFACT_DIR"):
                patch.setenv(name, str(base / "cache"))
            patch.setenv("HOME", str(base))
            patch.setattr("sys.argv", ["dpmi.train", "data.root=zebra-clinic", SEED])
            Run(config, folder, Console(width=1000, file=io.StringIO())).execute()
        record = read_record(folder / "record.json")
        return record, read_public_record(folder / "public.json"), folder

    return run


@pytest.fixture(scope="module")
def clinic(tmp_path_factory):
    """Overrides for its images, and for those that differ from them in facts no ε covers."""
    base = tmp_path_factory.mktemp("clinics")
    return draw(base / "one"), draw(base / "other", change=True)


@pytest.fixture(scope="module")
def offline(job, clinic):
    """A run a mechanism on the clinic's images, by somebody without credentials."""
    runs = {
        name: job(*clinic[0], *words, "logger.mode=offline") for name, words in MECHANISMS.items()
    }
    assert {name: run[0].reason for name, run in runs.items()} == dict.fromkeys(MECHANISMS)
    return runs


def offline_files(folder):
    """What `wandb sync` would push, but for the list of packages: not W&B's logs, which stay."""
    (run,) = folder.glob("wandb/offline-run-*")
    files = [p for p in run.rglob("*") if p.is_file() and "logs" not in p.relative_to(run).parts]
    return [p for p in files if p.name != "requirements.txt"]


def assert_reveals_nothing(content, record):
    text = content.decode("latin1")
    for word in (*PLACES, record.data["sha256"], record.config_digest, ".png"):
        assert word not in text, word
    text = text.replace("(nonprivate/...)", "")  # in what the guarantee assumes
    for fact in FACTS:
        assert fact not in text, fact


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_of_a_users_own_images_wandb_gets_what_is_covered_and_test_metrics(offline, mechanism):
    record, _, folder = offline[mechanism]
    assert {p.suffix for p in offline_files(folder)} == {".wandb"}
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
    assert summary["scope"].startswith("what the guarantee covers")
    assert summary["guarantee"]["epsilon"] == record.guarantee.epsilon
    assert {key for key in config if key[0] != "_"} == publishable(record).config.keys()
    for path in offline_files(folder):
        assert_reveals_nothing(path.read_bytes(), record)


def test_of_a_users_own_images_a_server_gets_no_more(place, clinic, tiny):
    """By the command: what stands on its line leaves neither."""
    settings = [word for word in tiny if not word.startswith("data") and word != "logger=csv"]
    with WandbServer() as server:
        account = {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": "0" * 40}
        words = (*clinic[0], *MECHANISMS["dpsgd"], *settings, "output_dir=zebra-clinic-sweep")
        done = place.train(*words, "logger.mode=online", SEED, **account)
    assert done.returncode == 0, done.stderr
    (path,) = place.cwd.glob("*/*/record.json")
    record = read_record(path)
    ((line,),) = server.lines.values()
    assert line["test/accuracy"] == record.metrics["test/accuracy"]
    sent = b"\n".join(server.bodies)
    assert b"test/accuracy" in sent
    assert SEED.split("=")[1].encode() not in sent
    # A query names fields of W&B's own: only its variables are of the run.
    assert_reveals_nothing(re.sub(rb'"query":"(\\.|[^"\\])*"', b"", sent), record)


def test_what_no_epsilon_covers_leaves_where_the_user_says_so(job, clinic):
    words = ("logger.mode=offline", "logger.nonprivate=true")
    record, public, folder = job(*clinic[0], *MECHANISMS["dpsgd"], *words)
    content = b"".join(path.read_bytes() for path in offline_files(folder))
    for word in ("nonprivate/loss", "nonprivate/step_time", "batch_size", "val/accuracy"):
        assert word.encode() in content
    for word in (*PLACES, record.data["sha256"], record.config_digest):
        assert word.encode() not in content
    assert public.executed["plan"]["expected_batch_size"] == 13
    assert public.executed["ledger"] == record.mechanism["ledger"]


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_a_public_record_reveals_nothing_of_a_users_own_images(offline, mechanism):
    record, public, folder = offline[mechanism]
    assert_reveals_nothing((folder / "public.json").read_bytes(), record)
    assert public.metrics["test_images/accuracy"] == record.metrics["test/accuracy"]
    assert all(name.startswith("test_images/") for name in public.metrics)
    assert public.executed == {}
    assert public.guarantee.epsilon == record.guarantee.epsilon
    covered = "the guarantee covers" if record.guarantee.epsilon else "no ε covers the training"
    assert public.public.startswith(covered)


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_a_public_record_is_the_same_whatever_the_training_images_are(
    job, clinic, offline, mechanism
):
    """But for statistics of the test images, and the keyed digests, which tell it is not."""
    one, public, _ = offline[mechanism]
    other, of_other, _ = job(*clinic[1], *MECHANISMS[mechanism], "logger=csv")
    assert other.status == "completed", other.reason
    assert one.data["class_counts"]["train"] != other.data["class_counts"]["train"]
    assert one.data["duplicates_within_split"] != other.data["duplicates_within_split"]
    assert public.data != of_other.data
    assert public.metrics.keys() == of_other.metrics.keys()
    same = {
        "data": None,
        "metrics": {},
        "reliability": [],
        "cell": None,
    }  # the cell: its config has another root
    assert public.model_copy(update=same) == of_other.model_copy(update=same)


def test_two_runs_of_a_house_on_the_same_images_are_matched(offline):
    publics = [public for _, public, _ in offline.values()]
    assert len({public.data for public in publics}) == 1
    assert len({public.cell for public in publics}) == len(publics)


def test_a_noise_seed_of_public_data_is_in_no_file_that_leaves(job, tiny):
    drawn = [word for word in tiny if word.startswith("data")]
    words = ("logger=wandb", "logger.mode=offline", SEED)
    record, _, folder = job(*drawn, *MECHANISMS["ldp"], *words)
    assert record.status == "completed", record.reason
    for path in (folder / "public.json", *offline_files(folder)):
        assert SEED.split("=")[1].encode() not in path.read_bytes(), path


def test_a_run_that_fails_keeps_its_reason_in_the_house(job, tmp_path):
    words = draw(tmp_path)
    (tmp_path / "zebra-clinic" / "tapir-file-3.png").write_bytes(b"no image")
    record, public, folder = job(*words, *MECHANISMS["none"], "logger=csv")
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
    assert leaving.public_audit({"lower_bound": 0.5, "new": 1}) == {"lower_bound": 0.5}
    open_to_all = config | {"logger": {"nonprivate": True}}
    assert leaving.public_config(open_to_all) == {"data": {"name": "csv"}, "seed": 3}


@pytest.mark.parametrize("name", ["chexpert", "mimic_cxr", "messidor2"])
def test_of_images_that_are_lent_no_more_leaves_than_of_a_users_own(composed, name):
    lent = plain_values(composed(f"data={name}"))
    assert not leaving.everything_may_leave(lent)
    assert leaving.public_groups(["a group"], lent) == []
    found = leaving.public_config(lent)["data"]
    assert found["name"] == name
    assert not {"root", "batch_size", "split_seed", "on_missing"} & found.keys()
    assert leaving.everything_may_leave(plain_values(composed("data=nih")))


def test_weights_of_a_users_own_are_recorded_without_their_place():
    config = {"data": {"name": "phantom_xray"}, "model": {"weights": "/zebra-clinic/w.pth"}}
    assert leaving.public_config(config)["model"] == {"weights": "a file"}


def test_each_field_of_a_guarantee_is_decided_upon():
    assert {field.name for field in fields(Guarantee)} - leaving.GUARANTEE == {"private"}


def test_a_public_record_is_plain_json_that_says_first_what_covers_it(job, tiny):
    drawn = [word for word in tiny if word.startswith("data")]
    _, public, folder = job(*drawn, *MECHANISMS["none"], "logger=csv")
    content = json.loads((folder / "public.json").read_text(), parse_constant=pytest.fail)
    assert list(content)[:3] == ["public", "schema_name", "version"]
    assert public.executed == {}
    assert public.config["data"]["batch_size"] == 10  # of public data
