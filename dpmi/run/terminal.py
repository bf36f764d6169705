"""What a run shows: its config as a tree, what it skipped, how it ended."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.tree import Tree

from dpmi.config import Config, cell_name, config_digest
from dpmi.models.names import TRAIN_METRICS
from dpmi.run.job import Run
from dpmi.run.record import RECORD_FILE, RunRecord, read_record


def run_job(config: Config, folder: Path) -> str:
    """Run one job in ``folder``, unless the very same one is done there; return its status."""
    console = Console()
    done = _completed(folder, config)
    if done:
        console.print(f"[bold]{done.run}[/] is done in {escape(str(folder))}, not run again")
        return done.status
    console.print(_tree(config_tree(config), f"[bold]{cell_name(config)}[/]"))
    record = Run(config, folder, console).execute()
    _tell(record, folder, console)
    return record.status


def _completed(folder: Path, config: Config) -> RunRecord | None:
    """Record of the same run, completed. A sweep over β meets the original once for each β."""
    path = folder / RECORD_FILE
    if not path.is_file():
        return None
    record = read_record(path)
    same = record.status == "completed" and record.config_digest == config_digest(config)
    return record if same else None


def config_tree(config: Config) -> dict[str, Any]:
    """Plain values of a config, sections last."""
    values = config.model_dump(mode="json")
    return dict(sorted(values.items(), key=lambda item: isinstance(item[1], dict)))


def _tree(values: dict[str, Any], title: str) -> Tree:
    tree = Tree(title, guide_style="dim")
    for key, value in values.items():
        if isinstance(value, dict):
            tree.add(_tree(value, f"[cyan]{key}[/]"))
        else:
            tree.add(f"{key} = [green]{escape(str(value))}[/]")
    return tree


def _tell(record: RunRecord, folder: Path, console: Console) -> None:
    if record.status != "completed":
        console.print(f"{record.run} {record.status}: {record.reason}", style="red", markup=False)
        return
    test, train = (record.metrics[name] for name in ("test/accuracy", f"{TRAIN_METRICS}/accuracy"))
    console.print(
        f"[bold]{record.run}[/]  test accuracy {test:.1%}, train accuracy {train:.1%} (not "
        f"private); {record.guarantee}; {record.timings['total']:.0f} s; "
        f"{escape(str(folder / RECORD_FILE))}"
    )
