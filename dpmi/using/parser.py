"""What the commands on a trained model share of their command lines."""

from __future__ import annotations

import argparse
from pathlib import Path


def run_parser(command: str, description: str | None) -> argparse.ArgumentParser:
    """A parser of RUN and ``--backbone``, for ``python -m dpmi.COMMAND``."""
    parser = argparse.ArgumentParser(prog=f"python -m dpmi.{command}", description=description)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("run", type=Path, metavar="RUN", help="the folder of a run")
    parser.add_argument(
        "--backbone", type=Path, metavar="FILE",
        help="of a head: the network that it reads, where it is not found by itself",
    )  # fmt: skip
    return parser
