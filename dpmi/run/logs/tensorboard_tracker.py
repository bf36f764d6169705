"""TensorBoard: events in the job's folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray
from pytorch_lightning.loggers import TensorBoardLogger

from dpmi.run.logs.tracker import Summary, TrackedRun, Tracker

FOLDER = "tensorboard"


class TensorboardTracker(Tracker):
    """Events and ``hparams.yaml`` in the folder ``tensorboard`` of the job.

    Args:
        run: to be tracked; where it is resumed, events from its first step on take the place of
            those that a killed process left.
    """

    TITLE = "TensorBoard"

    def __init__(self, run: TrackedRun) -> None:
        self._config: Mapping[str, Any] = {}
        self._step: int | None = None
        self._logger = TensorBoardLogger(
            run.folder,
            name="",
            version=FOLDER,
            default_hp_metric=False,
            purge_step=run.first_step,
        )
        self._writer = self._logger.experiment  # the file is opened here

    @property
    def version(self) -> str:
        """Name of the folder."""
        return FOLDER

    def log_config(self, config: Mapping[str, Any]) -> None:
        """Keep it for the table of hyperparameters, which has the final metrics beside it."""
        self._config = config

    def log_metrics(self, metrics: Mapping[str, float], step: int | None) -> None:
        """As scalars."""
        self._step = step
        self._logger.log_metrics(metrics, step)

    def log_images(self, key: str, images: list[NDArray[Any]], captions: list[str]) -> None:
        """As images, with the captions in their names."""
        for number, (image, caption) in enumerate(zip(images, captions, strict=True)):
            self._writer.add_image(f"{key}/{number} {caption}", image, dataformats="HWC")

    def summarise(self, summary: Summary) -> None:
        """As texts: guarantee, risk, what is not defined; and as a row of hyperparameters."""
        defined = {k: v for k, v in summary.metrics.items() if not isinstance(v, str)}
        undefined = [k for k, v in summary.metrics.items() if isinstance(v, str)]
        self._writer.add_text("scope", summary.scope)
        self._writer.add_text("guarantee", _table(summary.guarantee))
        for unit, bounds in summary.risk.items():
            self._writer.add_text(f"risk/{unit}", _table(bounds))
        if undefined:
            self._writer.add_text("undefined", "\n".join(f"- {name}" for name in undefined))
        self._logger.log_hyperparams(dict(self._config), defined, self._step)

    def finish(self, failed: bool) -> None:
        """Write what is left."""
        self._logger.finalize("failed" if failed else "success")


def _table(values: Mapping[str, Any]) -> str:
    """Values as a table in Markdown, which TensorBoard shows."""
    rows = [
        f"| {key} | {value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)} |"
        for key, value in values.items()
        if value is not None
    ]
    return "\n".join(["| | |", "|---|---|", *rows])
