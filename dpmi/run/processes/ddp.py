"""A run over several devices: starts a process on each, and makes sure that they end together.

Lightning would start the processes by running the command again, which in a sweep is another
command, and leaves whoever waits for a process that died waiting. Here the process that was asked
for the job trains nothing. It waits for the others, and so nothing hangs: where one ends before its
time, the others have a moment to write down what they know, and are ended.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist
from rich.console import Console

from dpmi.base.errors import UserError
from dpmi.base.ranks import Ranks
from dpmi.base.redaction import redacted
from dpmi.config.schema import Config
from dpmi.run.durability.stopping import StoppedByRequest, StopRequest
from dpmi.run.given import Given
from dpmi.run.processes.ddp_rank import HOST, Outcome, work
from dpmi.run.records.entry_file import account_left
from dpmi.run.records.reading import read_record
from dpmi.run.records.record import RECORD_FILE, RunRecord, record_of_no_run
from dpmi.run.records.writing import write_record

START = "spawn"  # the only way to start a process that is safe with CUDA
GRACE_SECONDS = 30.0  # for the others to end, after the first that did not complete
_POLL_SECONDS = 0.2


def run_on_devices(
    config: Config, folder: Path, console: Console, given: Given | None = None
) -> RunRecord:
    """Do what ``Run.execute`` does, in ``trainer.devices`` processes.

    Args:
        config: the checked config.
        folder: the job's folder, existing, locked by this process.
        console: what the user sees.
        given: images and network in place of the config's; each process has a copy.

    Returns:
        The record, already written; a failure is a record with ``status="failed"``.

    Raises:
        KeyboardInterrupt: interrupted; a checkpoint and the record are written.
        StoppedByRequest: SIGTERM came; a checkpoint and the record are written.
        UserError: the record cannot be written.
    """
    with StopRequest() as stop, _CtrlC() as ctrl_c:
        stop.wait_for_the_step()
        team = _Team(config, folder.absolute(), given)
        try:
            team.wait(lambda: stop.received or ctrl_c.received)
        finally:
            team.kill()
    outcomes = team.outcomes()
    deaths = team.deaths(outcomes)
    first = outcomes[0]
    record = read_record(folder / RECORD_FILE) if first and first.recorded else None
    if record and record.status == "completed":
        return record
    if (
        stop.received
        or ctrl_c.received
        or (not deaths and any(o and o.status == "interrupted" for o in outcomes))
    ):
        by = "interrupted by the user" if ctrl_c.received else "stopped by SIGTERM"
        reason = f"{by}; the same command goes on with it"
        _end(config, folder, record, "interrupted", reason)
        raise KeyboardInterrupt if ctrl_c.received else StoppedByRequest
    return _end(config, folder, record, "failed", _cause(outcomes, deaths))


class _CtrlC:
    """While it is entered, a first Ctrl-C is noted, wherever it falls; the next one interrupts."""

    def __init__(self) -> None:
        self.received = False
        self._before: Any = None

    def __enter__(self) -> _CtrlC:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._hear)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self.received:
            raise KeyboardInterrupt
        self.received = True


class _Team:
    """The processes of a run, started at once."""

    def __init__(self, config: Config, folder: Path, given: Given | None) -> None:
        size = config.trainer.devices
        threads = max(1, torch.get_num_threads() // size)
        # Where they find each other: a port that nobody else can have taken in the meantime.
        self._store = dist.TCPStore(HOST, 0, is_master=True, wait_for_workers=False)
        self._heard: list[Connection] = []
        self._processes: list[BaseProcess] = []
        self._killed: set[int] = set()
        context: Any = multiprocessing.get_context(START)
        # Until a process has said that it does not listen to Ctrl-C, it must not hear it.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            for rank in range(size):
                heard, sender = context.Pipe(duplex=False)
                process = context.Process(
                    target=work,
                    args=(
                        config,
                        folder,
                        Ranks(rank, size),
                        self._store.port,
                        threads,
                        sender,
                        given,
                    ),
                    name=f"rank {rank}",
                )
                process.start()
                sender.close()
                self._heard.append(heard)
                self._processes.append(process)
        except BaseException:
            self.kill()
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})

    def wait(self, stop: Callable[[], bool]) -> None:
        """Return when all have ended, or should have; ask them to once ``stop`` says so."""
        deadline: float | None = None
        stopping = False
        while running := [p for p in self._processes if p.exitcode is None]:
            if deadline is None and any(p.exitcode for p in self._processes):
                deadline = time.monotonic() + GRACE_SECONDS
            if deadline is not None and time.monotonic() > deadline:
                return
            if not stopping and stop():
                stopping = True
                self._send(signal.SIGTERM)
            wait([process.sentinel for process in running], _POLL_SECONDS)

    def kill(self) -> None:
        """End those that are left."""
        self._killed |= set(self._send(signal.SIGKILL))
        for process in self._processes:
            process.join()

    def _send(self, number: int) -> list[int]:
        reached = []
        for rank, process in enumerate(self._processes):
            if process.exitcode is None and process.pid is not None:
                with suppress(ProcessLookupError):
                    os.kill(process.pid, number)
                    reached.append(rank)
        return reached

    def outcomes(self) -> list[Outcome | None]:
        """What each process reported; None of one that could not."""
        outcomes: list[Outcome | None] = []
        for heard in self._heard:
            try:
                outcomes.append(heard.recv() if heard.poll() else None)
            except EOFError:
                outcomes.append(None)
        return outcomes

    def deaths(self, outcomes: list[Outcome | None]) -> dict[int, int]:
        """Exit status by rank, of those that ended by themselves and gave no reason."""
        return {
            rank: process.exitcode or 0
            for rank, process in enumerate(self._processes)
            if rank not in self._killed and outcomes[rank] is None
        }


def _cause(outcomes: list[Outcome | None], deaths: dict[int, int]) -> str:
    """What went wrong first: the others fail because the first did."""
    for rank, code in deaths.items():
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
        return f"process {rank + 1} of {len(outcomes)} {how}; the same command continues"
    failed = [o for o in outcomes if o and o.status == "failed"]
    return str(min(failed, key=lambda o: o.at).reason) if failed else "a process gave no reason"


def _end(
    config: Config, folder: Path, record: RunRecord | None, status: str, reason: str
) -> RunRecord:
    """The record that the first process wrote, with what is known here; else a new one."""
    if record is None:
        left = account_left(folder)
        return _write(record_of_no_run(config, status, reason, account=left), folder)
    return _write(record.model_copy(update={"status": status, "reason": redacted(reason)}), folder)


def _write(record: RunRecord, folder: Path) -> RunRecord:
    try:
        write_record(record, folder)
    except OSError as error:
        raise UserError(
            f"{folder}: the record cannot be written ({error.strerror}); the run {record.status}: "
            f"{record.reason}"
        ) from error
    return record
