"""Measure on this machine what a private training step costs compared with a plain one.

    python -m dpmi.bench
    python -m dpmi.bench --rounds 15 --sizes 64:64 224:32
    python -m dpmi.bench --methods fast --precision bf16-mixed --channels-last --compile
    python -m dpmi.bench --model resnet50 --sizes 64:8
    python -m dpmi.bench --parts operations data noise start
    python -m dpmi.bench --record docs/bench.json   # the fast engine's ratios on this machine
    python -m dpmi.bench --check docs/bench.json    # have they moved by more than their noise?
    python -m dpmi.bench --gpu                      # a GPU, in 8 minutes; see --gpu --help

Trains the same network on the same batch in turn: without privacy, with the fast engine, with
Opacus' hooks, with Opacus' ghost clipping. Times are medians over rounds in which the methods
alternate, ratios medians of the rounds' ratios. Memory is the peak of a process of the method's
own, less what it held before. Other parts: operations counted, preparing and serving images, the
noise of both mechanisms, the start of a run. Prints tables and writes outputs/bench.json. Exit
status: 0 done, 1 --check found a ratio that is worse, 2 bad input.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.progress import Progress, track
from rich.table import Table

from dpmi.base.errors import EXIT_BAD_INPUT, UserError
from dpmi.base.threads import let_idle_threads_sleep

let_idle_threads_sleep()  # as training does; before torch comes

from dpmi.backbones import names  # noqa: E402
from dpmi.benchmarks import feed, guard  # noqa: E402
from dpmi.benchmarks.step import METHODS, Options, Row, Shape, machine, measure  # noqa: E402

OUTPUT = Path("outputs") / "bench.json"
PARTS = ("step", "operations", "data", "noise", "start")
SHAPES = ("64:64", "128:32", "224:32")


def main() -> int:
    """Measure, print, write; return the exit status."""
    if "--gpu" in sys.argv[1:]:
        from dpmi.benchmarks.gpu import command  # imports Lightning, which nothing else here needs

        return command.main(sys.argv[1:], _shape)
    parser = argparse.ArgumentParser(
        prog="python -m dpmi.bench",
        description=(__doc__ or "").split("\n\n")[0],
        allow_abbrev=False,  # of --gpu
    )
    parser.add_argument(
        "--gpu", action="store_true", help="measure a GPU, with options of its own: --gpu --help"
    )
    parser.add_argument("--rounds", type=int, default=7, help="rounds, after one to warm up")
    parser.add_argument(
        "--sizes",
        nargs="+",
        default=SHAPES,
        metavar="PIXELS:BATCH",
        type=_shape,
        help="what to measure",
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=("step",), help="what of it")
    parser.add_argument("--precision", choices=("32-true", "bf16-mixed"), default="32-true")
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--compile", action="store_true", help="the plain and the fast step")
    parser.add_argument("--norm", choices=("group", "frozen_batch"), default="group")
    parser.add_argument("--model", choices=names(), default="resnet18", help="the network")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    guard_of = parser.add_mutually_exclusive_group()
    guard_of.add_argument("--record", type=Path, metavar="FILE", help="keep ratios for --check")
    guard_of.add_argument("--check", type=Path, metavar="FILE", help="compare with those kept")
    parser.add_argument(
        "--processes", type=int, default=guard.PROCESSES, help="of --record and --check"
    )
    arguments = parser.parse_args()
    shapes = [_shape(s) if isinstance(s, str) else s for s in arguments.sizes]
    console = Console()
    if arguments.record or arguments.check:
        return _guard(arguments.record, arguments.check, shapes, arguments.processes, console)
    options = Options(
        norm=arguments.norm,
        model=arguments.model,
        precision=arguments.precision,
        channels_last=arguments.channels_last,
        compiled=arguments.compile,
    )
    rows: list[Row] = []
    if "step" in arguments.parts:
        for shape in track(shapes, "measuring", console=console, transient=True):
            rows += measure(shape, options, arguments.rounds, tuple(arguments.methods))
        console.print(_table(rows, options.model))
    figures: list[feed.Figure] = []
    if "operations" in arguments.parts:
        figures += [feed.operations(shape) for shape in shapes]
    for part in (feed.data, feed.noise, feed.start):
        if part.__name__ in arguments.parts:
            figures += part(arguments.rounds)
    if figures:
        console.print(_table_of_figures(figures))
    about = machine() | asdict(options) | {"rounds": arguments.rounds}
    console.print(", ".join(f"{key} {value}" for key, value in about.items()), style="dim")
    OUTPUT.parent.mkdir(exist_ok=True)
    results = {
        "machine": about,
        "rows": [vars(row) for row in rows],
        "figures": [vars(figure) for figure in figures],
    }
    OUTPUT.write_text(json.dumps(results, indent=1))
    console.print(f"written to {OUTPUT}")
    return 0


def _guard(
    record: Path | None,
    check: Path | None,
    shapes: list[Shape],
    processes: int,
    console: Console,
) -> int:
    try:
        if processes < 2:
            raise UserError(f"--processes={processes}: one has no noise to be seen; 2 at least")
        then = guard.of_this_machine(check) if check else None
        with Progress(console=console, transient=True) as progress:
            task = progress.add_task("measuring", total=len(shapes) * processes)
            now = guard.measured(shapes, processes, guard.ROUNDS, lambda: progress.advance(task))
        if record:
            guard.write(record, now)
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    if record or then is None:
        console.print(f"{now.processor}: written to {record}", markup=False)
        return 0
    found = guard.compared(then, now)
    console.print(_table_of_comparisons(found, now.processor))
    return int(any(one.worse for one in found))


def _table_of_comparisons(found: list[guard.Comparison], processor: str) -> Table:
    table = Table(title=f"fast engine to plain step, {processor}")
    for title in ("image", "batch", "ratio of", "recorded", "now", "moved"):
        table.add_column(title, justify="left" if title in ("ratio of", "moved") else "right")
    for one in found:
        verdict = ("[red]worse[/]" if one.worse else "[green]better[/]") if one.moved else "no"
        table.add_row(
            f"{one.image_size} px", str(one.batch_size), one.what, f"{one.then:.3f}",
            f"{one.now:.3f}", f"{verdict} (p = {one.p_value:.2g})",
        )  # fmt: skip
    return table


def _shape(text: str) -> Shape:
    try:
        image_size, batch_size = (int(part) for part in text.split(":"))
        return Shape(image_size, batch_size)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: give PIXELS:BATCH, such as 64:64") from error


def _table(rows: list[Row], model: str) -> Table:
    table = Table(title=f"one training step of {model}")
    for title in ("image", "batch", "method", "images/s", "of plain speed", "peak MB", "of plain"):
        table.add_column(title, justify="left" if title == "method" else "right")
    last = None
    for row in rows:
        if last not in (None, row.image_size):
            table.add_section()
        last = row.image_size
        table.add_row(
            f"{row.image_size} px", str(row.batch_size), row.method,
            f"{row.images_per_second:.1f}", f"{row.speed_ratio:.2f}",
            f"{row.peak_mb:.0f}", f"{row.memory_ratio:.2f}",
        )  # fmt: skip
    return table


def _table_of_figures(figures: list[feed.Figure]) -> Table:
    table = Table(title="around the step")
    for title in ("what", "measured", "ratio", "to"):
        table.add_column(title, justify="right" if title in ("measured", "ratio") else "left")
    for figure in figures:
        ratio = "" if figure.ratio is None else f"{figure.ratio:.3g}"
        measured = f"{figure.value:.4g} {figure.unit}"
        table.add_row(figure.what, measured, ratio, figure.beside or "")
    return table


if __name__ == "__main__":
    sys.exit(main())
