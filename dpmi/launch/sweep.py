"""Around the jobs: every cell is checked before the first runs, the table ends a sweep."""

from __future__ import annotations

import copy
import re
import sys
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn

from hydra import compose
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.errors import HydraException, OverrideParseException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict
from rich.console import Console

from dpmi.base.errors import EXIT_BAD_INPUT, EXIT_FAILED_RUNS, UserError, cause_for_user
from dpmi.config.identity import job_folder, without_noise_seed
from dpmi.config.schema import GIVEN, Config, load_config, schema_keys

# Hydra imports its own plugins anew when it looks for plugins, once: a class derived from one that
# was imported before would have a base that its super() does not know.
Plugins.instance()

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper  # noqa: E402

SEARCH = "dpmi.search.sweeper.OptunaSearch"
BASIC_LAUNCHER = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"


class SweepCallback(Callback):
    """Hydra's callback around a run or a multirun."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Refuse a config that fails the schema, before anything is written."""
        _check([config])
        if config.hydra.launcher._target_ != BASIC_LAUNCHER:
            chosen = config.hydra.runtime.choices["hydra/launcher"]
            _refuse(UserError(f"hydra/launcher={chosen}: launches the jobs of a sweep; add -m"))
        if _searches(config):
            _refuse(UserError("hydra/sweeper=optuna: chooses the jobs of a sweep; add -m"))

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Refuse a sweep of which one cell fails the schema, before the first cell runs."""
        if _searches(config):  # which checks what it will choose from itself
            return
        name = kwargs.get("config_name") or "config"
        given: Any = OmegaConf.to_container(config.hydra.overrides.task, resolve=False)
        cells = _check(_cells(str(name), [str(override) for override in given]))
        seeds = {cell.noise_seed for cell in cells if cell.noise_seed is not None}
        if len(seeds) > 1:
            _refuse(
                UserError(
                    f"noise_seed={','.join(map(str, sorted(seeds)))}: runs "
                    "that differ in it would share their names; give a sweep one value (its cells "
                    "share no noise), and each of several sweeps an output_dir of its own"
                )
            )
        fix_folder(config)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Print and write the table of the sweep's records; exit with 1 if a run failed."""
        if _searches(config):  # which has printed what it found
            return
        from dpmi.reporting.sweep_report import report_sweep  # slow to import: not for --help

        failed = report_sweep(Path(config.hydra.sweep.dir), Console())
        if failed:
            sys.exit(EXIT_FAILED_RUNS)


def _cells(config_name: str, overrides: list[str]) -> Iterator[DictConfig]:
    """Compose every combination that the overrides ask for."""
    parsed = OverridesParser.create().parse_overrides(overrides)
    for batch in BasicSweeper.split_arguments(parsed, max_batch_size=None):
        for job in batch:
            yield compose(config_name, overrides=list(job), return_hydra_config=False)


def _searches(config: DictConfig) -> bool:
    return bool(config.hydra.sweeper._target_ == SEARCH)


def fix_folder(config: DictConfig) -> None:
    """Make the sweep's folder the same for all its jobs, which each have overrides of their own."""
    folder = str(config.hydra.sweep.dir)
    quoted = folder.replace("\\", "\\\\").replace("'", "\\'")
    with open_dict(config):
        config.hydra.sweep.dir = folder
        config.hydra.overrides.hydra.append(f"hydra.sweep.dir='{quoted}'")


class DistinctCells(BasicSweeper):
    """Hydra's own sweeper, which runs each cell once.

    Combinations that differ only in keys that a mechanism does not use are the same run: the
    original has no β.
    """

    def setup(self, *, config: DictConfig, **kwargs: Any) -> None:
        """Take the sweep's config, which Hydra writes to a file: without the ``noise_seed``."""
        super().setup(config=config, **kwargs)
        told = copy.deepcopy(config)
        with open_dict(told):
            if told.noise_seed is not None:
                told.noise_seed = GIVEN
            told.hydra.job.override_dirname = ""  # holds them, too
            told.hydra.overrides.task = [without_noise_seed(o) for o in told.hydra.overrides.task]
        self.config = told

    def split_arguments(  # type: ignore[override]
        self, overrides: list[Override], max_batch_size: int | None
    ) -> list[list[list[str]]]:
        """Every combination, but for those that an earlier one stands for."""
        assert self.config is not None
        name = str(self.config.hydra.job.config_name)
        distinct: dict[str, list[str]] = {}
        for batch in BasicSweeper.split_arguments(overrides, None):
            for job in batch:
                cell = compose(name, overrides=list(job), return_hydra_config=False)
                distinct.setdefault(job_folder(cell), job)
        return [list(distinct.values())]


def _check(composed: Iterable[DictConfig]) -> list[Config]:
    """Hold configs to the schema while they are composed; end the program at the first mistake."""
    try:
        return [load_config(config) for config in composed]
    except (UserError, HydraException) as error:
        _refuse(error)


def _refuse(error: Exception) -> NoReturn:
    print(f"error: {explain(error)}", file=sys.stderr)
    sys.exit(EXIT_BAD_INPUT)


def explain(error: Exception) -> str:
    """One line of what went wrong in composing or checking a config."""
    error = cause_for_user(error) or error
    line = " ".join(str(error).split()) or " ".join(str(error.__cause__).split())
    if match := re.match(r"Could not override '([^']+)'", line):
        return _unknown_key(match[1])
    if match := re.search(
        r"Could not find '([\w/]+)/(\w+)' Available options in '[\w/]+': ([\w ]+)", line
    ):
        group, option, others = match.groups()
        allowed = ", ".join(others.removesuffix(" Config search path").split())
        return f"{group}={option}: no such option; allowed are {allowed}"
    # Hydra appends where in its own structures the key was missing, which is of no use to a user.
    for tail in (" full_key:", " See https:"):
        line = line.split(tail)[0]
    if isinstance(error, OverrideParseException):
        return f"{error.override}: not KEY=VALUE as Hydra reads it ({line})"
    return line


def _unknown_key(key: str) -> str:
    for kind in ("launcher", "sweeper"):
        if key.startswith(f"hydra.{kind}."):
            return f"{key}: no such key of this {kind}; choose another with hydra/{kind}=OPTION"
    near = get_close_matches(key, schema_keys(), n=1)
    if near == [key]:
        hint = f"another option of {key.split('.')[0]} has it; "
    else:
        hint = f"did you mean {near[0]}? " if near else ""
    return f"{key}: no such key in this config; {hint}--help lists the keys, with their defaults"
