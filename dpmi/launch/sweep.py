"""Around the jobs: every cell is checked before the first runs, the table ends a sweep."""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from hydra import compose
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict
from rich.console import Console

from dpmi.base.errors import EXIT_BAD_INPUT, EXIT_FAILED_RUNS, UserError
from dpmi.base.loading import loading
from dpmi.base.places import from_home
from dpmi.config.extras import require_extras
from dpmi.config.identity import job_folder, without_noise_seed
from dpmi.config.mistakes import explain
from dpmi.config.schema import GIVEN, Config, load_config
from dpmi.run.before import refuse_on_this_machine, refuse_unwritable
from dpmi.run.screen.config_tree import begin_sweep

# Hydra imports its own plugins anew when it looks for plugins, once: a class derived from one that
# was imported before would have a base that its super() does not know.
Plugins.instance()

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper  # noqa: E402

SEARCH = "dpmi.search.sweeper.OptunaSearch"
BASIC_LAUNCHER = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"
# Nodes of a cluster are other machines; what they lack their jobs tell.
_ON_THIS_MACHINE = (BASIC_LAUNCHER, "dpmi.launch.local_pool.LocalPoolLauncher")


class SweepCallback(Callback):
    """Hydra's callback around a run or a multirun."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Refuse a config that fails the schema, before anything is written."""
        (run,) = _check([config])
        if config.hydra.launcher._target_ != BASIC_LAUNCHER:
            chosen = config.hydra.runtime.choices["hydra/launcher"]
            _refuse(UserError(f"hydra/launcher={chosen}: launches the jobs of a sweep; add -m"))
        if _searches(config):
            _refuse(UserError("hydra/sweeper=optuna: chooses the jobs of a sweep; add -m"))
        check_here(config, [run])

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Refuse a sweep of which one cell fails the schema, before the first cell runs."""
        if _searches(config):  # which checks what it will choose from itself
            return
        name = kwargs.get("config_name") or "config"
        given: Any = OmegaConf.to_container(config.hydra.overrides.task, resolve=False)
        overrides = _combinations([str(override) for override in given])
        cells = _check(_composed(str(name), overrides))
        seeds = {cell.noise_seed for cell in cells if cell.noise_seed is not None}
        if len(seeds) > 1:
            _refuse(
                UserError(
                    f"noise_seed={','.join(map(str, sorted(seeds)))}: runs "
                    "that differ in it would share their names; give a sweep one value (its cells "
                    "share no noise), and each of several sweeps an output_dir of its own"
                )
            )
        check_here(config, cells)
        fix_folder(config)
        show_as_cells(config, cells, overrides)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Print and write the table of the sweep's records; exit with 1 if a run failed."""
        if _searches(config):  # which has printed what it found
            return
        with loading():  # not for --help
            from dpmi.reporting.sweep_report import report_sweep

        failed = report_sweep(Path(config.hydra.sweep.dir), Console())
        if failed:
            sys.exit(EXIT_FAILED_RUNS)


def _combinations(overrides: list[str]) -> list[list[str]]:
    """Every combination that the overrides ask for."""
    parsed = OverridesParser.create().parse_overrides(overrides)
    batches = BasicSweeper.split_arguments(parsed, max_batch_size=None)
    return [list(job) for batch in batches for job in batch]


def _composed(config_name: str, combinations: list[list[str]]) -> Iterator[DictConfig]:
    for job in combinations:
        yield compose(config_name, overrides=job, return_hydra_config=False)


def show_as_cells(
    config: DictConfig, cells: Sequence[Config], overrides: Sequence[Sequence[str]]
) -> None:
    """Show the tree of the cells once, where their jobs will run in this process."""
    if config.hydra.launcher._target_ == BASIC_LAUNCHER:
        begin_sweep(cells, overrides)


def check_here(config: DictConfig, cells: Iterable[Config]) -> None:
    """End the program where this machine cannot run a cell that it is to run, or cannot write."""
    try:
        if config.hydra.launcher._target_ in _ON_THIS_MACHINE:
            for cell in cells:
                refuse_on_this_machine(cell)
        refuse_unwritable("cache_dir", Path(from_home(config.cache_dir)))
        refuse_unwritable("output_dir", Path(from_home(config.output_dir)))
    except UserError as error:
        _refuse(error)


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
        shown = copy.deepcopy(config)
        with open_dict(shown):
            if shown.noise_seed is not None:
                shown.noise_seed = GIVEN
            shown.hydra.job.override_dirname = ""  # holds them, too
            shown.hydra.overrides.task = [without_noise_seed(o) for o in shown.hydra.overrides.task]
        self.config = shown

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
        configs = [load_config(config) for config in composed]
        for config in configs:
            require_extras(config)
        return configs
    except (UserError, HydraException) as error:
        _refuse(error)


def _refuse(error: Exception) -> NoReturn:
    print(f"error: {explain(error)}", file=sys.stderr)
    sys.exit(EXIT_BAD_INPUT)
