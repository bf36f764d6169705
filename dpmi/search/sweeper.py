"""Hydra's sweeper of a search: batches of runs that Optuna chooses, scored from their records."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from filelock import FileLock, Timeout
from hydra import compose
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from dpmi.base.errors import EXIT_FAILED_RUNS, EXIT_RESUMABLE, UserError
from dpmi.config.data_sets import PhantomData
from dpmi.config.extras import require_extras
from dpmi.config.identity import sweep_terms
from dpmi.config.schema import Config, load_config
from dpmi.launch.jobs import Job, make_jobs
from dpmi.launch.sweep import check_here, fix_folder, show_as_cells

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

METRICS = ("val/auroc", "val/balanced_accuracy")
DRAWN = get_args(PhantomData.model_fields["name"].annotation)
# What all trials share, for their metrics are compared: else the luckiest would be the best.
_SHARED = ("seed", "data.name", "data.seed", "data.val_images")


class OptunaSearch(Sweeper):
    """Chooses runs for the highest validation metric, on drawn images alone.

    To choose among runs on private images by what they score spends privacy that no ledger counts
    (Papernot and Steinke 2022, arXiv 2110.03620).

    Args:
        n_trials: in all.
        n_jobs: trials that are chosen and launched together.
        seed: of the choices.
        metric: one of ``METRICS``.
    """

    config: DictConfig
    launcher: Launcher

    def __init__(self, n_trials: Any, n_jobs: Any, seed: Any, metric: Any) -> None:
        self._n_trials, self._n_jobs, self._seed, self._metric = n_trials, n_jobs, seed, metric

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Refuse mistakes, and images that are not drawn, before anything is written or started."""
        self._check_keys()
        try:
            from dpmi.search.space import read_space
        except ImportError as error:
            raise UserError(
                "hydra/sweeper=optuna: Optuna is not installed; pip install 'dpmi[optuna]'"
            ) from error
        fix_folder(config)
        self.config, self._task, self._loader = config, task_function, hydra_context.config_loader
        self._space = read_space(_given(config), self._loader)
        examples = self._check_examples()
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )
        check_here(config, examples)

    def _check_keys(self) -> None:
        least = {"n_trials": 1, "n_jobs": 1, "seed": 0}
        for key, number in least.items():
            value = getattr(self, f"_{key}")
            if type(value) is not int or value < number:
                raise UserError(
                    f"hydra.sweeper.{key}={value}: allowed is a whole number of at least {number}"
                )
        if self._metric not in METRICS:
            raise UserError(
                f"hydra.sweeper.metric={self._metric}: allowed are {' and '.join(METRICS)}, of "
                "validation images; test images choose nothing"
            )

    def _check_examples(self) -> list[Config]:
        name, shared = str(self.config.hydra.job.config_name), None
        words = [self._space.overrides(values) for values in self._space.examples()]
        configs = []
        for overrides in words:
            composed = compose(name, overrides=overrides)
            _refuse_real_images(composed)
            config = load_config(composed)
            require_extras(config)
            configs.append(config)
            found = [OmegaConf.select(composed, key) for key in _SHARED]
            for key, value, first in zip(_SHARED, found, shared or found, strict=True):
                if value != first:
                    raise UserError(
                        f"{key}={first},{value}: a search compares runs of one seed on the same "
                        "images; give one value"
                    )
            shared = found
            assert isinstance(config.data, PhantomData)
            if config.data.val_images == 0:
                raise UserError(
                    "data.val_images=0: a search needs validation images; allowed is 1 or more"
                )
            if config.noise_seed is not None:
                raise UserError(
                    "noise_seed: is for tests and teaching, and the files of a search would reveal "
                    "it; allowed is null"
                )
        show_as_cells(self.config, configs, words)
        return configs

    def sweep(self, arguments: list[str]) -> None:
        """Search to the end, and print what was found.

        Raises:
            SystemExit: a run failed, or another process is at work on the same search.
        """
        from dpmi.run.records.code import code_digest
        from dpmi.search.results import report_search
        from dpmi.search.study import LOCK_FILE, open_study

        folder = Path(str(self.config.hydra.sweep.dir))
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK_FILE, blocking=False)
        try:
            lock.acquire()
        except Timeout:
            print(f"{folder}: another process is running this search", file=sys.stderr)
            sys.exit(EXIT_RESUMABLE)
        with lock:
            anew = bool(self.config.rerun)
            study = open_study(folder, sweep_terms(self.config), code_digest(), anew=anew)
            tried: set[int] = set()
            while batch := self._next(study, tried):
                self._run(study, batch)
                tried |= {trial.number for trial in batch}
            complete = report_search(study, self._space, self._metric, folder, Console())
        if not complete:
            sys.exit(EXIT_FAILED_RUNS)

    def _next(self, study: Study, tried: set[int]) -> list[FrozenTrial]:
        """The trials of the next batch: those without a value first, each once a process."""
        from dpmi.search.study import add, choose, unfinished

        waiting = [trial for trial in unfinished(study) if trial.number not in tried]
        count = len(study.trials)
        # Batches are of the same trials, also where a process was killed while it chose one.
        while count < self._n_trials and (count % self._n_jobs or not waiting):
            values = choose(study, self._space.varied, self._seed)
            (job,) = self._jobs([self._space.overrides(values)])
            waiting.append(add(study, values, self._space.varied, job.folder.name))
            count += 1
        return waiting[: self._n_jobs]

    def _run(self, study: Study, batch: Sequence[FrozenTrial]) -> None:
        """Launch a batch, and give the study the scores in the records."""
        from dpmi.launch.endings import own_record  # it brings what reads records

        jobs = self._jobs([self._space.overrides(trial.params) for trial in batch])
        possible = []
        for trial, job in zip(batch, jobs, strict=True):
            try:
                load_config(job.config)
            except UserError as error:  # of values that were not among the examples
                print(f"trial {trial.number} is left out: {error}", file=sys.stderr)
            else:
                possible.append((trial, job))
        distinct = {job.folder: list(job.overrides) for _, job in possible}
        if distinct:
            for returned in self.launcher.launch(list(distinct.values()), batch[0].number):
                _ = returned.return_value  # raises what stopped the job
        for trial, job in possible:
            record = own_record(job)
            if record is None or record.status != "completed":
                continue
            if math.isfinite(value := record.metrics[self._metric]):
                study.tell(trial.number, value)

    def _jobs(self, batch: Sequence[list[str]]) -> list[Job]:
        """Compose what is to be launched, and refuse it unless the images are drawn."""
        before = HydraConfig.instance().cfg
        try:
            jobs = make_jobs(self._loader, self.config, batch, 0, self._task)
        finally:
            HydraConfig.instance().cfg = before
        for job in jobs:
            _refuse_real_images(job.config)
        return jobs


def _given(config: DictConfig) -> list[str]:
    given: Any = OmegaConf.to_container(config.hydra.overrides.task, resolve=False)
    return [str(override) for override in given]


def _refuse_real_images(composed: DictConfig) -> None:
    """Raise UserError unless the images of a config are drawn by the program."""
    name = OmegaConf.select(composed, "data.name")
    if name not in DRAWN:
        raise UserError(
            f"data={name}: to choose among runs on these images would spend privacy that no "
            "ledger counts; a search (hydra/sweeper=optuna) is allowed on synthetic images: "
            f"data={' or data='.join(DRAWN)}"
        )
