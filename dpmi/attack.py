"""Attack runs, and measure what an attacker learns.

    python -m dpmi.attack membership FOLDER ...      # who was a training image? (LiRA)
    python -m dpmi.attack linkage FOLDER ...         # whose X-ray is this noised image?
    python -m dpmi.attack reconstruction FOLDER ...  # what does it look like without the noise?
    python -m dpmi.attack linkage mechanism=ldp beta=1 mechanism.pool=1

Only the config of a run is needed: the run is repeated by its own mechanism, with noise that is
thrown away. Instead of folders, KEY=VALUE as for dpmi.train describe a run, which need not exist.
Results are written to attacks.json and figures in the run's folder. Both are private: they are
computed on the training images, and no ε covers them.

Exit status: 0 done, 1 an attack failed, 2 bad input, 130 interrupted.
"""

from __future__ import annotations

import argparse
import sys

from dpmi.base.errors import EXIT_FAILED_RUNS, status_of
from dpmi.base.loading import loading
from dpmi.base.threads import let_idle_threads_sleep

ATTACKS = ("membership", "linkage", "reconstruction")


def _at_least(least: int) -> type[int]:
    """What argparse makes an argument by: a whole number, not too small."""

    class Count(int):
        def __new__(cls, text: str) -> Count:
            value = int.__new__(cls, text)
            if value < least:
                raise argparse.ArgumentTypeError(f"{text}: allowed is {least} or more")
            return value

    Count.__name__ = "whole number"
    return Count


def main(arguments: list[str] | None = None) -> int:
    """Attack what the command line names; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m dpmi.attack", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("attack", choices=ATTACKS)
    parser.add_argument(
        "runs", nargs="+", metavar="RUN",
        help="a job, a sweep, or a folder of them; or KEY=VALUE ... of one run",
    )  # fmt: skip
    parser.add_argument(
        "--models", type=_at_least(16), metavar="N",
        help="membership: shadow models (default: 128, of whole networks 32)",
    )  # fmt: skip
    parser.add_argument(
        "--images", type=_at_least(1), metavar="N",
        help="linkage: images that are looked for (default: 200; of one-bit answers all); "
        "reconstruction: images that are denoised (default: 16)",
    )  # fmt: skip
    parser.add_argument(
        "--seed", type=_at_least(0), default=0, metavar="N",
        help="of the attacker's coins and draws, not of any noise (default: 0)",
    )  # fmt: skip
    args = parser.parse_args(arguments)
    let_idle_threads_sleep()
    with loading():  # not for --help
        from dpmi.attacking.command import attack
        from dpmi.reporting.attacks import save_figures

    count = args.models if args.attack == "membership" else args.images

    def work() -> int:
        failed = attack(args.attack, args.runs, count, args.seed, save_figures)
        return EXIT_FAILED_RUNS if failed else 0

    return status_of(work)


if __name__ == "__main__":
    sys.exit(main())
