"""A job of a sweep, run in a process of its own, and its result."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra import version
from hydra._internal.callbacks import Callbacks
from hydra.core.config_loader import ConfigLoader
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobRuntime, run_job, setup_globals
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict, read_write

from dpmi.base.errors import EXIT_BAD_INPUT, EXIT_FAILED_RUNS, EXIT_INTERRUPTED, UserError
from dpmi.base.redaction import redacted
from dpmi.config.composition import register_resolvers
from dpmi.run.screen.config_tree import label_of


@dataclass(frozen=True)
class Job:
    """One cell of a sweep.

    Attributes:
        number: in the sweep, from 0.
        label: what distinguishes it from the other cells of the sweep, for people.
        overrides: as Hydra knows them.
        config: the composed config, with its node ``hydra`` and no folder left to be named.
        folder: the job's folder, absolute.
        cwd: where the sweep was started: relative paths mean the same in every process.
        task: what runs it.
        version_base: whose defaults Hydra is to have.
    """

    number: int
    label: str
    overrides: tuple[str, ...]
    config: DictConfig
    folder: Path
    cwd: str
    task: TaskFunction
    version_base: str


@dataclass(frozen=True)
class Ending:
    """How the process of a job ended.

    Attributes:
        status: an exit status; 0 also for a run that failed and left a record that says so.
        reason: what went wrong, where the job has no record with it.
        result: what the task returned.
    """

    status: int
    reason: str | None = None
    result: str | None = None


def make_jobs(
    loader: ConfigLoader,
    sweep: DictConfig,
    batch: Sequence[Sequence[str]],
    first: int,
    task: TaskFunction,
) -> list[Job]:
    """Compose the jobs of a batch of overrides; they are numbered from ``first``."""
    jobs = []
    shared = set.intersection(*(set(overrides) for overrides in batch))
    for number, overrides in enumerate(batch, first):
        config = loader.load_sweep_config(sweep, list(overrides))
        with open_dict(config):
            config.hydra.job.id = config.hydra.job.num = number
        HydraConfig.instance().set_config(config)  # the folder's name may ask for it
        root, name = str(config.hydra.sweep.dir), str(config.hydra.sweep.subdir)
        with read_write(config.hydra.sweep):
            config.hydra.sweep.dir, config.hydra.sweep.subdir = root, name
        job = Job(
            number=number,
            label=label_of(overrides, shared) or name,
            overrides=tuple(overrides),
            config=config,
            folder=Path(root, name).absolute(),
            cwd=os.getcwd(),
            task=task,
            version_base=str(version.getbase()),
        )
        jobs.append(job)
    return jobs


def work(job: Job) -> Ending:
    """Run a job, alone in this process; what it says goes to the log in its folder."""
    try:
        os.chdir(job.cwd)
        job.folder.mkdir(parents=True, exist_ok=True)
        _speak_to(job.folder / f"{job.config.hydra.job.name}.log")
    except OSError as error:
        return Ending(
            EXIT_FAILED_RUNS,
            f"{error}; the machines of a sweep must share its working directory and its output_dir",
        )
    try:
        returned = _run(job).return_value  # raises what the task raised
        return Ending(0, result=str(returned))
    except KeyboardInterrupt:
        return Ending(EXIT_INTERRUPTED)
    except SystemExit as end:
        return Ending(end.code if isinstance(end.code, int) else EXIT_FAILED_RUNS)
    except UserError as error:
        return Ending(EXIT_BAD_INPUT, str(error))
    except Exception as error:
        print(redacted(traceback.format_exc()), file=sys.stderr)
        return Ending(EXIT_FAILED_RUNS, redacted(f"{type(error).__name__}: {error}"))
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def _run(job: Job) -> JobReturn:
    version.setbase(job.version_base)  # else it would change into the job's folder
    setup_globals()
    register_resolvers()
    JobRuntime.instance().set("name", job.config.hydra.job.name)
    context = HydraContext(config_loader=None, callbacks=Callbacks(job.config))  # type: ignore[arg-type]
    return run_job(
        task_function=job.task,
        config=job.config,
        job_dir_key="hydra.sweep.dir",
        job_subdir_key="hydra.sweep.subdir",
        hydra_context=context,
    )


def _speak_to(path: Path) -> None:
    """Let the process write to a file, down to what C libraries say when they crash."""
    sys.stdout.flush()
    sys.stderr.flush()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    sys.stdout = os.fdopen(1, "w", buffering=1, encoding="utf-8", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, encoding="utf-8", closefd=False)


def ended_by(code: int) -> str:
    """What the exit status means of a process that gave no reason."""
    if code >= 0:
        return f"its process ended with status {code} and gave no reason; see its log"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    hint = " (out of memory?)" if name == "SIGKILL" else ""
    return f"its process was killed by {name}{hint}"
