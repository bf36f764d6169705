"""Which cells come when, and which at all: the most important first, within a budget of time."""

from __future__ import annotations

import multiprocessing
import signal
import statistics
import time
import warnings
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

import torch

from dpmi.base.threads import let_idle_threads_sleep
from dpmi.benchmarks.gpu.cells import (
    A_TURN,
    FAILED,
    NO_TIME,
    ROUNDS,
    Cell,
    Result,
    measured_cell,
)
from dpmi.benchmarks.gpu.settings import Setting
from dpmi.benchmarks.step import Shape

# For the plan of time alone, until cells have been measured: what each method takes to set up, a
# compiler for each network, and images of 224 px a second of ResNet-18, roughly, on an H100.
_SET_UP, _COMPILING, _IMAGES_A_SECOND = 2.0, 40.0, 500.0
_COST = {"resnet18": 1.0, "resnet50": 2.3}


def planned(
    models: Sequence[str], shapes: Sequence[Shape], settings: Sequence[Setting]
) -> tuple[Cell, ...]:
    """All cells, the most important first: the first network at the first shape.

    It is measured in the first setting, compiled or not, and in all that need no compiler. Then
    everything else, what needs no compiler before what does.
    """
    first = [Cell(models[0], shapes[0], setting)
             for setting in settings if setting == settings[0] or not setting.compiled]  # fmt: skip
    rest = [Cell(model, shape, setting)
            for setting in settings for shape in shapes for model in models]  # fmt: skip
    return tuple(dict.fromkeys([*first, *sorted(rest, key=lambda cell: cell.setting.compiled)]))


def measured(
    cells: Sequence[Cell], device: torch.device, ends_at: float
) -> Iterator[tuple[Cell, tuple[Result, ...]]]:
    """Measure cells in their order, as far as time goes, in a process that may be given up.

    Args:
        cells: in the order of their importance; one for which there is no time is passed over.
        device: where.
        ends_at: by time.monotonic.

    Yields:
        Each cell, and what was found, or that there was no time for it.
    """
    pace = [1.0]  # what cells took, of what was expected
    worker = _Worker()
    try:
        for cell in cells:
            started, expected = time.monotonic(), expected_seconds(cell)
            if started + expected * statistics.median(pace) > ends_at:
                yield cell, _noted(cell, NO_TIME)
                continue
            found = worker.result(cell, device, ends_at - started)
            pace.append((time.monotonic() - started) / expected)
            yield cell, found
    finally:
        worker.stop()


def expected_seconds(cell: Cell) -> float:
    """What a cell takes on an H100, roughly."""
    shape = cell.shape
    cost = _COST[cell.model] * (shape.image_size / 224) ** 2 / _IMAGES_A_SECOND
    work = (ROUNDS + 3) * max(A_TURN, shape.batch_size * cost)
    return len(cell.methods) * (_SET_UP + _COMPILING * cell.setting.compiled + work)


class _Worker:
    """A process for one cell after another; what hangs or dies in it takes only its cell along."""

    def __init__(self) -> None:
        self._process: BaseProcess | None = None

    def result(self, cell: Cell, device: torch.device, seconds: float) -> tuple[Result, ...]:
        if self._process is None:
            context = multiprocessing.get_context("spawn")
            self._line, theirs = context.Pipe()
            self._process = context.Process(target=_serve, args=(theirs,))
            self._process.start()
            theirs.close()  # so that the line ends where the process does
        try:
            self._line.send((cell, device))
            found = self._line.recv() if self._line.poll(seconds) else _noted(cell, NO_TIME)
        except (EOFError, OSError):
            found = _noted(cell, f"{FAILED}: its process ended")
        if any(one.note.startswith((FAILED, NO_TIME)) for one in found):
            self.stop()  # an error of a GPU stays with the process
        return found

    def stop(self) -> None:
        if self._process is not None:
            self._line.close()
            self._process.kill()
            self._process.join()
        self._process = None


def _serve(line: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is stopped by who started it
    let_idle_threads_sleep()
    warnings.simplefilter("ignore")  # what libraries advise is no matter of a bench's
    while True:
        try:
            line.send(measured_cell(*line.recv()))
        except (EOFError, OSError):  # nobody listens any more
            return


def _noted(cell: Cell, note: str) -> tuple[Result, ...]:
    return tuple(Result(method, note=note) for method in cell.methods)
