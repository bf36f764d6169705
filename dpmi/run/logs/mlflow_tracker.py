"""MLflow: a local store, or a tracking server."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from typing import Any

from filelock import FileLock
from numpy.typing import NDArray
from pytorch_lightning.loggers import MLFlowLogger

from dpmi.config.sections import MlflowConfig
from dpmi.run.logs.tracker import Summary, TrackedRun, Tracker

STORE, FILES = "mlflow.db", "mlflow-files"  # of a local store, in output_dir
_ID, _SWEEP = "dpmi.id", "dpmi.sweep"
_LONGEST_TAG = 5000  # that every version of MLflow takes
_SETTINGS = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",  # seconds; MLflow would try a dead server for ten minutes
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_CONFIGURE_LOGGING": "false",  # else it writes to the terminal
}


class MlflowTracker(Tracker):
    """A run in an MLflow experiment; a run that is resumed goes on there.

    The run has neither the user's name, nor the command, nor the place of the code among its tags,
    which MLflow would add.

    Args:
        settings: the config's logger section.
        run: to be tracked.
    """

    TITLE = "MLflow"

    def __init__(self, settings: MlflowConfig, run: TrackedRun) -> None:
        os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"  # it would tell its makers of its use
        for name, value in _SETTINGS.items():
            os.environ.setdefault(name, value)
        for name in ("mlflow", "alembic"):  # each step of making the store's tables
            logging.getLogger(name).setLevel(logging.WARNING)
        from mlflow.tracking import MlflowClient  # after its settings

        self._logged: dict[str, float] = {}
        output_dir, files = run.output_dir.absolute(), None
        uri = settings.tracking_uri
        if uri is None:
            uri, files = f"sqlite:///{output_dir / STORE}", (output_dir / FILES).as_uri()
        # Jobs that run side by side: one of them makes the tables, and the experiment.
        with FileLock(output_dir / f".{STORE}.lock"):
            client = MlflowClient(uri)
            experiment = client.get_experiment_by_name(settings.experiment)
            number = (
                experiment.experiment_id
                if experiment
                else client.create_experiment(settings.experiment, artifact_location=files)
            )
            found = client.search_runs([number], f"tags.`{_ID}` = '{run.id}'", max_results=1)
            tags = {_ID: run.id, _SWEEP: run.group}
            own = found[0] if found else client.create_run(number, tags=tags, run_name=run.name)
        self._resumed = bool(own.data.params)
        self._run_id: str = own.info.run_id
        client.update_run(self._run_id, status="RUNNING")
        self._logger = MLFlowLogger(
            settings.experiment, tracking_uri=uri, run_id=self._run_id, artifact_location=files
        )
        self._client: MlflowClient = self._logger.experiment

    @property
    def version(self) -> str:
        """MLflow's id of the run."""
        return self._run_id

    def log_config(self, config: Mapping[str, Any]) -> None:
        """As parameters, once: MLflow lets nobody change them."""
        if not self._resumed:
            self._logger.log_hyperparams(dict(config))

    def log_metrics(self, metrics: Mapping[str, float], step: int | None) -> None:
        """As metrics; in a row of the whole run those that MLflow has not."""
        if step is None:
            metrics = {k: v for k, v in metrics.items() if self._logged.get(k) != v}
        self._logged |= metrics
        self._logger.log_metrics(metrics, step)

    def log_images(self, key: str, images: list[NDArray[Any]], captions: list[str]) -> None:
        """As files, with the captions as names."""
        for number, (image, caption) in enumerate(zip(images, captions, strict=True)):
            name = "".join(c if c.isalnum() or c in " .,=-" else "_" for c in caption)
            self._client.log_image(self._run_id, image, artifact_file=f"{key}/{number} {name}.png")

    def summarise(self, summary: Summary) -> None:
        """Guarantee, risk and what is not defined as tags: ``guarantee.epsilon``."""
        tags = {f"guarantee.{key}": value for key, value in summary.guarantee.items()}
        for unit, bounds in summary.risk.items():
            tags |= {f"risk.{unit}.{key}": value for key, value in bounds.items()}
        undefined = [name for name, value in summary.metrics.items() if isinstance(value, str)]
        tags |= {"scope": summary.scope, "undefined": ", ".join(undefined) or None}
        for key, value in tags.items():
            if value is not None:
                text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
                self._client.set_tag(self._run_id, key, text[:_LONGEST_TAG])
        self.log_metrics({k: v for k, v in summary.metrics.items() if not isinstance(v, str)}, None)

    def finish(self, failed: bool) -> None:
        """Say how it ended."""
        self._logger.finalize("failed" if failed else "success")
