"""No secret is printed or recorded, whatever goes wrong."""

import json
import logging
import os
import re
import subprocess

import pytest
import wandb
from rich.console import Console

from dpmi.base.errors import UserError
from dpmi.base.redaction import HIDDEN, redact_logs, redacted, secret_within
from dpmi.config.sections import WandbConfig
from dpmi.dashboard import _line
from dpmi.run.logs.door import Door
from dpmi.run.logs.tracker import TrackedRun
from dpmi.run.logs.wandb_tracker import WandbTracker

ENVIRONMENT = {
    "WANDB_API_KEY": "a1" * 20,
    "KAGGLE_KEY": "KAGGLE-KEY-0123456789",
    "KAGGLE_API_TOKEN": "KGAT_0123456789abcdef",
    "KAGGLE_USERNAME": "kaggle-user-of-the-environment",
    "AWS_SECRET_ACCESS_KEY": "AWS-SECRET-0123456789",
}
IN_FILES = ["NETRC-PASSWORD-0123456789", "KAGGLE-JSON-0123456789", "REMOTE-TOKEN-0123456789"]
SECRETS = [*ENVIRONMENT.values(), *IN_FILES]


@pytest.fixture
def owner(place):
    """Somebody with credentials everywhere, in a repository whose remote is named with a token."""
    (place.home / ".netrc").write_text(f"machine api.wandb.ai login user password {IN_FILES[0]}\n")
    (place.home / ".netrc").chmod(0o600)
    (place.home / ".kaggle").mkdir()
    kaggle = {"username": ENVIRONMENT["KAGGLE_USERNAME"], "key": IN_FILES[1]}
    (place.home / ".kaggle" / "kaggle.json").write_text(json.dumps(kaggle))
    for words in (
        ["init", "-q"],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "--allow-empty", "-mx"],
        ["remote", "add", "origin", f"https://{IN_FILES[2]}@example.com/x.git"],
    ):
        subprocess.run(["git", "-C", str(place.cwd), *words], check=True)
    return place


def left(place, done):
    """All that a command printed and wrote."""
    yield "stdout", done.stdout.encode()
    yield "stderr", done.stderr.encode()
    for folder in (place.outputs, place.cache, place.tmp):
        for path in folder.rglob("*"):
            if path.is_file():
                yield str(path), path.read_bytes()


def assert_no_secret(place, done):
    for where, content in left(place, done):
        for secret in SECRETS:
            assert secret.encode() not in content, (where, secret)


def test_a_run_with_wandb_leaves_no_secret_anywhere(owner, tiny):
    words = ("mechanism=ldp", "logger=wandb", "logger.mode=offline")
    done = owner.run(*tiny, *words, **ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    (run,) = owner.outputs.glob("*/wandb/offline-run-*/*.wandb")
    assert b"logger.mode=offline" in run.read_bytes()  # the command line is in there
    assert b"example.com" not in run.read_bytes()
    assert_no_secret(owner, done)


SABOTAGE = """
import os, wandb
from dpmi.models import network
def fail(*_, **__):
    raise RuntimeError("refused for {}".format(os.environ["KAGGLE_KEY"]))
def drop(*_, **__):
    raise wandb.errors.CommError("bad key " + os.environ["WANDB_API_KEY"] + " of http://u:p@host/x")
wandb.init = drop
{}
from dpmi.train import main
main()
"""


@pytest.mark.slow
def test_a_failure_whose_message_holds_secrets_is_reported_without(owner, tiny):
    words = (*tiny, "mechanism=none", "logger=wandb", "logger.mode=online")
    for broken in ("network.build_network = fail", ""):
        script = SABOTAGE.replace("{}\nfrom", broken + "\nfrom")
        done = owner.run(*words, command=("-c", script), **ENVIRONMENT)
        assert done.returncode == (1 if broken else 0), done.stderr
        assert "Traceback" not in done.stdout + done.stderr
        assert_no_secret(owner, done)
        if broken:
            (log,) = owner.outputs.glob("*/train.log")
            assert f"RuntimeError: refused for {HIDDEN}" in log.read_text()  # with the stack trace
            (record,) = owner.outputs.glob("*/record.json")
            assert json.loads(record.read_text())["reason"].endswith(f"refused for {HIDDEN}")
        else:
            assert f"W&B stopped working (CommError: bad key {HIDDEN}" in done.stdout
            assert "u:p@" not in done.stdout


@pytest.mark.parametrize(
    "words",
    [
        ["logger.project={}"],
        ["+{}=1"],
        ["mechanism={}"],
        ["beta={}"],
        ["data=folder", "data.root=https://user:{}@example.com/x"],
        ["-m", "beta=1,2", "output_dir={}"],
        ["{}"],
        ["--config-dir", "."],
    ],
    ids=str,
)
def test_a_secret_in_the_command_or_in_a_config_is_refused_and_not_printed(owner, words):
    (owner.cwd / "experiment").mkdir()
    experiment = "# @package _global_\nlogger:\n  project: {}\n".format(ENVIRONMENT["KAGGLE_KEY"])
    (owner.cwd / "experiment" / "mine.yaml").write_text(experiment)
    if words[0] == "--config-dir":
        words = [*words, "experiment=mine"]
    done = owner.train(*[w.format(ENVIRONMENT["WANDB_API_KEY"]) for w in words], **ENVIRONMENT)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"error: [^\n]+\n", done.stderr), done.stderr
    assert "take it out" in done.stderr
    assert not owner.outputs.exists()
    assert_no_secret(owner, done)


@pytest.fixture
def key(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", ENVIRONMENT["WANDB_API_KEY"])
    return ENVIRONMENT["WANDB_API_KEY"]


def test_every_message_for_the_user_is_redacted(key):
    assert str(UserError(f"no {key} here")) == f"no {HIDDEN} here"
    assert key not in _line(ValueError(f"bad {key}"))
    assert (
        redacted("see https://user:token@host/x and a@b") == f"see https://{HIDDEN}@host/x and a@b"
    )


def test_what_is_no_secret_stays_as_it_is(key, monkeypatch, tmp_path):
    monkeypatch.setenv("SOME_KEY", "short")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path))
    for text in ("short", str(tmp_path), "https://host/x", "data.root=a@b", '"a://b","c@d"'):
        assert redacted(text) == text
        assert secret_within(text) is None


def test_logs_are_redacted_with_their_stack_traces(key, tmp_path):
    handler = logging.FileHandler(tmp_path / "log")
    logging.getLogger().addHandler(handler)
    try:
        redact_logs()
        redact_logs()
        assert len(handler.filters) == 1
        logging.getLogger("x").warning("a %s", key)
        try:
            raise ValueError(key)
        except ValueError:
            logging.getLogger("x").exception("b")
    finally:
        logging.getLogger().removeHandler(handler)
        handler.close()
    text = (tmp_path / "log").read_text()
    assert key not in text
    assert f"a {HIDDEN}\nb\nTraceback" in text
    assert f"ValueError: {HIDDEN}" in text


def test_a_failure_of_wandb_is_reported_without_the_key(key, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise wandb.errors.AuthenticationError(f"API key {key} is not valid")

    monkeypatch.setattr(wandb, "init", fail)
    for name in ("WANDB_CACHE_DIR", "WANDB_DATA_DIR", "WANDB_ARTIFACT_DIR"):
        monkeypatch.setenv(name, str(tmp_path))
    console = Console(record=True, width=1000, file=open(os.devnull, "w"))  # noqa: SIM115
    settings = WandbConfig(
        name="wandb",
        project="x",
        entity=None,
        mode="online",
        sample_images="none",
        nonprivate=False,
    )
    run = TrackedRun(
        name="r", group="g", id="i", first_step=0, everything=True, hides_command=False,
        folder=tmp_path, cache_dir=tmp_path, output_dir=tmp_path,
    )  # fmt: skip
    logger = Door(
        WandbTracker, lambda: WandbTracker(settings, run), everything=True, console=console
    )
    printed = console.export_text()
    assert not logger.working
    assert f"API key {HIDDEN} is not valid" in printed
    assert key not in printed
