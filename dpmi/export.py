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

import argparse
import sys
from pathlib import Path

from dpmi.base.errors import EXIT_BAD_INPUT, EXIT_INTERRUPTED, UserError
from dpmi.base.loading import loading
from dpmi.base.threads import let_idle_threads_sleep


def main(arguments: list[str] | None = None) -> int:
    """Write what the command line asks for; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m dpmi.export", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("run", type=Path, metavar="RUN", help="the folder of a run")
    parser.add_argument("--format", choices=("onnx", "torch"), default="onnx", dest="kind")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="where to (default: the run's folder)"
    )
    parser.add_argument(
        "--backbone", type=Path, metavar="FILE",
        help="of a head: the network that it reads, where it is not found by itself",
    )  # fmt: skip
    asked = parser.parse_args(arguments)
    let_idle_threads_sleep()
    with loading():  # not for --help
        from dpmi.using.exporting import export

    try:
        for path in export(asked.run, asked.kind, asked.output, asked.backbone):
            print(path)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main())
