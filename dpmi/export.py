"""Write the trained model of a run as one graph for other programs: ONNX or torch.export.

    python -m dpmi.export RUN                       # RUN/model.onnx (pip install 'dpmi[onnx]')
    python -m dpmi.export RUN --format torch        # RUN/model.pt2
    python -m dpmi.export RUN --output PATH.onnx    # and PATH.public.json beside it

The graph takes any number of uint8 images, decoded and resized to the run's size, and gives the
probability of each class, under the run's decision rule; scaling, normalisation, gray to three
channels, and the blocks of local DP are inside. A head's public network is, too. Before a graph is
kept its probabilities are compared with the model's on drawn images.
Exit status: 0 written, 2 the input is bad, 130 interrupted.
"""

from __future__ import annotations

import sys
from pathlib import Path

from dpmi.base.errors import status_of
from dpmi.base.loading import loading
from dpmi.base.threads import let_idle_threads_sleep
from dpmi.using.parser import run_parser


def main(arguments: list[str] | None = None) -> int:
    """Write what the command line asks for; return the exit status."""
    parser = run_parser("export", __doc__)
    parser.add_argument("--format", choices=("onnx", "torch"), default="onnx", dest="kind")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="where to (default: the run's folder)"
    )
    args = parser.parse_args(arguments)
    let_idle_threads_sleep()
    with loading():  # not for --help
        from dpmi.using.exporting import export

    def work() -> int:
        for path in export(args.run, args.kind, args.output, args.backbone):
            print(path)
        return 0

    return status_of(work)


if __name__ == "__main__":
    sys.exit(main())
