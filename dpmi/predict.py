"""Show images to the trained model of a run, and write what it says of each.

    python -m dpmi.predict RUN PATH ...                    # CSV to standard output
    python -m dpmi.predict RUN images/ more.csv --output predictions.csv

PATH is an image, a folder of images (at any depth), or a CSV file with a column path, relative to
where the file lies. A row has the path, a probability for each class, the decision, and, of an
image that cannot be read, why. Images are decoded, resized and decided on as test images were in
the run. Of a model that was trained on a GPU, one is used where there is one.

The guarantee, on standard error, is that of the training images: none covers images shown here.
Exit status: 0 done, 1 some images cannot be read, 2 the input is bad, 130 interrupted.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from dpmi.base.errors import EXIT_FAILED_RUNS, status_of
from dpmi.base.loading import loading
from dpmi.base.threads import let_idle_threads_sleep
from dpmi.using.parser import run_parser


def main(arguments: list[str] | None = None) -> int:
    """Predict what the command line names; return the exit status."""
    parser = run_parser("predict", __doc__)
    parser.add_argument("paths", nargs="+", metavar="PATH", help="images, folders, CSV files")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="where to (default: standard output)"
    )
    args = parser.parse_args(arguments)
    let_idle_threads_sleep()
    with loading():  # not for --help
        from dpmi.using.predicting import predict

    def work() -> int:
        try:
            unreadable = predict(args.run, args.paths, args.output, args.backbone)
        except BrokenPipeError:  # who reads the table has enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return EXIT_FAILED_RUNS
        return EXIT_FAILED_RUNS if unreadable else 0

    return status_of(work)


if __name__ == "__main__":
    sys.exit(main())
