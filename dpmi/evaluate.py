"""Measure the trained model of a run on labelled images: its own test images, or others'.

    python -m dpmi.evaluate RUN                                    # as the run itself did
    python -m dpmi.evaluate RUN data=folder data.root=PATH         # another hospital's
    python -m dpmi.evaluate RUN data=csv data.root=PATH data.csv=images.csv 'data.groups=[sex]'

Classes are matched by name. Images are prepared as test images were in the run: size, resize and
colour are the run's. Of a data set with splits the test images are taken, of one without all. All
metrics of the report, with intervals over patients where these are known, go to
evaluation-DATA-DIGEST.json beside the run, or to --output.

No ε of the training images is spent. The figures are statistics of the images they are of, which
no guarantee covers: the file is private, and stays where the images are.
Exit status: 0 done, 2 the input is bad, 130 interrupted.
"""

from __future__ import annotations

import logging
import sys
import warnings
from pathlib import Path

from rich.console import Console

from dpmi.base.errors import status_of
from dpmi.base.loading import loading
from dpmi.base.threads import let_idle_threads_sleep
from dpmi.using.parser import run_parser


def main(arguments: list[str] | None = None) -> int:
    """Evaluate what the command line names; return the exit status."""
    parser = run_parser("evaluate", __doc__)
    parser.add_argument("words", nargs="*", metavar="KEY=VALUE", help="data=..., data.root=...")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="where to (default: beside the run)"
    )
    args = parser.parse_intermixed_args(arguments)
    let_idle_threads_sleep()
    with loading():  # not for --help
        from dpmi.using.evaluating import evaluate
        from dpmi.using.showing import show

    warnings.simplefilter("ignore")  # what libraries advise is no matter of who evaluates
    # Libraries may have set it up in their own way while they were imported.
    logging.basicConfig(format="%(message)s", level=logging.WARNING, force=True)

    def work() -> int:
        found, path = evaluate(
            args.run, args.words, args.output, args.backbone, Console(stderr=True)
        )
        show(found, path, Console())
        return 0

    return status_of(work)


if __name__ == "__main__":
    sys.exit(main())
