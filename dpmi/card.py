"""Write a card of a checkpoint: what is guaranteed, on what grounds, and how to check it.

    python -m dpmi.card RUN ...                   # card.html, card.md and card.json in each folder
    python -m dpmi.card RUN --out DIR             # of one run, into DIR/
    python -m dpmi.card RUN --with-ledger         # of your own data: let the batch size leave

It is made only from what may leave the house: public.json, model.safetensors, and the total of the
account of the training images where that is in the run's cache. Others check it with
python -m dpmi.verify. Exit status: 0 written, 2 the input is bad.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.console import Console

from dpmi.base.errors import EXIT_BAD_INPUT, UserError
from dpmi.base.loading import loading


def main(arguments: list[str] | None = None) -> int:
    """Write what the command line asks for; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m dpmi.card", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="the folder of a run")
    parser.add_argument(
        "-o", "--out", type=Path, metavar="DIR", help="of a single RUN (default: its folder)"
    )
    parser.add_argument(
        "--with-ledger",
        action="store_true",
        help="of a user's own data: plan and ledger, too, from which others can recompute ε; they "
        "reveal the batch size",
    )
    parser.add_argument(
        "--intended-use", metavar="TEXT", help="in place of the default; the limits stay"
    )
    parser.add_argument(
        "--cache", type=Path, metavar="DIR", help="the run's cache_dir, where its account is"
    )
    args = parser.parse_args(arguments)
    if args.out and len(args.runs) > 1:
        parser.error("--out takes a single RUN: the cards of several would have the same names")
    with loading():  # not for --help
        from dpmi.cards.making import Wishes, make_card
        from dpmi.cards.schema import FILES

    wishes = Wishes(args.with_ledger, args.intended_use, args.cache)
    try:
        for run in args.runs:
            out = args.out or run
            make_card(run, out, wishes)
            Console().print(str(out / FILES["html"]), markup=False, soft_wrap=True)
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    return 0


if __name__ == "__main__":
    sys.exit(main())
