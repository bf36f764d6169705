"""One machine: a job on each GPU, or several on the processor with the cores shared out."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from dpmi.base.errors import EXIT_FAILED_RUNS, EXIT_INTERRUPTED, UserError
from dpmi.base.loading import loading
from dpmi.data.parallel import cpu_count
from dpmi.launch.jobs import Ending, Job, ended_by, work
from dpmi.launch.launcher import SideBySideLauncher, devices_of, whole_number

_CUDA = "CUDA_VISIBLE_DEVICES"
_THREADS = "OMP_NUM_THREADS"


@dataclass(frozen=True)
class Slot:
    """Where one job runs at a time.

    Attributes:
        name: for people.
        gpu: what CUDA_VISIBLE_DEVICES shows of the GPUs, comma-separated; empty for none.
        cores: processors of its own; empty where there are fewer than jobs, which then share all.
        threads: of an operation.
    """

    name: str
    gpu: str
    cores: frozenset[int]
    threads: int


def make_slots(
    jobs: int | None, gpus: Sequence[str], cores: Sequence[int], devices: int = 1
) -> list[Slot]:
    """Share a machine out.

    Args:
        jobs: at the same time; None for as many as there are GPUs for.
        gpus: the machine's, by the names that CUDA_VISIBLE_DEVICES knows; empty for none.
        cores: processors to share out.
        devices: GPUs of a job.

    Raises:
        UserError: more jobs than GPUs for them, or neither GPUs nor a number of jobs.
    """
    if jobs is None and not gpus:
        raise UserError(
            "hydra.launcher.jobs=null: one job per GPU, but no GPU is used here; give the number "
            f"of jobs that share the {len(cores)} cores"
        )
    most = len(gpus) // devices
    if gpus and not 1 <= (most if jobs is None else jobs) <= most:
        of = "one job a GPU" if devices == 1 else f"with trainer.devices={devices} each"
        raise UserError(
            f"hydra.launcher.jobs={'null' if jobs is None else jobs}: the {len(gpus)} GPUs here "
            f"are enough for {most}, {of}"
        )
    count = most if jobs is None else jobs
    shown = [",".join(gpus[i * devices : (i + 1) * devices]) for i in range(count)]
    return [
        Slot(
            name=f"gpu {shown[i]}" if gpus else f"cpu {i}",
            gpu=shown[i],
            cores=frozenset(cores[i::count]) if len(cores) >= count else frozenset(),
            threads=max(1, len(cores) // count),
        )
        for i in range(count)
    ]


def visible_gpus() -> list[str]:
    """GPUs that this process may use, by the names that CUDA_VISIBLE_DEVICES knows."""
    with loading():  # not where nothing trains on a GPU
        import torch

    count = torch.cuda.device_count()
    named = os.environ.get(_CUDA)
    return named.split(",")[:count] if named else [str(i) for i in range(count)]


class LocalPoolLauncher(SideBySideLauncher):
    """Runs jobs on this machine, each in a new process that ends with it.

    Args:
        jobs: at the same time; None for one a GPU.
    """

    def __init__(self, jobs: Any) -> None:
        super().__init__()
        self._jobs = jobs
        self._free: deque[Slot] = deque()
        self._waiting: deque[Job] = deque()
        self._running: dict[int, _Worker] = {}

    def check(self) -> None:
        """Share the machine out."""
        whole_number("jobs", self._jobs, 1, or_null=True)
        on_cpu = self.config.trainer.accelerator == "cpu"
        gpus = [] if on_cpu else visible_gpus()
        self._free.extend(make_slots(self._jobs, gpus, _cores(), devices_of(self.config)))

    def begin(self, jobs: Sequence[Job]) -> None:
        """Let them wait for a free slot."""
        self._waiting.extend(jobs)

    def poll(self, seconds: float) -> list[tuple[Job, Ending]]:
        """Start what there is room for; return what ended."""
        while self._waiting and self._free:
            job, slot = self._waiting.popleft(), self._free.popleft()
            self._running[job.number] = _Worker(job, slot)
            self.started(job, slot.name)
        if not self._running:
            return []
        wait([worker.process.sentinel for worker in self._running.values()], seconds)
        ended = [worker for worker in self._running.values() if worker.process.exitcode is not None]
        for worker in ended:
            del self._running[worker.job.number]
            self._free.append(worker.slot)
        return [(worker.job, worker.ending()) for worker in ended]

    def stop(self, number: int) -> None:
        """Start no more, and send the others a signal."""
        self._waiting.clear()
        for worker in self._running.values():
            worker.signal(number)

    @property
    def running(self) -> int:
        """Jobs that have not ended."""
        return len(self._running)


class _Worker:
    """A job's process."""

    def __init__(self, job: Job, slot: Slot) -> None:
        self.job, self.slot = job, slot
        context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
        self._heard, sender = context.Pipe(duplex=False)
        self.process: BaseProcess = context.Process(
            target=_work_in_slot, args=(job, slot, sender), name=job.label
        )
        # Until the process has left the terminal's group, Ctrl-C would hit it beside our signal.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self.process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        sender.close()

    def signal(self, number: int) -> None:
        """Send a signal, if there is still somebody to hear it."""
        if self.process.pid is not None and self.process.exitcode is None:
            os.kill(self.process.pid, number)

    def ending(self) -> Ending:
        """What the process reported before it ended, or what its exit status means."""
        code = self.process.exitcode
        assert code is not None
        try:
            return self._heard.recv()
        except (EOFError, OSError):
            if code in (-signal.SIGINT, EXIT_INTERRUPTED):
                return Ending(EXIT_INTERRUPTED)
            return Ending(EXIT_FAILED_RUNS, ended_by(code))
        finally:
            self._heard.close()
            self.process.close()


def _work_in_slot(job: Job, slot: Slot, sender: Connection) -> None:
    """Run a job where it belongs; torch is imported after this, not before."""
    os.setsid()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ[_CUDA] = slot.gpu
    os.environ.setdefault(_THREADS, str(slot.threads))  # what the user set, stays
    if slot.cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, slot.cores)
    sender.send(work(job))
    sender.close()


def _end_with_parent() -> None:
    """Ask this process to end when the sweep's has gone: killed, or its terminal closed."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)


def _cores() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(cpu_count()))
