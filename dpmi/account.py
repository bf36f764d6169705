"""Show what all runs have spent on each set of training images.

    python -m dpmi.account               # in the cache that runs use: DPMI_CACHE, or ~/.cache/dpmi
    python -m dpmi.account --cache DIR   # in another (cache_dir=DIR)

Sets that share images are named, and their totals include each other's entries.
Exit status: 0 shown, 2 there is no account, or one is damaged.
"""

from __future__ import annotations

import argparse
import sys
from functools import cache
from pathlib import Path

from rich.console import Console
from rich.table import Table

from dpmi.base.errors import EXIT_BAD_INPUT, UserError
from dpmi.base.loading import loading
from dpmi.base.places import cache_folder


def main(arguments: list[str] | None = None) -> int:
    """Show what the command line asks for; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m dpmi.account", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "--cache", type=Path, metavar="DIR", help="the runs' cache_dir (default: DPMI_CACHE)"
    )
    args = parser.parse_args(arguments)
    try:
        _show(cache_folder(args.cache), Console())
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    return 0


def _show(cache_dir: Path, console: Console) -> None:
    with loading():  # not for --help
        from dpmi.privacy.account import FOLDER, Accounts, total_of
        from dpmi.privacy.spending import RESERVED, Spending
        from dpmi.privacy.total import total

    @cache
    def summary(spending: Spending) -> str:
        return str(total([spending]))

    accounts = Accounts(cache_dir).read()
    if not accounts:
        raise UserError(f"{cache_dir / FOLDER}: no account there; runs make one in their cache_dir")
    damaged = []
    for account in accounts:
        images = account.images
        others = [a for a in accounts if a is not account and (not images or a.overlaps(images))]
        size = f"{len(images)} training images" if images else "its images cannot be read"
        table = Table(title=f"account {account.id}: {size}", show_edge=False, title_justify="left")
        for column in ("at (UTC)", "run", "status", "spent"):
            table.add_column(column, overflow="fold")
        for entry in account.entries.values():
            spent = summary(entry.spending)
            at_most = "at most " if entry.status == RESERVED else ""
            when = entry.at.removesuffix("+00:00").replace("T", " ")
            table.add_row(when, entry.spending.run, entry.status, at_most + spent)
        console.print(table)
        if others:
            shared = ", ".join(other.id for other in others)
            console.print(f"shares images with {shared}", markup=False)
        try:
            whole = str(total_of([account, *others]))
        except UserError as error:
            damaged.append(error)
            continue
        console.print(f"[bold]all together:[/] {whole}\n")
    if damaged:
        raise damaged[0]


if __name__ == "__main__":
    sys.exit(main())
