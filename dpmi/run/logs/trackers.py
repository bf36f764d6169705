"""Which tracker a config asks for, behind the door."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Console

from dpmi.config.identity import cell_name
from dpmi.config.schema import Config, plain_values
from dpmi.config.sections import CsvLogger, MlflowConfig, WandbConfig
from dpmi.run.logs.door import Door
from dpmi.run.logs.mlflow_tracker import MlflowTracker
from dpmi.run.logs.tensorboard_tracker import TensorboardTracker
from dpmi.run.logs.tracker import TrackedRun, Tracker
from dpmi.run.logs.wandb_tracker import WandbTracker
from dpmi.run.records.house_key import keyed_digest
from dpmi.run.records.leaving import everything_may_leave, is_own


@contextlib.contextmanager
def tracked(
    config: Config, folder: Path, console: Console, run_id: str, first_step: int
) -> Iterator[list[Door]]:
    """Open the door to the run's tracker, if it has one; and end the run there, however it ends.

    Args:
        config: of the run.
        folder: the job's folder.
        console: shows a failure of the tracker.
        run_id: the same where the run is resumed.
        first_step: that this process trains.
    """
    if isinstance(config.logger, CsvLogger):
        yield []
        return
    values, group = plain_values(config), folder.parent.name
    cache_dir = Path(config.cache_dir)
    if is_own(values):  # it may be a path of the user's, or be found by trying batch sizes
        group = keyed_digest(cache_dir, "group", group)[:8]
    run = TrackedRun(
        name=cell_name(config),
        group=group,
        id=run_id,
        first_step=first_step,
        everything=everything_may_leave(values),
        hides_command=is_own(values) or config.noise_seed is not None,
        folder=folder,
        cache_dir=cache_dir,
        output_dir=Path(config.output_dir),
    )
    kind, start = _tracker(config, run)
    door = Door(kind, start, everything=run.everything, console=console)
    failed = True
    try:
        yield [door]
        failed = False
    finally:
        door.finish(failed)


def _tracker(config: Config, run: TrackedRun) -> tuple[type[Tracker], Callable[[], Tracker]]:
    settings = config.logger
    if isinstance(settings, WandbConfig):
        return WandbTracker, lambda: WandbTracker(settings, run)
    if isinstance(settings, MlflowConfig):
        return MlflowTracker, lambda: MlflowTracker(settings, run)
    return TensorboardTracker, lambda: TensorboardTracker(run)
