"""What all launchers share: start jobs, show their status, isolate them from each other."""

from __future__ import annotations

import signal
import sys
import time
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from dpmi.base.errors import EXIT_RESUMABLE, UserError
from dpmi.launch.board import Board
from dpmi.launch.endings import note_ending
from dpmi.launch.jobs import Ending, Job, make_jobs
from dpmi.run.screen.status import clear_status, read_status

POLL_SECONDS = 0.5
GRACE_SECONDS = 120.0  # for jobs to write down what they have, when all are asked to stop


class SideBySideLauncher(Launcher):
    """A launcher whose jobs run at the same time.

    A job that ends without a result gets a record that says so: the table, the exit status
    and the next try of the same command read records and nothing else.
    """

    config: DictConfig

    def __init__(self) -> None:
        self._board: Board | None = None
        self._signal: int | None = None

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Keep what launching takes, and refuse mistakes before anything is written."""
        self._loader, self._task, self.config = hydra_context.config_loader, task_function, config
        self.check()

    @abstractmethod
    def check(self) -> None:
        """Raise UserError for what the launcher's part of the config cannot mean."""

    @abstractmethod
    def begin(self, jobs: Sequence[Job]) -> None:
        """Take the jobs; :meth:`started` is to be called when one starts."""

    @abstractmethod
    def poll(self, seconds: float) -> list[tuple[Job, Ending]]:
        """Wait so long at most for a job to end; return what ended since the last call."""

    @abstractmethod
    def stop(self, number: int) -> None:
        """Start no more jobs, and end the running ones, by a signal where that is possible."""

    @property
    @abstractmethod
    def running(self) -> int:
        """Jobs that were started and have not ended."""

    def started(self, job: Job, device: str | None = None) -> None:
        """Show that a job has started."""
        assert self._board is not None
        self._board.started(job, device)

    def notice_starts(self, jobs: Iterable[Job]) -> None:
        """Show which jobs have begun, where only their status shows it."""
        assert self._board is not None
        for job in jobs:
            if self._board.rows[job.number].state == "waiting" and read_status(job.folder):
                self._board.started(job, None)

    def note(self, line: str) -> None:
        """Show a line."""
        assert self._board is not None
        self._board.note(line)

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Run a batch of jobs to the end of the last one.

        Raises:
            KeyboardInterrupt: interrupted by the user; the jobs were, too.
            SystemExit: asked to end by SIGTERM; the jobs were, too, and can be resumed.
        """
        setup_globals()
        before = HydraConfig.instance().cfg
        try:
            jobs = make_jobs(self._loader, self.config, job_overrides, initial_job_idx, self._task)
        finally:
            HydraConfig.instance().cfg = before
        Path(str(self.config.hydra.sweep.dir)).mkdir(parents=True, exist_ok=True)
        for job in jobs:
            clear_status(job.folder)
        heard = signal.signal(signal.SIGTERM, self._hear)
        try:
            with Board(jobs, Console()) as self._board:
                endings = self._run(jobs)
        finally:
            signal.signal(signal.SIGTERM, heard)
        return [_returned(job, endings[job.number]) for job in jobs]

    def _run(self, jobs: list[Job]) -> dict[int, Ending]:
        self.begin(jobs)
        endings: dict[int, Ending] = {}
        try:
            while len(endings) < len(jobs) and self._signal is None:
                endings |= self._settle(self.poll(POLL_SECONDS))
        except KeyboardInterrupt:
            self._wind_up(signal.SIGINT)
            raise
        except BaseException:
            self._wind_up(signal.SIGTERM)
            raise
        if self._signal is not None and len(endings) < len(jobs):
            self._wind_up(signal.SIGTERM)
            print("stopped by SIGTERM; the same command continues", file=sys.stderr)
            sys.exit(EXIT_RESUMABLE)
        return endings

    def _settle(self, ended: list[tuple[Job, Ending]]) -> dict[int, Ending]:
        """Write down what a job could not, and show it all."""
        assert self._board is not None
        for job, ending in ended:
            record = note_ending(job, ending)
            clear_status(job.folder)
            self._board.ended(job, ending, record)
        self._board.refresh()
        return {job.number: ending for job, ending in ended}

    def _wind_up(self, number: int) -> None:
        """Ask all jobs to end and wait for them; another Ctrl-C, or too long a wait, kills them."""
        deadline = time.monotonic() + GRACE_SECONDS
        try:
            self.stop(number)
            while self.running and time.monotonic() < deadline:
                self._settle(self.poll(POLL_SECONDS))
        finally:
            if self.running:
                self.stop(signal.SIGKILL)
                with suppress(Exception):
                    self._settle(self.poll(POLL_SECONDS))

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self._signal = number


def whole_number(key: str, value: object, least: int, *, or_null: bool = False) -> None:
    """Refuse what is no whole number of at least ``least``.

    Raises:
        UserError: names the key of the launcher, its value and what is allowed.
    """
    if value is None and or_null:
        return
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise UserError(
            f"hydra.launcher.{key}={value}: allowed is a whole number of at least {least}"
            + (", or null" if or_null else "")
        )


def devices_of(config: DictConfig) -> int:
    """GPUs that one run trains on."""
    return int(OmegaConf.select(config, "trainer.devices", default=1))


def _returned(job: Job, ending: Ending) -> JobReturn:
    """What Hydra gets; completed in any case, since it would drop the table of the others."""
    return JobReturn(
        overrides=job.overrides,
        cfg=job.config,
        working_dir=job.cwd,
        task_name=str(job.config.hydra.job.name),
        status=JobStatus.COMPLETED,
        _return_value=ending.result or ending.reason,
    )
