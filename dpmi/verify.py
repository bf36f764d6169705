"""Check a card and its weights: recompute what can be recomputed.

    python -m dpmi.verify CARD WEIGHTS   # card.html, card.md or card.json; model.safetensors

ε is recomputed from the ledger by two independent accountants, Opacus' PRV and dp-accounting's
PLD; digests, plan, bounds on an attacker, audit, intervals and the pages are compared. A table
shows which checks passed, failed, or could not be made, and a list what no check can find out.
Exit status: 0 all that can be checked holds, 1 something does not, 2 bad input.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from dpmi.base.errors import EXIT_BAD_INPUT, UserError
from dpmi.base.loading import loading

EXIT_DOES_NOT_HOLD = 1
_STYLES = {"passed": "green", "failed": "bold red", "cannot be checked": "yellow"}


def main(arguments: list[str] | None = None) -> int:
    """Check what the command line names; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m dpmi.verify", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("card", type=Path, metavar="CARD", help="card.html, card.md or card.json")
    parser.add_argument("weights", type=Path, metavar="WEIGHTS", help="model.safetensors")
    args = parser.parse_args(arguments)
    warnings.filterwarnings("ignore", module="opacus")  # of a logarithm of zero, at a rate of 1
    with loading():  # not for --help
        from dpmi.cards.checks import verify
        from dpmi.cards.sections import CANNOT

    try:
        found = verify(args.card, args.weights)
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    console = Console()
    table = Table(title=_text(found.card.record.run), show_edge=False, title_justify="left")
    for column in ("check", "", "found"):
        table.add_column(column, overflow="fold")
    for check in found.checks:
        status = _text(check.status, _STYLES[check.status])
        table.add_row(_text(check.name), status, _text(check.detail))
    console.print(table)
    console.print("\nIt cannot be verified:")
    for line in CANNOT:
        console.print(f"- {line}", markup=False, highlight=False)
    broken = [check.name for check in found.checks if check.status == "failed"]
    open_ = sum(check.status == "cannot be checked" for check in found.checks)
    beside = f" (not checked: {open_}, as said above)" if open_ else ""
    console.print()
    if broken:
        console.print(_text(f"does not hold: {'; '.join(broken)}{beside}", _STYLES["failed"]))
        return EXIT_DOES_NOT_HOLD
    console.print(_text(f"all that can be checked holds{beside}", _STYLES["passed"]))
    return 0


def _text(words: str, style: str = "") -> Text:
    """Words of a card, which may be anybody's: no markup, and nothing that moves the cursor."""
    return Text("".join(sign if sign.isprintable() else "\ufffd" for sign in words), style)


if __name__ == "__main__":
    sys.exit(main())
