"""A config as a tree; of a sweep once for all its cells, and a line a cell with what differs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.tree import Tree

from dpmi.config.identity import cell_name
from dpmi.config.schema import Config, plain_values

_SHORT = {"mechanism": "", "data": "", "experiment": "", "beta": "β="}


class SweepTree:
    """The cells of a sweep whose jobs run in this process, one after another.

    Args:
        cells: all of them.
        overrides: of each.
    """

    def __init__(self, cells: Sequence[Config], overrides: Sequence[Sequence[str]]) -> None:
        self._cells = cells
        self._shared = set.intersection(*(set(words) for words in overrides))
        self._is_shown = False

    def show(self, config: Config, overrides: Sequence[str], console: Console) -> None:
        """Show what a job runs; before the first, what all of them do."""
        if not self._is_shown:
            console.print(_tree(_together(self._cells), "[bold]all cells[/]"))
            self._is_shown = True
        label = label_of(overrides, self._shared)
        console.print(f"[bold]{cell_name(config)}[/]  [green]{escape(label)}[/]".rstrip())


_sweep: SweepTree | None = None


def begin_sweep(cells: Sequence[Config], overrides: Sequence[Sequence[str]]) -> None:
    """Let the jobs of a sweep, which follow in this process, be shown as its cells."""
    global _sweep
    _sweep = SweepTree(cells, overrides)


def show_config(config: Config, overrides: Sequence[str], console: Console) -> None:
    """Show what a job runs: a line for a cell of this process's sweep, else the tree."""
    if _sweep is not None:
        _sweep.show(config, overrides, console)
    else:
        console.print(_tree(config_tree(config), f"[bold]{cell_name(config)}[/]"))


def label_of(overrides: Sequence[str], shared: set[str]) -> str:
    """What tells a cell from the others of its sweep, for people: ``ldp β=2``."""
    return " ".join(_short(override) for override in overrides if override not in shared)


def _short(override: str) -> str:
    key, _, value = override.partition("=")
    return f"{_SHORT.get(key, key.split('.')[-1] + '=')}{value}"


def config_tree(config: Config) -> dict[str, Any]:
    """Plain values of a config, sections last."""
    return _sections_last(plain_values(config))


def _sections_last(values: Mapping[str, Any]) -> dict[str, Any]:
    return dict(sorted(values.items(), key=lambda item: isinstance(item[1], dict)))


def _together(cells: Sequence[Config]) -> dict[str, Any]:
    """One tree for all: of a key that not all have alike, each of its values."""
    return _merged([config_tree(cell) for cell in cells])


def _merged(trees: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for key in dict.fromkeys(key for tree in trees for key in tree):
        values = [tree[key] for tree in trees if key in tree]
        if sections := [value for value in values if isinstance(value, dict)]:
            merged[key] = _merged(sections)
        else:
            merged[key] = ", ".join(dict.fromkeys(str(value) for value in values))
    return merged


def _tree(values: Mapping[str, Any], title: str) -> Tree:
    tree = Tree(title, guide_style="dim")
    for key, value in values.items():
        if isinstance(value, dict):
            tree.add(_tree(value, f"[cyan]{key}[/]"))
        else:
            tree.add(f"{key} = [green]{escape(str(value))}[/]")
    return tree
