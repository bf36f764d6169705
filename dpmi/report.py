"""Write the report of one sweep, or of several together.

    python -m dpmi.report                     # of all runs in outputs/, into outputs/report/
    python -m dpmi.report SWEEP               # of one sweep, into SWEEP/report/
    python -m dpmi.report SWEEP OTHER -o DIR  # of two, merged, into DIR/
    python -m dpmi.report SWEEP --public      # of what may be published alone
    python -m dpmi.report SWEEP --cards       # with a card of each run that completed

It reads run records (record.json) and nothing else. They are private, so a report on your own
images must stay in the house. With --public it reads public.json alone, and writes less, into
report-public/. report.html is one self-contained page; report.md, cells.csv, runs.csv and the
charts as SVG and PNG are beside it. Cards, which others check with python -m dpmi.verify, hold only
what may leave; they are in cards/. Exit status: 0 done, 2 bad input.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.console import Console

from dpmi.base.errors import EXIT_BAD_INPUT, UserError
from dpmi.base.loading import loading

DEFAULT_FOLDER = Path("outputs")


def main(arguments: list[str] | None = None) -> int:
    """Write what the command line asks for; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m dpmi.report", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "folders", nargs="*", type=Path, metavar="FOLDER",
        help=f"a sweep, a job, or a folder of them (default: {DEFAULT_FOLDER})",
    )  # fmt: skip
    parser.add_argument(
        "-o",
        "--out",
        type=Path,
        metavar="DIR",
        help="default: report/, or report-public/, in the first FOLDER",
    )
    parser.add_argument(
        "--public", action="store_true", help="of public.json alone: the report may be published"
    )
    parser.add_argument(
        "--cards", action="store_true", help="write the card of each run that completed, too"
    )
    args = parser.parse_args(arguments)
    folders = args.folders or [DEFAULT_FOLDER]
    out = args.out or folders[0] / ("report-public" if args.public else "report")
    with loading():  # not for --help
        from dpmi.reporting.full_report import PAGE, write_report

    try:
        cards = {}
        if args.cards:
            from dpmi.cards.of_report import cards_of  # likewise

            cards = cards_of(folders, out, Console())
        runs = write_report(folders, out, public=args.public, cards=cards)
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    done = sum(run.status == "completed" for run in runs)
    Console().print(
        f"{len(runs)} runs, {done} completed: {out / PAGE}", markup=False, soft_wrap=True
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
