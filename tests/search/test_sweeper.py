import csv
import json
import re
import shlex
import signal
import time
from contextlib import contextmanager

import pytest
import torch
from hydra._internal.callbacks import Callbacks
from hydra.core.global_hydra import GlobalHydra
from hydra.initialize import initialize_config_dir
from hydra.types import HydraContext, RunMode
from omegaconf import OmegaConf
from torchmetrics.functional.classification import multiclass_auroc

from dpmi.base.errors import UserError
from dpmi.config.composition import register_resolvers
from dpmi.config.folder import config_dir
from dpmi.models.network import build_network
from dpmi.models.weights import read_state_dict
from dpmi.run.parts import prepared_data
from dpmi.run.records.reading import read_record
from dpmi.search.sweeper import OptunaSearch
from dpmi.train import job

optuna = pytest.importorskip("optuna", reason="the optuna extra is not installed")

from dpmi.search.study import STUDY_FILE  # noqa: E402

SEARCH = ("-m", "hydra/sweeper=optuna")
RATE = "model.learning_rate=tag(log,interval(1e-3,1))"
SPACE = (RATE, "model.momentum=0,0.9", "mechanism=none")


def study_in(folder):
    """The study that a search left, read and not changed."""
    storage = optuna.storages.JournalStorage(
        optuna.storages.journal.JournalFileBackend(str(folder / STUDY_FILE))
    )
    return optuna.load_study(study_name="search", storage=storage)


@pytest.fixture(scope="module")
def search(shared_place, tiny):
    """Three trials, by the command."""
    words = (*SEARCH, *tiny, *SPACE, "hydra.sweeper.n_trials=3")
    done = shared_place.train(*words)
    assert done.returncode == 0, done.stdout + done.stderr
    (folder,) = shared_place.outputs.iterdir()
    return done, folder, shared_place, words


def test_a_search_shows_its_trials_and_a_command_that_is_the_best(search, composed):
    done, folder, _, _ = search
    trials = study_in(folder).trials
    rows = list(csv.DictReader((folder / "search.csv").read_text().splitlines()))
    best = OmegaConf.load(folder / "best.yaml")
    assert len(trials) == len(rows) == best.of_trials == 3
    assert best.value == max(trial.value for trial in trials) == float(rows[0]["val/auroc"])
    python, _, _, *overrides = shlex.split(best.command)
    assert python == "python"
    assert overrides == list(best.overrides)
    record = read_record(folder / best.folder / "record.json")
    again = composed(*overrides)
    assert again.model.learning_rate == record.config["model"]["learning_rate"]
    assert again.model.momentum == record.config["model"]["momentum"]
    assert best.command in done.stdout
    assert "3 best of 3 trials" in done.stdout
    assert "no ε" in done.stdout
    for row in rows:
        trial = trials[int(row["trial"])]
        assert float(row["model.learning_rate"]) == trial.params["model.learning_rate"]


def test_what_is_searched_for_is_of_validation_images_and_of_the_weights_that_are_kept(
    search, composed
):
    """Computed from the files: not of the last step's weights, and of no other images."""
    _, folder, place, _ = search
    for trial in study_in(folder).trials:
        run = folder / trial.user_attrs["folder"]
        record = read_record(run / "record.json")
        config = composed(*OmegaConf.load(folder / "best.yaml").overrides)
        config = config.model_validate(record.config | {"cache_dir": str(place.cache)})
        val = prepared_data(config).splits["val"]
        net = build_network(
            config.model.name, 2, "group", read_state_dict(run / "model.safetensors")
        ).eval()
        with torch.no_grad():
            logits = net(torch.from_numpy(val.pixels.copy()).float() / 255)
        expected = multiclass_auroc(logits.softmax(1), torch.from_numpy(val.labels), 2)
        assert trial.value == record.metrics["val/auroc"] == pytest.approx(float(expected))


def test_the_same_command_runs_nothing_again_and_more_trials_go_on(search):
    _, folder, place, words = search
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*/record.json")}
    content = (folder / STUDY_FILE).read_bytes()
    done = place.train(*words)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Launching" not in done.stdout
    assert (folder / STUDY_FILE).read_bytes() == content
    assert {path: path.stat().st_mtime_ns for path in before} == before


@contextmanager
def sweeper_for(*words):
    """A sweeper as Hydra makes it for a command, in this process, and what sets it up."""
    with initialize_config_dir(config_dir(), version_base="1.3"):
        register_resolvers()
        loader = GlobalHydra.instance().config_loader()
        config = loader.load_configuration(
            "config", ["hydra/sweeper=optuna", *words], run_mode=RunMode.MULTIRUN
        )
        keys = {key: value for key, value in config.hydra.sweeper.items() if key != "_target_"}
        sweeper, context = OptunaSearch(**keys), HydraContext(loader, Callbacks(config))
        yield (
            sweeper,
            lambda: sweeper.setup(hydra_context=context, task_function=job, config=config),
        )


REFUSED = {
    "a folder": ["data=folder"],
    "a CSV file, of which more is missing": ["data=csv"],
    "the second of two": ["data=phantom_xray,folder"],
    "by an experiment": ["experiment=figure4_pneumonia"],
    "public, but of patients": ["data=medmnist"],
    "by its name": ["data.name=folder"],
    "by the second name": ["data.name=phantom_xray,folder"],
}


@pytest.mark.parametrize("how", REFUSED)
def test_a_search_on_images_that_are_not_drawn_is_refused(how):
    with sweeper_for(RATE, *REFUSED[how]) as (_, set_up), pytest.raises(UserError) as refused:
        set_up()
    assert re.match(r"data=(?!phantom)\w+: ", str(refused.value))
    for word in ("privacy", "data=phantom_xray or data=phantom_fundus"):
        assert word in str(refused.value)


@pytest.mark.parametrize(
    "words",
    [
        ["experiment=mine,frontier_aptos", "--config-dir=mine"],
        ["data=phantom_xray,folder", "~hydra.callbacks.sweep"],
        ["data=folder", "hydra/launcher=ray"],
    ],
    ids=["by the second experiment", "without a sweep's other checks", "with a launcher to start"],
)
def test_the_command_refuses_images_that_are_not_drawn_and_leaves_nothing(place, words):
    (place.cwd / "mine" / "experiment").mkdir(parents=True)
    (place.cwd / "mine" / "experiment" / "mine.yaml").write_text("# @package _global_\nbeta: 2\n")
    before = place.files(place.cwd)
    done = place.train(*SEARCH, RATE, *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"error: data=(aptos|folder): [^\n]+\n", done.stderr), done.stderr
    assert place.files(place.cwd) == before
    assert place.files(place.home) == set()
    assert not place.cache.exists()


def test_what_is_launched_is_held_to_the_same_whatever_was_checked_before(tiny):
    with sweeper_for(*tiny, RATE, "mechanism=none") as (sweeper, set_up):
        set_up()
        assert len(sweeper._jobs([["mechanism=none"]])) == 1
        with pytest.raises(UserError, match="data=folder"):
            sweeper._jobs([["mechanism=none"], ["data=folder"]])


MISTAKES = {
    "model.learning_rate=interval(1,0)": "no interval of numbers",
    "model.momentum=interval(0.5,1.5)": "model.momentum=1.5: input should be less than 1",
    "seed=1,2": "seed=1,2: a search compares runs of one seed",
    "data=phantom_xray,phantom_fundus": "data.name=phantom_xray,phantom_fundus",
    "data.val_images=0": "data.val_images=0",
    "data.val_images=range(0,20)": "data.val_images=",
    "noise_seed=123456": "noise_seed: is for tests and teaching",
    "hydra.sweeper.metric=test/auroc": "test images choose nothing",
    "hydra.sweeper.n_trials=0": "hydra.sweeper.n_trials=0: allowed is a whole number of at least 1",
    "hydra.sweeper.seed=-1": "at least 0",
    "hydra.sweeper.n_jobs=two": "hydra.sweeper.n_jobs=two",
}


@pytest.mark.parametrize("word", MISTAKES)
def test_a_mistake_is_reported_before_a_launcher_is_made(word):
    with sweeper_for("beta=interval(1,4)", word) as (sweeper, set_up):
        with pytest.raises(UserError) as refused:
            set_up()
        assert MISTAKES[word] in str(refused.value)
        assert "123456" not in str(refused.value)
        assert not hasattr(sweeper, "launcher")


def test_a_mistake_is_one_line_and_leaves_nothing(place):
    for word, message in (
        ("model.learning_rate=interval(1)", "missing a required argument"),
        ("hydra.sweeper.direction=minimize", "no such key of this sweeper"),
    ):
        done = place.train(*SEARCH, "beta=interval(1,4)", word)
        assert (done.returncode, done.stdout) == (2, "")
        assert re.fullmatch(r"error: [^\n]+\n", done.stderr), done.stderr
        assert message in done.stderr
        assert place.files(place.cwd) == set()


def test_a_search_without_a_sweep_is_refused(place):
    done = place.train("hydra/sweeper=optuna")
    assert done.returncode == 2
    assert "add -m" in done.stderr
    assert place.files(place.cwd) == set()


def test_without_optuna_the_extra_is_named(place):
    (place.cwd / "optuna.py").write_text("raise ImportError('not here')\n")
    done = place.run(*SEARCH, RATE)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"error: [^\n]+ pip install 'dpmi\[optuna\]'\n", done.stderr)
    assert place.files(place.cwd) == {"optuna.py"}


@pytest.mark.slow
def test_a_search_that_was_killed_in_a_run_ends_as_one_that_was_not(search, place, tiny):
    _, whole, _, words = search
    process = place.start(*words)
    deadline = time.monotonic() + 180
    while len(list(place.outputs.glob("*/*/record.json"))) < 1 or not in_a_run(place):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    (folder,) = place.outputs.iterdir()
    assert folder.name == whole.name
    states = [trial.state.name for trial in study_in(folder).trials]
    assert states == ["COMPLETE", "RUNNING"]
    (first,) = folder.glob("*/record.json")
    written = first.stat().st_mtime_ns
    done = place.train(*words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert first.stat().st_mtime_ns == written  # not run again
    one, other = (study_in(path).trials for path in (whole, folder))
    assert [(t.params, t.value) for t in one] == [(t.params, t.value) for t in other]


def in_a_run(place):
    """Whether the second run has begun and not ended."""
    begun = list(place.outputs.glob("*/*/resume.json"))
    return any(not (path.parent / "record.json").exists() for path in begun)


@pytest.mark.slow
def test_a_failed_trial_is_reported_and_tried_again_by_the_same_command(place, tiny):
    """One of two rates lets the weights become infinite: it never has a value."""
    words = (*SEARCH, *tiny, "mechanism=none", "model.learning_rate=0.01,1e6")
    words += ("hydra.sweeper.n_trials=4", "hydra.sweeper.n_jobs=2", "hydra/launcher=local_pool")
    words += ("hydra.launcher.jobs=2",)
    for _ in range(2):
        done = place.train(*words)
        assert done.returncode == 1, done.stdout + done.stderr
        assert "Traceback" not in done.stdout + done.stderr
        assert "model.learning_rate" in done.stdout
        (folder,) = place.outputs.iterdir()
        trials = study_in(folder).trials
        assert {(t.params["model.learning_rate"], t.state.name) for t in trials} == {
            ("0.01", "COMPLETE"), ("1000000.0", "RUNNING"),
        }  # fmt: skip
        assert len(trials) == 4
        assert len(list(folder.glob("*/record.json"))) == 2  # equal trials are one run
        rows = list(csv.DictReader((folder / "search.csv").read_text().splitlines()))
        assert {row["status"] for row in rows} == {"completed", "failed"}
        assert OmegaConf.load(folder / "best.yaml").overrides[-1] == "model.learning_rate=0.01"


@pytest.mark.slow
def test_a_second_process_leaves_a_search_alone(search):
    _, folder, place, words = search
    from filelock import FileLock

    with FileLock(folder / ".lock"):
        done = place.train(*words)
    assert done.returncode == 75
    assert "another process is running this search" in done.stderr


def test_each_trial_is_written_down_before_its_run_begins(search):
    """The lines of the file, in order: what is chosen, then its value."""
    lines = [json.loads(line) for line in (search[1] / STUDY_FILE).read_text().splitlines()]
    of_trials = [line["op_code"] for line in lines if "trial_id" in line or "params" in line]
    assert of_trials == [4, 6] * 3
