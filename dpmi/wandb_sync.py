"""Push what sweeps logged offline to W&B, several runs at once.

    python -m dpmi.wandb_sync            # all runs in outputs/
    python -m dpmi.wandb_sync SWEEP ...

What is pushed was decided when the run wrote it: for your own images no more than may leave the
house (docs/privacy.md). A run that was pushed is marked by `wandb sync` and left alone the next
time, so it is safe to repeat. Exit status: 0 all is pushed, 1 a run was not, 2 nothing was tried:
no credentials, or no server in reach.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from dpmi.run.logs.wandb_tracker import has_credentials, server_in_reach

DEFAULT_FOLDER = Path("outputs")
AT_ONCE = 8
EXIT_NOT_PUSHED, EXIT_NOT_TRIED = 1, 2


def main(arguments: list[str] | None = None) -> int:
    """Push what the command line asks for; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m dpmi.wandb_sync", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "folders", nargs="*", type=Path, default=[DEFAULT_FOLDER], metavar="FOLDER",
        help=f"a sweep, a job, or a folder of them (default: {DEFAULT_FOLDER})",
    )  # fmt: skip
    args = parser.parse_args(arguments)
    found = offline_runs(args.folders)
    left = [run for run in found if not synced(run)]
    counted = f"{len(found)} offline runs, {len(found) - len(left)} pushed before"
    if not left:
        print(f"{counted}; nothing to push")
        return 0
    if not has_credentials():
        print(f"error: {counted}, but no W&B credentials: run `wandb login` first", file=sys.stderr)
        return EXIT_NOT_TRIED
    if not server_in_reach():
        print(f"error: {counted}, but the W&B server does not answer", file=sys.stderr)
        return EXIT_NOT_TRIED
    command = [sys.executable, "-m", "wandb", "sync", "-n", str(AT_ONCE), *map(str, left)]
    with (
        tempfile.TemporaryDirectory() as logs
    ):  # else it leaves a folder `wandb` where it is called
        environment = {**os.environ, "WANDB_DIR": logs}
        # its own lines show what failed
        subprocess.run(command, stdin=subprocess.DEVNULL, env=environment, check=False)
    failed = [run for run in left if not synced(run)]
    print(f"{counted}, {len(left) - len(failed)} pushed now, {len(failed)} not")
    for run in failed:
        print(f"not pushed: {run}", file=sys.stderr)
    return EXIT_NOT_PUSHED if failed else 0


def offline_runs(folders: list[Path]) -> list[Path]:
    """Folders of offline runs below the given ones, each once."""
    found = (path for folder in folders for path in folder.rglob("offline-run-*") if path.is_dir())
    return sorted({path.resolve() for path in found})


def synced(run: Path) -> bool:
    """Whether `wandb sync` marked the run as pushed."""
    return any(run.glob("*.wandb.synced"))


if __name__ == "__main__":
    sys.exit(main())
