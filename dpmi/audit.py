"""Attack runs, and bound their ε from below.

    python -m dpmi.audit                  # the run of the default config
    python -m dpmi.audit FOLDER ...       # the runs that lie there, by their own configs
    python -m dpmi.audit FOLDER --seconds 300

Each run is repeated as a whole, with the auditor's images instead of its own: canaries, each of
which a fair coin includes or leaves out. The coins are guessed from what the run releases. If more
guesses are right than the claimed ε allows, the claim is refuted: exit status 1. The result is
written into the run's record, "audited: ε ≥ x (95 %)", for the tables and the report.

Exit status: 0 done, 1 a claim is refuted or a run failed, 2 bad input, 130 interrupted.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from dpmi.base.errors import EXIT_FAILED_RUNS, status_of
from dpmi.base.loading import loading
from dpmi.base.threads import let_idle_threads_sleep

SECONDS = 60.0


def main(arguments: list[str] | None = None) -> int:
    """Audit what the command line names; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m dpmi.audit", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "folders", nargs="*", type=Path, metavar="FOLDER",
        help="a job, a sweep, or a folder of them (default: none; the default config is run)",
    )  # fmt: skip
    parser.add_argument(
        "--seconds", type=float, default=SECONDS, metavar="N",
        help=f"for each run; more give a tighter bound (default: {SECONDS:g})",
    )  # fmt: skip
    args = parser.parse_args(arguments)
    let_idle_threads_sleep()
    with loading():  # not for --help
        from dpmi.auditing.command import audit_default, audit_folders

    def work() -> int:
        found = (
            audit_folders(args.folders, args.seconds)
            if args.folders
            else [audit_default(args.seconds)]
        )
        return EXIT_FAILED_RUNS if any(one is None or one.refuted for one in found) else 0

    return status_of(work)


if __name__ == "__main__":
    sys.exit(main())
