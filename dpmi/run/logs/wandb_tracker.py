"""Weights & Biases."""

from __future__ import annotations

import netrc
import os
from collections.abc import Mapping
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlparse
from urllib.request import urlopen

from numpy.typing import NDArray
from pytorch_lightning.loggers import WandbLogger

from dpmi.config.sections import WandbConfig
from dpmi.run.logs.tracker import Summary, TrackedRun, Tracker

START_SECONDS = 30.0  # patience with a W&B server that does not answer
FINISH_SECONDS = 60.0  # and with one that was lost; W&B's own is without end
REACH_SECONDS = 10.0


class WandbTracker(Tracker):
    """A run at W&B; without credentials offline, in the job's folder. It never prompts.

    Args:
        settings: the config's logger section.
        run: to be tracked.
    """

    TITLE = "W&B"
    AFTER = ", and `wandb sync` can push what is in wandb/"

    def __init__(self, settings: WandbConfig, run: TrackedRun) -> None:
        for variable in ("WANDB_CACHE_DIR", "WANDB_DATA_DIR", "WANDB_ARTIFACT_DIR"):
            os.environ.setdefault(variable, str(run.cache_dir / "wandb"))
        import wandb  # after its folders are named; and not at all where it is not used

        offline = _offline(settings.mode)
        started = wandb.init(
            name=run.name,
            id=run.id,
            resume=None if offline else "allow",
            project=settings.project,
            entity=settings.entity,
            group=run.group,
            dir=str(run.folder),
            mode="offline" if offline else "online",
            settings=wandb.Settings(
                silent=True,
                console="off",
                init_timeout=START_SECONDS,
                finish_timeout=FINISH_SECONDS,
                finish_timeout_raises=True,
                x_disable_meta=run.hides_command,
                x_disable_stats=not run.everything,  # memory and load tell the batch size
                disable_git=True,  # its remote may be named with a token; the record has the commit
                reinit="create_new",  # not the run of an earlier job that was never finished
            ),
        )
        if run.everything:
            started.define_metric("trainer/global_step")
            started.define_metric("*", step_metric="trainer/global_step", step_sync=True)
        self.logger = WandbLogger(experiment=started)

    @property
    def version(self) -> str:
        """Run id at W&B."""
        return str(self.logger.version)

    def log_config(self, config: Mapping[str, Any]) -> None:
        """Into the run's config."""
        self.logger.log_hyperparams(dict(config))

    def log_metrics(self, metrics: Mapping[str, float], step: int | None) -> None:
        """Into the run's history."""
        self.logger.log_metrics(metrics, step)

    def log_images(self, key: str, images: list[NDArray[Any]], captions: list[str]) -> None:
        """As media."""
        self.logger.log_image(key, images, caption=captions)

    def summarise(self, summary: Summary) -> None:
        """Into the run's summary: ``guarantee.epsilon``, ``risk.image.accuracy``."""
        fields = {"guarantee": summary.guarantee, "risk": summary.risk, "scope": summary.scope}
        self.logger.experiment.summary.update({**fields, **summary.metrics})

    def finish(self, failed: bool) -> None:
        """Wait until all is sent."""
        self.logger.experiment.finish(exit_code=int(failed))


def _offline(mode: str) -> bool:
    if mode == "auto":
        setting = os.environ.get("WANDB_MODE")
        return setting == "offline" if setting else not has_credentials()
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
