"""Where metrics go: a CSV file always, Weights & Biases as long as it works."""

from __future__ import annotations

import math
import netrc
import os
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlparse
from urllib.request import urlopen

from numpy.typing import NDArray
from pytorch_lightning.loggers import CSVLogger, Logger, WandbLogger
from rich.console import Console
from torch import Tensor

from dpmi.base.redaction import redacted
from dpmi.config.sections import WandbConfig
from dpmi.models.names import UNDEFINED
from dpmi.privacy.guarantee import Guarantee
from dpmi.privacy.risk import Risk
from dpmi.run.records.leaving import (
    leaving_metrics,
    public_config,
    public_guarantee,
    public_risk,
    refuse_unnamed,
)

START_SECONDS = 30.0  # patience with a W&B server that does not answer
FINISH_SECONDS = 60.0  # and with one that was lost; W&B's own is without end
REACH_SECONDS = 10.0
TOLD = {  # in a run's summary: what W&B gets
    True: "all metrics: those named nonprivate/ no ε covers",
    False: "what the guarantee covers, and statistics of the test images",
}


class CsvLog(CSVLogger):
    """``metrics.csv`` in the job's folder.

    Attributes:
        rows: all that was logged. Checkpoints hold them: the file may be half-written when a
            process is killed.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, name="", version="", flush_logs_every_n_steps=20)
        self.rows: list[dict[str, float]] = []

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Add a row; undefined values are marked as such in the file.

        Raises:
            UserError: a name does not say what covers its value.
        """
        refuse_unnamed(metrics)
        number = len(self.rows) if step is None else step
        plain = {name: v.item() if isinstance(v, Tensor) else v for name, v in metrics.items()}
        self.rows.append(plain | {"step": number})
        super().log_metrics(_told(plain), number)

    def go_on_with(self, rows: list[dict[str, float]]) -> None:
        """Begin with these rows in place of what the file holds."""
        self.rows = list(rows)
        self.experiment.metrics = [_told(row) for row in rows]
        self.save()


class OptionalWandbLogger(Logger):
    """W&B that may fail: training goes on, and it is said once.

    Without credentials it logs offline, into the job's folder, and never prompts.

    It is the door through which values leave the house. Where not everything may, it lets out what
    ``dpmi.run.records.leaving`` lists and drops the rest; and metrics in one row at the end of the
    run, since the number of rows and their times would reveal the sizes of the batches.

    Args:
        settings: the config's logger section.
        run, group: names of the cell and of the sweep.
        run_id: at W&B; that of the run that is resumed, where one is.
        everything: what no ε covers may leave as well.
        hides_command: the command line holds what W&B must not get.
        folder: the job's folder.
        cache_dir: where W&B keeps what it caches.
        console: where a failure is said.
    """

    def __init__(
        self,
        settings: WandbConfig,
        *,
        run: str,
        run_id: str,
        everything: bool,
        hides_command: bool,
        group: str,
        folder: Path,
        cache_dir: Path,
        console: Console,
    ) -> None:
        super().__init__()
        self._console, self._group, self._everything = console, group, everything
        self._at_the_end: dict[str, Any] = {}
        self._logger: WandbLogger | None = None
        offline = _offline(settings.mode)
        self._attempt(
            lambda: self._start(settings, run, run_id, hides_command, folder, cache_dir, offline)
        )

    def _start(
        self,
        settings: WandbConfig,
        run: str,
        run_id: str,
        hides_command: bool,
        folder: Path,
        cache_dir: Path,
        offline: bool,
    ) -> None:
        for variable in ("WANDB_CACHE_DIR", "WANDB_DATA_DIR", "WANDB_ARTIFACT_DIR"):
            os.environ.setdefault(variable, str(cache_dir / "wandb"))
        import wandb  # after its folders are named; and not at all where it is not used

        started = wandb.init(
            name=run,
            id=run_id,
            resume=None if offline else "allow",
            project=settings.project,
            entity=settings.entity,
            group=self._group,
            dir=str(folder),
            mode="offline" if offline else "online",
            settings=wandb.Settings(
                silent=True,
                console="off",
                init_timeout=START_SECONDS,
                finish_timeout=FINISH_SECONDS,
                finish_timeout_raises=True,
                x_disable_meta=hides_command,
                x_disable_stats=not self._everything,  # memory and load reveal the batch size
                disable_git=True,  # its remote may be named with a token; the record has the commit
                reinit="create_new",  # not the run of an earlier job that was never finished
            ),
        )
        if self._everything:
            started.define_metric("trainer/global_step")
            started.define_metric("*", step_metric="trainer/global_step", step_sync=True)
        self._logger = WandbLogger(experiment=started)

    def _attempt(self, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:  # whatever W&B does, training goes on
            self._logger = None
            why = redacted(f"{type(error).__name__}: {error}")
            self._console.print(
                f"W&B stopped working ({why}); training goes on, "
                "metrics are in metrics.csv, and `wandb sync` can push what is in wandb/",
                style="yellow",
                markup=False,
            )

    @property
    def working(self) -> bool:
        """Whether W&B has not failed so far."""
        return self._logger is not None

    @property
    def name(self) -> str:
        """Kind of logger."""
        return "wandb"

    @property
    def version(self) -> str | None:
        """Run id at W&B."""
        return self._logger.version if self._logger else None

    def log_hyperparams(
        self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any
    ) -> None:
        """Log those keys of a config, in plain values, that may leave."""
        values = vars(params) if isinstance(params, Namespace) else params
        if logger := self._logger:
            self._attempt(lambda: logger.log_hyperparams(public_config(values)))

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log metrics of a step, or keep those that may leave until the end.

        Those that are not defined are left out: a chart has no place for them.

        Raises:
            UserError: a name does not say what covers its value.
        """
        refuse_unnamed(metrics)
        defined = {name: value for name, value in metrics.items() if not _undefined(value)}
        if not self._everything:
            self._at_the_end |= leaving_metrics(defined)
        elif logger := self._logger:
            self._attempt(lambda: logger.log_metrics(defined, step))

    def log_images(self, key: str, images: list[NDArray[Any]], captions: list[str]) -> None:
        """Log images (H, W, C) uint8 with a caption each, where everything may leave."""
        if self._everything and (logger := self._logger):
            self._attempt(lambda: logger.log_image(key, images, caption=captions))

    def summarise(
        self, guarantee: Guarantee, risk: Sequence[Risk], metrics: Mapping[str, float]
    ) -> None:
        """Put guarantee, bounds on an attacker and metrics into the summary, and which may leave.

        Of the bounds all but the curve, by unit: ``risk.image.accuracy``. A metric that is not
        defined is there as the word.
        """
        values = metrics if self._everything else leaving_metrics(metrics)
        told = {"guarantee": public_guarantee(guarantee).to_dict(), **_told(values)}
        bounds = {one.unit: one.to_dict() for one in public_risk(risk)}
        told["risk"] = {
            unit: {key: value for key, value in its.items() if key != "curve"}
            for unit, its in bounds.items()
        }
        told["told"] = TOLD[self._everything]
        if logger := self._logger:
            self._attempt(lambda: logger.experiment.summary.update(told))

    def finish(self, exit_code: int) -> None:
        """End the run: a sweep has several in one process."""
        if logger := self._logger:
            self._attempt(lambda: self._end(logger, exit_code))

    def _end(self, logger: WandbLogger, exit_code: int) -> None:
        if self._at_the_end:
            logger.log_metrics(self._at_the_end)
        logger.experiment.finish(exit_code=exit_code)


def _undefined(value: Any) -> bool:
    return isinstance(value, float | Tensor) and math.isnan(value)


def _told(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Metrics with a word in place of NaN."""
    return {name: UNDEFINED if _undefined(value) else value for name, value in metrics.items()}


def _offline(mode: str) -> bool:
    if mode == "auto":
        asked = os.environ.get("WANDB_MODE")
        return asked == "offline" if asked else not has_credentials()
    return mode == "offline"


def has_credentials() -> bool:
    """Whether W&B would find an API key, in the environment or in netrc; reads no key out."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlparse(_base_url()).hostname or ""
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def server_in_reach() -> bool:
    """Whether the W&B server answers at all; its own tools would go on trying for hours."""
    try:
        with urlopen(_base_url(), timeout=REACH_SECONDS):
            return True
    except HTTPError:  # an answer, too
        return True
    except OSError:
        return False


def _base_url() -> str:
    return os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")
