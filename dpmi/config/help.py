"""The keys of a config as ``--help`` prints them, each with its comment in ``conf/``."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

_WIDEST = 100  # characters of a line
_INDENT = " " * 4


def keys_help(composed: DictConfig) -> str:
    """Every key of a composed config, its value and what it means, for a terminal.

    Args:
        composed: with the node ``hydra``, which says which options were chosen and where the
            files of the config lie.
    """
    own = OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "hydra"])
    meanings = _meanings(composed)
    width = min(_WIDEST, shutil.get_terminal_size().columns)
    lines: list[str] = []
    section = None
    for key, value in _keys(OmegaConf.to_container(own, resolve=False)):
        if key.endswith(".name") and key not in meanings:
            continue  # the option's, which is chosen by its group
        if key.partition(".")[0] != section and "." in key:
            lines.append("")
        section = key.partition(".")[0]
        lines.append(f"{key}={_shown(value)}")
        lines += textwrap.wrap(
            meanings.get(key, ""), width, initial_indent=_INDENT, subsequent_indent=_INDENT
        )
    # Hydra fills in what stands behind a dollar sign.
    return "\n".join(lines).replace("$", "$$")


def _keys(node: Any, above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, dict) and value:
            yield from _keys(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def _shown(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{','.join(map(str, value))}]"
    return str(value)


def _meanings(composed: DictConfig) -> dict[str, str]:
    """Dotted key to its comment, in the files that the config was composed from."""
    sources = composed.hydra.runtime.config_sources
    folders = [Path(source.path) for source in sources if source.schema == "file"]
    found = _comments(folders, "", "config", "")
    for group, option in composed.hydra.runtime.choices.items():
        if group in composed:
            found |= _comments(folders, f"{group}/", str(option), f"{group}.")
    return found


def _comments(folders: list[Path], group: str, option: str, above: str) -> dict[str, str]:
    """Comments of an option's file over those of the options that its defaults list names."""
    files = [folder / f"{group}{option}.yaml" for folder in folders]
    text = next((file.read_text("utf-8") for file in files if file.is_file()), "")
    found: dict[str, str] = {}
    for inherited in (yaml.safe_load(text) or {}).get("defaults", []) if group else []:
        if isinstance(inherited, str) and inherited != "_self_":
            found |= _comments(folders, group, inherited, above)
    node = yaml.compose(text, yaml.SafeLoader)
    return found | dict(_of_node(node, text.splitlines(), above) if node else ())


def _of_node(node: yaml.MappingNode, lines: list[str], above: str) -> Iterator[tuple[str, str]]:
    for key, value in node.value:
        name = f"{above}{key.value}"
        if isinstance(value, yaml.MappingNode):
            yield from _of_node(value, lines, f"{name}.")
            continue
        one_line = value.start_mark.line == value.end_mark.line
        end = value.end_mark if one_line else key.end_mark
        _, mark, comment = lines[end.line][end.column :].partition(" # ")
        if mark:
            yield name, comment.strip()
