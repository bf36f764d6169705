"""Private steps beside the plain one, cell by cell, within a budget of time."""

from __future__ import annotations

import gc
import multiprocessing
import signal
import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Literal, TypeVar

import torch

from dpmi.base.threads import let_idle_threads_sleep
from dpmi.benchmarks.gpu.settings import Setting
from dpmi.benchmarks.step import METHODS, PLAIN, Options, Shape, Step, make_step, timed
from dpmi.privacy.gradients import ran_out_of_memory
from dpmi.run.memory import PeakMemory

ROUNDS = 5
OUT_OF_MEMORY, NO_TIME, FAILED = "out of memory", "not measured: no time left", "failed"
_A_TURN, _MOST_STEPS = 0.2, 20  # seconds that a method works in a round, if steps are short
_SMALLEST_PIECE = 16
_OURS = (PLAIN, "fast")
# For the plan of time alone, until cells have been measured: what each method takes to set up, a
# compiler for each network, and images of 224 px a second of ResNet-18, roughly, on an H100.
_SET_UP, _COMPILING, _IMAGES_A_SECOND = 2.0, 40.0, 500.0
_COST = {"resnet18": 1.0, "resnet50": 2.3}
_Made = TypeVar("_Made")


@dataclass(frozen=True)
class Cell:
    """What is measured together: methods that share all of this."""

    model: str
    shape: Shape
    setting: Setting

    def __str__(self) -> str:
        """As ``resnet18, 224 px, batch 128, bf16``."""
        shape = f"{self.shape.image_size} px, batch {self.shape.batch_size}"
        return f"{self.model}, {shape}, {self.setting}"

    @property
    def methods(self) -> tuple[str, ...]:
        """Opacus' are measured in float32 and TF32 alone, with channels first."""
        setting = self.setting
        ours = setting.compiled or setting.autocast or setting.channels_last
        return _OURS if ours else METHODS


@dataclass(frozen=True)
class Result:
    """One method in a cell; ratios are to the plain step of the same cell.

    Attributes:
        method: of METHODS.
        images_per_second: median of the rounds; None where there is a note instead.
        speed_ratio: median of the rounds' ratios; None where the plain step has none.
        peak_mb: most memory that steps held, with the network; None where it is not known.
        memory_ratio: to the plain step's.
        images_in_a_pass: the physical batch.
        note: why there is no figure.
    """

    method: str
    images_per_second: float | None = None
    speed_ratio: float | None = None
    peak_mb: float | None = None
    memory_ratio: float | None = None
    images_in_a_pass: int | None = None
    note: str = ""


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
    work = (ROUNDS + 3) * max(_A_TURN, shape.batch_size * cost)
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


def measured_cell(cell: Cell, device: torch.device) -> tuple[Result, ...]:
    """Time all methods of a cell in alternation; what one of them fails at is a note."""
    torch.compiler.reset()  # else the kernels of earlier networks count against a limit
    with cell.setting.in_force():
        tries = {method: _ready(method, cell, device) for method in cell.methods}
        ready = {method: made for method, made in tries.items() if isinstance(made, _Ready)}
        seconds: dict[str, list[float]] = {method: [] for method in ready}
        notes = {method: made for method, made in tries.items() if isinstance(made, str)}
        del tries
        for _ in range(ROUNDS):
            for method in [method for method in ready if method not in notes]:
                took = _tried(ready[method].turn)
                if isinstance(took, str):
                    notes[method] = took
                else:
                    seconds[method].append(took)
    for method in notes:
        ready.pop(method, None)
    return tuple(
        Result(method, note=notes[method])
        if method in notes
        else _result(method, cell, ready, seconds)
        for method in cell.methods
    )


@dataclass(frozen=True)
class _Ready:
    """A method after its first steps."""

    step: Step
    peak_mb: float | None
    steps: int  # in a turn

    def turn(self) -> float:
        """Seconds of a step, of several one after another."""
        return timed(lambda: [self.step.run() for _ in range(self.steps)]) / self.steps


def _ready(method: str, cell: Cell, device: torch.device) -> _Ready | str:
    """Make a method and its first steps; or say why not.

    The fast engine and Opacus' hooks choose their pieces as training does. Ghost clipping takes
    the whole batch, and half as many images each time that memory runs out.
    """
    if method != "opacus ghost":
        return _tried(partial(_begun, method, cell, device, "auto"))
    piece = cell.shape.batch_size
    while True:
        made = _tried(partial(_begun, method, cell, device, piece))
        if made != OUT_OF_MEMORY or piece <= _SMALLEST_PIECE:
            return made
        piece //= 2


def _begun(method: str, cell: Cell, device: torch.device, piece: int | Literal["auto"]) -> _Ready:
    held = torch.cuda.memory_allocated(device) if device.type == "cuda" else 0  # by other methods
    memory = PeakMemory()
    setting = cell.setting
    options = Options(
        norm="frozen_batch",  # as in the poster's experiments
        model=cell.model,
        precision="bf16-mixed" if setting.autocast else "32-true",
        channels_last=setting.channels_last,
        compiled=setting.compiled,
    )
    step = make_step(method, cell.shape, options, device, piece)
    step.run()  # compiles, and chooses kernels
    memory.training_starts(device)
    step.run()
    took = timed(step.run)
    peak = memory.mb()
    peak = None if peak is None else peak - held / 2**20
    return _Ready(step, peak, max(1, min(_MOST_STEPS, round(_A_TURN / took))))


def _tried(work: Callable[[], _Made]) -> _Made | str:
    """What it makes; or in words why it makes nothing, memory given back."""
    try:
        return work()
    except Exception as error:
        words = (str(error).strip().splitlines() or [""])[0][:200]
        note = f"{FAILED}: {type(error).__name__}: {words}"
        if ran_out_of_memory(error):
            note = OUT_OF_MEMORY
    gc.collect()  # the frames that held the tensors are gone with the error
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return note


def _result(
    method: str, cell: Cell, ready: dict[str, _Ready], seconds: dict[str, list[float]]
) -> Result:
    own = ready[method]
    found = Result(
        method=method,
        images_per_second=cell.shape.batch_size / statistics.median(seconds[method]),
        peak_mb=own.peak_mb,
        images_in_a_pass=own.step.images_in_a_pass(),
    )
    if PLAIN not in ready:
        return found
    ratios = [p / o for p, o in zip(seconds[PLAIN], seconds[method], strict=True)]
    plain_peak = ready[PLAIN].peak_mb
    return replace(
        found,
        speed_ratio=statistics.median(ratios),
        memory_ratio=own.peak_mb / plain_peak if own.peak_mb and plain_peak else None,
    )
