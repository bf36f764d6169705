import csv
import io

import numpy as np
import pytest
import wandb
from PIL import Image
from rich.console import Console
from wandb_run import items, offline_records

from dpmi.config.sections import WandbConfig
from dpmi.run.job import Run
from dpmi.run.logs.door import Door
from dpmi.run.logs.samples import SAMPLES, log_samples
from dpmi.run.logs.tracker import TrackedRun
from dpmi.run.logs.wandb_tracker import WandbTracker, _offline
from dpmi.run.records.reading import read_record

CREDENTIALS = ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL", "NETRC")


@pytest.fixture(autouse=True)
def nobody(monkeypatch, tmp_path):
    """Somebody without credentials, at an empty home; what W&B sets is taken back."""
    for name in CREDENTIALS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("WANDB_CACHE_DIR", "WANDB_DATA_DIR", "WANDB_ARTIFACT_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def offline(shared_place, tiny):
    """A run of the command by somebody without credentials."""
    done = shared_place.run(*tiny, "logger=wandb", "mechanism=ldp", "beta=2")
    (record,) = shared_place.outputs.glob("*/record.json")
    return done, record.parent, shared_place


def test_without_credentials_wandb_is_offline_in_the_jobs_folder_and_asks_nothing(offline):
    done, folder, place = offline
    assert done.returncode == 0
    assert done.stderr == ""
    for word in ("wandb", "W&B", "login", "API key"):
        assert word not in done.stdout.replace(str(folder), "").replace("name = wandb", "")
    assert len(list(folder.glob("wandb/offline-run-*/run-*.wandb"))) == 1
    assert place.files(place.home) == set()
    assert place.files(place.tmp) == set()
    assert {path.name for path in place.cwd.iterdir()} == {"outputs"}


def test_the_wandb_run_has_the_name_the_group_the_config_the_metrics_and_the_guarantee(offline):
    _, folder, _ = offline
    run, config, history, summary = None, {}, set(), {}
    for record in offline_records(folder):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            run = record.run
            config |= items(record.run.config.update)
        elif kind == "config":
            config |= items(record.config.update)
        elif kind == "history":
            history |= items(record.history.item).keys()
        elif kind == "summary":
            summary |= items(record.summary.update)
    left = read_record(folder / "record.json")
    assert (run.display_name, run.run_group) == (left.run, folder.parent.name)
    assert run.project == "dpmi"
    assert (config["beta"], config["seed"]) == (2.0, 42)
    assert {
        "learning_rate",
        "nonprivate/step_time",
        "nonprivate/loss",
        "nonprivate/accuracy",
    } <= history
    assert {"val/accuracy", "test/accuracy", "nonprivate/train/accuracy"} <= history
    assert any(name.startswith("samples") for name in history)
    guarantee = summary["guarantee"]
    assert (guarantee["epsilon"], guarantee["unit"]) == (0.5, "pixel")
    assert guarantee["assumptions"] == list(left.guarantee.assumptions)
    of_pixel, of_image = left.risk
    assert summary["risk"]["pixel"]["accuracy"] == of_pixel.accuracy
    assert summary["risk"]["image"]["accuracy"] == of_image.accuracy == 1.0
    assert summary["test/accuracy"] == left.metrics["test/accuracy"]


def test_sample_images_before_and_after_noise_are_in_the_run(offline):
    _, folder, _ = offline
    images = [np.asarray(Image.open(path)) for path in folder.rglob("samples_*.png")]
    assert len(images) == 2 * SAMPLES
    assert {image.shape[:2] for image in images} == {(32, 32)}


def csv_rows(folder):
    return list(csv.DictReader((folder / "metrics.csv").open()))


def test_the_csv_log_is_written_beside_wandb(offline):
    rows = csv_rows(offline[1])
    assert sum(bool(row["nonprivate/loss"]) for row in rows) == 6  # a line a step
    for name in ("learning_rate", "nonprivate/step_time", "val/accuracy", "test/accuracy"):
        assert any(row[name] for row in rows)


@pytest.fixture
def job(composed, tiny, tmp_path):
    """Run a job here: ``job("logger=wandb")`` gives record, folder and what was printed."""

    def run(*overrides, name="job"):
        folder = tmp_path / "sweep" / name
        folder.mkdir(parents=True)
        console = Console(width=1000, file=io.StringIO(), record=True)
        config = composed(*tiny, *overrides, f"cache_dir={tmp_path / 'cache'}")
        return Run(config, folder, console).execute(), folder, console.export_text()

    return run


def test_the_csv_log_alone_is_whole_and_no_wandb_folder_is_made(job):
    record, folder, _ = job("logger=csv", "mechanism=dpsgd", "mechanism.accountant=rdp")
    assert record.status == "completed"
    stated = [float(row["epsilon"]) for row in csv_rows(folder) if row["epsilon"]]
    assert len(stated) == 6
    assert stated == sorted(stated)
    assert stated[-1] == pytest.approx(record.guarantee.epsilon, rel=1e-5)
    deltas = [float(row["delta"]) for row in csv_rows(folder) if row["delta"]]
    assert deltas == pytest.approx([1e-3] * 6)  # auto, of 60 images
    assert not (folder / "wandb").exists()


@pytest.mark.slow
def test_a_wandb_that_fails_in_mid_run_is_reported_once_and_training_goes_on(job, monkeypatch):
    log, calls = wandb.Run.log, []

    def breaks(run, *args, **kwargs):
        calls.append(args)
        if len(calls) > 2:
            raise ConnectionError("the wire was cut [/x]")
        return log(run, *args, **kwargs)

    monkeypatch.setattr(wandb.Run, "log", breaks)
    record, folder, printed = job("logger=wandb", "mechanism=none")
    assert record.status == "completed"
    assert len(calls) == 3  # not asked again
    assert printed.count("W&B stopped working") == 1
    assert "the wire was cut [/x]" in printed
    assert sum(bool(row["nonprivate/loss"]) for row in csv_rows(folder)) == 6


def test_a_wandb_that_does_not_start_is_reported_once_and_training_goes_on(job, monkeypatch):
    def refuses(*_, **__):
        raise wandb.errors.CommError("no answer")

    monkeypatch.setattr(wandb, "init", refuses)
    record, folder, printed = job("logger=wandb", "mechanism=none")
    assert record.status == "completed"
    assert printed.count("W&B stopped working (CommError: no answer)") == 1
    assert csv_rows(folder)


SETTINGS = WandbConfig(
    name="wandb", project="p", entity=None, mode="auto", sample_images="public", nonprivate=False
)


def test_a_run_after_one_that_failed_is_a_run_of_its_own(tmp_path):
    def start(name):
        (tmp_path / name).mkdir()
        run = TrackedRun(
            name=name,
            group="g",
            id=f"id-{name}",
            first_step=0,
            everything=True,
            hides_command=False,
            folder=tmp_path / name,
            cache_dir=tmp_path / "cache",
            output_dir=tmp_path,
        )
        console = Console(file=io.StringIO())
        start = lambda: WandbTracker(SETTINGS, run)  # noqa: E731
        return Door(WandbTracker, start, everything=True, console=console)

    first = start("first")
    lost, run = first.version, first._tracker.logger.experiment
    first.log_metrics({"epsilon": object()})  # W&B refuses it
    second = start("second")
    assert second.working
    assert (lost, second.version) == ("id-first", "id-second")
    second.finish(failed=False)
    run.finish()


@pytest.mark.parametrize(
    ("mode", "environment", "netrc", "offline"),
    [
        ("auto", {}, None, True),
        ("auto", {"WANDB_API_KEY": "x" * 40}, None, False),
        ("auto", {}, "api.wandb.ai", False),
        ("auto", {}, "elsewhere.org", True),
        ("auto", {"WANDB_BASE_URL": "https://wandb.clinic.org"}, "wandb.clinic.org", False),
        ("auto", {"WANDB_API_KEY": "x" * 40, "WANDB_MODE": "offline"}, None, True),
        ("auto", {"WANDB_MODE": "online"}, None, False),
        ("offline", {"WANDB_API_KEY": "x" * 40}, None, True),
        ("online", {}, None, False),
    ],
)
def test_wandb_goes_online_only_with_credentials_or_when_configured(
    monkeypatch, tmp_path, mode, environment, netrc, offline
):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    if netrc:
        (tmp_path / ".netrc").write_text(f"machine {netrc} login user password {'x' * 40}\n")
        (tmp_path / ".netrc").chmod(0o600)
    assert _offline(mode) is offline


class Album:
    """Keeps what it is given to show."""

    def __init__(self):
        self.images, self.captions = [], []

    def log_images(self, key, images, captions):
        assert key == "samples"
        self.images, self.captions = images, captions


@pytest.mark.parametrize(
    ("overrides", "logged"),
    [
        (["mechanism=ldp"], True),
        (["mechanism=ldp", "logger.sample_images=none"], False),
        (["mechanism=ldp", "data=chest_xray"], True),
        (["mechanism=ldp", "data=folder"], False),
        (["mechanism=ldp", "data=csv"], False),
        (["mechanism=ldp", "data=folder", "logger.sample_images=all"], True),
        (["mechanism=ldp", "data=csv", "logger.sample_images=none"], False),
        (["mechanism=dpsgd"], False),
        (["mechanism=none", "logger.sample_images=all"], False),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_users_own_images_are_logged_only_on_demand(composed, stripes, overrides, logged):
    clean, released, album = stripes(train=10), stripes(train=10), Album()
    released.splits["train"].pixels[:] = 0
    log_samples(album, composed("logger=wandb", *overrides), clean, released)
    assert len(album.images) == (2 * SAMPLES if logged else 0)
    for number, image in enumerate(album.images):
        assert image.shape == (32, 32, 1)
        before = number < SAMPLES
        expected = clean.splits["train"].pixels[number, 0] if before else 0
        np.testing.assert_array_equal(image[:, :, 0], np.broadcast_to(expected, (32, 32)))
        assert ("before" if before else "after, β = 1") in album.captions[number]
