"""Make the W&B dashboard of a project: trade-off, curves, ε over steps, images, the table.

    python -m dpmi.dashboard --entity TEAM --project dpmi
    python -m dpmi.dashboard --entity TEAM --project dpmi --apply dashboard.json

With no credentials, or no server in reach, it writes the specification to a file instead (--out),
and says how to apply it later. Exit status: 0 saved or written, 2 the input is bad.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from dpmi.base.errors import UserError
from dpmi.base.redaction import redacted
from dpmi.run.logs.wandb_tracker import has_credentials, server_in_reach

DEFAULT_FILE = Path("dashboard.json")
EXIT_BAD_INPUT = 2


def main(arguments: list[str] | None = None) -> int:
    """Do what the command line asks for; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m dpmi.dashboard", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--entity", default=None, help="W&B team or user (default: the account's)")
    parser.add_argument("--project", default="dpmi", help="W&B project (default: dpmi)")
    parser.add_argument("--apply", type=Path, metavar="FILE", help="apply a written specification")
    parser.add_argument(
        "--out", type=Path, default=DEFAULT_FILE, metavar="FILE",
        help=f"where to write it if it cannot be saved (default: {DEFAULT_FILE})",
    )  # fmt: skip
    args = parser.parse_args(arguments)
    from dpmi.reporting.workspace import dashboard, read_dashboard, to_workspace

    try:
        spec = read_dashboard(args.apply) if args.apply else dashboard()
        _needs_workspaces()
        if not has_credentials():
            why = "no W&B credentials here"
        elif not server_in_reach():
            why = "the W&B server does not answer"
        else:
            try:
                workspace = to_workspace(spec, args.entity or _own_entity(), args.project)
                print(f"saved: {workspace.save().url}")
                return 0
            except Exception as error:  # whatever W&B or the network does, the work is not lost
                why = f"W&B did not take it ({type(error).__name__}: {_line(error)})"
        file = args.apply or args.out
        if not args.apply:
            file.write_text(spec.model_dump_json(indent=2) + "\n", encoding="utf-8")
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    entity = f" --entity {args.entity}" if args.entity else ""
    print(
        f"{why}; the dashboard is in {file}. Later, where `wandb login` was done:\n"
        f"  python -m dpmi.dashboard{entity} --project {args.project} --apply {file}"
    )
    return 0


def _needs_workspaces() -> None:
    try:
        import wandb_workspaces  # noqa: F401
    except ImportError as error:
        raise UserError(
            "the dashboard needs the package wandb-workspaces: pip install 'dpmi[dashboard]'"
        ) from error


def _own_entity() -> str:
    import wandb

    entity = wandb.Api().default_entity
    if not entity:
        raise UserError("the W&B account has no default entity; give --entity")
    return str(entity)


def _line(error: Exception) -> str:
    return redacted(" ".join(str(error).split()))[:200]


if __name__ == "__main__":
    sys.exit(main())
