"""A cell of the bench: private steps beside the plain one, under one setting."""

from __future__ import annotations

import gc
import statistics
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, TypeVar

import torch

from dpmi.benchmarks.gpu.settings import Setting
from dpmi.benchmarks.step import METHODS, PLAIN, Options, Shape, Step, make_step, timed
from dpmi.privacy.gradients import ran_out_of_memory
from dpmi.run.memory import PeakMemory

ROUNDS = 5
OUT_OF_MEMORY, NO_TIME, FAILED = "out of memory", "not measured: no time left", "failed"
A_TURN, _MOST_STEPS = 0.2, 20  # seconds that a method works in a round, if steps are short
_SMALLEST_PIECE = 16
_OURS = (PLAIN, "fast")
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
    return _Ready(step, peak, max(1, min(_MOST_STEPS, round(A_TURN / took))))


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
