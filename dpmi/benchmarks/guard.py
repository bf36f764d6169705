"""A guard against regressions: ratios to the plain step, beside those recorded in the repository.

Two calls on the same code differ by more than the rounds of either, so each ratio is measured in
several processes. One has moved where Welch's t-test (1947) of the processes then and now rejects
at 1 % that the means are equal: of a hundred ratios that have not moved, about one is reported.
"""

from __future__ import annotations

import multiprocessing
import platform
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from scipy.stats import ttest_ind

from dpmi.base.errors import UserError
from dpmi.benchmarks.step import Options, Row, Shape, machine, measure

METHOD = "fast"
PROCESSES = 5
ROUNDS = 12
SIGNIFICANCE = 0.01


class Ratios(BaseModel):
    """Of one shape, a value for each process.

    Attributes:
        image_size, batch_size: the shape.
        speed: of the plain step's, higher is better.
        memory: of the plain step's, lower is better.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    image_size: int
    batch_size: int
    speed: tuple[float, ...]
    memory: tuple[float, ...]


class Recorded(BaseModel):
    """What was measured on one kind of machine.

    Attributes:
        processor: its name; ratios of others are not compared with it.
        about: threads, versions, options.
        ratios: of each shape.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    processor: str
    about: dict[str, Any]
    ratios: tuple[Ratios, ...]


@dataclass(frozen=True)
class Comparison:
    """A ratio then and now.

    Attributes:
        image_size, batch_size: of which shape.
        what: of which kind it is.
        then, now: means over processes.
        p_value: of the test that they are equal.
    """

    image_size: int
    batch_size: int
    what: Literal["speed", "memory"]
    then: float
    now: float
    p_value: float

    @property
    def moved(self) -> bool:
        """Whether by more than the noise."""
        return self.p_value < SIGNIFICANCE

    @property
    def worse(self) -> bool:
        """Whether it moved, and in the wrong direction."""
        return self.moved and (self.now < self.then) == (self.what == "speed")


def measured(
    shapes: Sequence[Shape], processes: int, rounds: int, advance: Callable[[], None]
) -> Recorded:
    """Measure the fast engine beside the plain step, in new processes one after another.

    Args:
        shapes: of the batches.
        processes: for each shape; at least two.
        rounds: in each process.
        advance: called after each process.
    """
    found = []
    for shape in shapes:
        rows = []
        for _ in range(processes):
            rows.append(_in_own_process(shape, rounds))
            advance()
        found.append(
            Ratios(
                image_size=shape.image_size,
                batch_size=shape.batch_size,
                speed=tuple(row.speed_ratio for row in rows),
                memory=tuple(row.memory_ratio for row in rows),
            )
        )
    about = machine() | asdict(Options()) | {"rounds": rounds}
    return Recorded(processor=processor(), about=about, ratios=tuple(found))


def compared(then: Recorded, now: Recorded) -> list[Comparison]:
    """Each ratio of shapes that both have."""
    before = {(its.image_size, its.batch_size): its for its in then.ratios}
    found = []
    for its in now.ratios:
        if old := before.get((its.image_size, its.batch_size)):
            found += [
                _comparison(its, "speed", old.speed, its.speed),
                _comparison(its, "memory", old.memory, its.memory),
            ]
    return found


def _comparison(
    of: Ratios, what: Literal["speed", "memory"], then: tuple[float, ...], now: tuple[float, ...]
) -> Comparison:
    # Equal values have no variance, and the test has none without.
    p_value = 1.0 if then == now else float(ttest_ind(then, now, equal_var=False).pvalue)
    return Comparison(of.image_size, of.batch_size, what, fmean(then), fmean(now), p_value)


def processor() -> str:
    """Name of the processor, or of the GPU, and its model number where there is one."""
    device = str(machine()["device"])
    if device != platform.machine():
        return device
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or device
    facts = dict(line.split(":", 1) for line in lines if ":" in line)
    named = {key.strip(): value.strip() for key, value in facts.items()}
    if "model name" not in named:
        return device
    return f"{named['model name']}, model {named.get('model', 'unknown')}"


_FILE = TypeAdapter(list[Recorded])


def read(path: Path) -> list[Recorded]:
    """All that a file has recorded, a machine each; nothing where there is none yet.

    Raises:
        UserError: it holds something else.
    """
    if not path.exists():
        return []
    try:
        return _FILE.validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        first = str(error).splitlines()[0]
        raise UserError(f"{path}: no record of python -m dpmi.bench ({first})") from error


def of_this_machine(path: Path) -> Recorded:
    """What a file has recorded of this kind of machine.

    Raises:
        UserError: nothing.
    """
    own = processor()
    for its in (found := read(path)):
        if its.processor == own:
            return its
    others = "; ".join(its.processor for its in found) or "nothing"
    raise UserError(
        f"{path}: recorded of {others}, and this is {own}; record it first, on the code to compare "
        f"with: python -m dpmi.bench --record {path}"
    )


def write(path: Path, recorded: Recorded) -> None:
    """Put it in the place of what the file has of this kind of machine."""
    others = [its for its in read(path) if its.processor != recorded.processor]
    path.write_bytes(_FILE.dump_json([*others, recorded], indent=1) + b"\n")


def _in_own_process(shape: Shape, rounds: int) -> Row:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context) as pool:  # whose processes may start others, for the peaks
        rows = pool.submit(measure, shape, Options(), rounds, (METHOD,)).result()
    (own,) = [row for row in rows if row.method == METHOD]
    return own
