"""Jobs in processes of their own, which start in a tenth of a second and can be killed.

They are forked from one that has loaded the libraries, which takes a new interpreter seconds.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import runpy
import signal
import sys
import time
from collections.abc import Mapping
from functools import wraps
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir

from dpmi.config.folder import config_dir
from dpmi.config.schema import load_config

PAUSE = 0.2  # seconds, of jobs that a test interferes with


def pause_between_steps() -> None:
    """Let who waits for a step, to kill the job there, find it there, however busy the machine."""
    from dpmi.models.classifier import ImageClassifier

    step = ImageClassifier.training_step

    @wraps(step)
    def after_a_pause(*given: Any) -> Any:
        time.sleep(PAUSE)
        return step(*given)

    ImageClassifier.training_step = after_a_pause  # type: ignore[method-assign]
    ImageClassifier.on_test_start = lambda self: time.sleep(PAUSE)


def context() -> Any:
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["tests.loaded_libraries"])
    return server


def job(
    folder: Path, overrides: tuple[str, ...], output: Path, environment: dict[str, str]
) -> None:
    """What a process does: one run, its exit status that of the command."""
    import torch

    from dpmi.run.durability.stopping import StoppedByRequest
    from dpmi.run.logs import wandb_tracker
    from dpmi.run.processes import ddp
    from dpmi.run.screen.terminal import run_job

    context()  # of the processes of this one's own
    ddp.START = "forkserver"  # there is no GPU in use, and a new interpreter takes seconds

    torch.set_num_threads(1)
    os.environ.update(environment)
    if "PAUSED" in environment:
        pause_between_steps()
    if patience := environment.get("PATIENCE"):
        wandb_tracker.START_SECONDS = wandb_tracker.FINISH_SECONDS = float(patience)
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    with initialize_config_dir(config_dir(), version_base="1.3"):
        config = load_config(compose("config", overrides=list(overrides)))
    try:
        status = run_job(config, folder)
    except StoppedByRequest:
        sys.exit(75)
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit({"completed": 0, "failed": 1, "busy": 75}[status])


def start(folder: Path, *overrides: str, environment: dict[str, str] | None = None) -> Any:
    """Start a job in ``folder`` that pauses between steps, for a test to interfere."""
    return _start(folder, overrides, {"PAUSED": "1"} | (environment or {}))


def _start(folder: Path, overrides: tuple[str, ...], environment: dict[str, str]) -> Any:
    """Start a job; what it prints is appended to a file beside its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    printed = folder.parent / f"{folder.name}.printed"
    process = context().Process(target=job, args=(folder, overrides, printed, environment))
    process.start()
    return process


def run(folder: Path, *overrides: str, environment: dict[str, str] | None = None) -> int:
    """Run a job to its end; return the exit status."""
    process = _start(folder, overrides, environment or {})
    process.join(600)
    assert process.exitcode is not None
    return process.exitcode


def printed(folder: Path) -> str:
    return (folder.parent / f"{folder.name}.printed").read_text()


def command(
    words: tuple[str, ...], folder: Path, environment: Mapping[str, str], out: Path, err: Path
) -> None:
    """What a process does: ``python -m dpmi.train WORDS`` in a folder, to its end."""
    import torch

    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    torch.set_num_threads(int(environment["OMP_NUM_THREADS"]))
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    for number, path in ((1, out), (2, err)):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, number)
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - to the end
    sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.argv = ["dpmi.train", *words]
    sys.path.insert(0, str(folder))  # as python -m does
    try:
        runpy.run_module("dpmi.train", run_name="__main__", alter_sys=True)
    finally:
        atexit._run_exitfuncs()  # which processes of multiprocessing leave out
        sys.stdout.flush()
        sys.stderr.flush()
