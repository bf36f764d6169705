"""The work of ``python -m dpmi.bench --gpu``, and its output."""

from __future__ import annotations

import argparse
import logging
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from dpmi.base.errors import EXIT_BAD_INPUT, EXIT_FAILED_RUNS, EXIT_INTERRUPTED, UserError
from dpmi.benchmarks.gpu import correctness, schedule, whole_run
from dpmi.benchmarks.gpu.cells import FAILED
from dpmi.benchmarks.gpu.report import Report, in_short, markdown_of
from dpmi.benchmarks.gpu.settings import Setting, settings_of
from dpmi.benchmarks.step import Shape, machine
from dpmi.config.folder import config_dir
from dpmi.config.schema import Config, load_config
from dpmi.data.readers import read_catalogue
from dpmi.run.before import make_folder, refuse_on_this_machine

_MANUAL = (
    "Measure a GPU: first whether the fast engine clips there as defined, under every precision, "
    "and an audit; then a run of two epochs as a whole; then private steps beside plain ones, the "
    "most important first, until the time is over. Results are written as they come. Exit status: "
    "0 done, 1 correctness or something else failed, 2 bad input, 130 interrupted."
)
OUTPUT = Path("outputs") / "gpu.json"
MINUTES = 8.0
MODELS = ("resnet18", "resnet50")
SHAPES = (  # the most important first
    *(Shape(224, 128), Shape(64, 128), Shape(128, 128)),
    *(Shape(224, 1024), Shape(64, 1024), Shape(128, 1024)),
)
_AROUND = 15.0  # seconds for what comes before and after: imports, tables
_OF_THE_RUN = 0.4  # of the time, the most that the whole run may take


def main(words: Sequence[str], shape_of: Callable[[str], Shape]) -> int:
    """Check, measure, print, write; return the exit status.

    Args:
        words: of the command line.
        shape_of: reads PIXELS:BATCH.
    """
    parser = argparse.ArgumentParser(prog="python -m dpmi.bench", description=_MANUAL)
    parser.add_argument("--gpu", action="store_true", help="this bench")
    parser.add_argument(
        "--minutes", type=float, default=MINUTES, metavar="N",
        help=f"in which all ends (default: {MINUTES:g}); what does not fit is listed",
    )  # fmt: skip
    parser.add_argument(
        "--data", type=Path, metavar="FOLDER",
        help="data=chest_xray, for the whole run (default: as many made images)",
    )  # fmt: skip
    parser.add_argument(
        "--output", type=Path, default=OUTPUT, metavar="FILE",
        help=f"JSON; Markdown goes beside it (default: {OUTPUT})",
    )  # fmt: skip
    parser.add_argument(
        "--cpu", nargs="+", type=shape_of, metavar="PIXELS:BATCH",
        help="without a GPU: try everything at these sizes, such as 32:4",
    )  # fmt: skip
    args = parser.parse_args(words)
    console = Console()
    try:
        device = _device(args.cpu)
        _refuse(args.minutes, args.data, args.output)
        settings = _settings(device, console)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    warnings.simplefilter("ignore")  # what libraries advise is no matter of a bench's
    logging.disable(logging.WARNING)
    bench = _Bench(device, settings, args.cpu, args.minutes, args.output, console)
    try:
        with bench.progress:
            return bench.work(args.data)
    except KeyboardInterrupt:
        bench.end("interrupted")
        print(f"interrupted; what was found is in {args.output}", file=sys.stderr)
        return EXIT_INTERRUPTED


class _Bench:
    """The three parts in their order; whatever one finds is written at once."""

    def __init__(
        self,
        device: torch.device,
        settings: tuple[Setting, ...],
        shapes: Sequence[Shape] | None,
        minutes: float,
        output: Path,
        console: Console,
    ) -> None:
        self._device, self._settings, self._trial = device, settings, shapes
        self._output, self._console = output, console
        self._ends_at = time.monotonic() + 60 * minutes - _AROUND
        self._started = time.monotonic()
        self._report = Report(machine())
        columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
        self.progress = Progress(*columns, console=console, transient=True)
        self._task = self.progress.add_task("", total=60 * minutes)

    def work(self, data: Path | None) -> int:
        """Do all of it; return the exit status."""
        if not self._correct():
            self.end("correctness failed")
            for failure in self._report.failures:
                print(f"error: correctness: {failure}", file=sys.stderr)
            print("nothing else was measured", file=sys.stderr)
            return EXIT_FAILED_RUNS
        self._run(data)
        self._steps()
        self.end("done")
        run = self._report.run
        failed = bool(run and run.note.startswith(FAILED)) or self._report.broken_cells()
        return EXIT_FAILED_RUNS if failed else 0

    def _correct(self) -> bool:
        report = self._report
        self._show("correctness")
        try:
            for check in correctness.checks(self._device, self._settings):
                report.checks.append(check)
                self._show(f"correctness, so far {check.where}")
                self._write()
            self._show("correctness: audit of a whole run")
            report.checks.append(correctness.audited(self._device))
        except Exception as error:  # a kernel that is refused, mostly
            reason = (str(error).strip().splitlines() or [""])[0]
            report.broken = f"cannot be checked: {type(error).__name__}: {reason}"
        if self._device.type == "cuda":
            torch.cuda.empty_cache()  # for the processes that come next
        self._write()
        self._console.print(report.table_of_checks())
        for reason in report.other_checks():
            self._console.print(reason, markup=False, highlight=False)
        return not report.failures

    def _run(self, data: Path | None) -> None:
        self._show(f"a run of {whole_run.EPOCHS} epochs")
        most = _OF_THE_RUN * (self._ends_at - time.monotonic())
        shape = self._trial[0] if self._trial else None
        self._report.run = whole_run.run(self._device, data, shape, most)
        self._write()
        self._console.print(self._report.run_in_words(), markup=False, highlight=False)

    def _steps(self) -> None:
        planned = schedule.planned(MODELS, self._trial or SHAPES, self._settings)
        self._show(f"steps: {planned[0]}")
        for number, (cell, found) in enumerate(
            schedule.measured(planned, self._device, self._ends_at), 1
        ):
            self._report.cells[cell] = found
            self._write()
            if cell not in self._report.not_measured:
                self._console.print(f"{cell}: {in_short(found)}", markup=False, highlight=False)
            if number < len(planned):
                self._show(f"steps: {planned[number]}")

    def _show(self, doing: str) -> None:
        done = time.monotonic() - self._started
        self.progress.update(self._task, description=doing, completed=done)

    def _write(self) -> None:
        self._report.write(self._output)

    def end(self, state: str) -> None:
        """Write and print how it ended."""
        self._report.state = state
        self._write()
        if self._report.cells:
            self._console.print(self._report.table_of_steps())
        for broken in self._report.broken_cells():
            self._console.print(broken, style="red", markup=False)
        for cell in self._report.not_measured:
            self._console.print(f"not measured, for lack of time: {cell}", style="dim")
        self._console.print(f"written to {self._output} and {markdown_of(self._output)}")


def _device(trial: Sequence[Shape] | None) -> torch.device:
    if trial:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        built = f"for CUDA {torch.version.cuda}" if torch.version.cuda else "without CUDA"
        raise UserError(
            f"--gpu: there is no NVIDIA GPU here that torch can use (torch {torch.__version__}, "
            f"built {built}); it needs one with its driver; --cpu 32:4 tries the bench without"
        )
    return torch.device("cuda", torch.cuda.current_device())


def _refuse(minutes: float, data: Path | None, output: Path) -> None:
    if not minutes > 0:
        raise UserError(f"--minutes={minutes:g}: give more than 0, such as {MINUTES:g}")
    if output.suffix == ".md" or output.is_dir():
        raise UserError(f"--output={output}: give the name of a file for JSON, such as {OUTPUT}")
    make_folder("--output", output.parent)
    if data is not None:
        config = _composed("data=chest_xray", f"data.root={data}")
        try:
            read_catalogue(config.data, Path(config.cache_dir))
        except UserError as error:
            raise UserError(
                f"--data={data}: no X-rays in Kaggle's folders there (train/, val/ and test/, each "
                "with NORMAL/ and PNEUMONIA/); leave it out, and images are made"
            ) from error


def _settings(device: torch.device, console: Console) -> tuple[Setting, ...]:
    """What can be measured here; what cannot, and why, is printed."""
    settings = settings_of(device)
    if not any(setting.compiled for setting in settings):
        return settings
    try:
        refuse_on_this_machine(_composed("trainer.compile=true"))
    except UserError as error:
        console.print(f"compiled code is left out: {error}", style="yellow", markup=False)
        return tuple(setting for setting in settings if not setting.compiled)
    return settings


def _composed(*words: str) -> Config:
    with initialize_config_dir(config_dir(), version_base="1.3"):
        return load_config(compose("config", overrides=list(words)))
