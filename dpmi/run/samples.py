"""Images for the dashboard: what the mechanism saw, and what it let training see."""

from __future__ import annotations

import numpy as np

from dpmi.config import Config, WandbConfig
from dpmi.data.prepare import PreparedData
from dpmi.run.loggers import OptionalWandbLogger

SAMPLES = 4
_USERS_OWN = {"folder", "csv"}


def log_samples(
    wandb: OptionalWandbLogger, config: Config, clean: PreparedData, released: PreparedData
) -> None:
    """Log the first training images before and after local DP.

    Images of a user's own patients are not logged unless ``logger.sample_images=all``: with the
    log they would leave the house in clear.
    """
    if config.mechanism.name not in ("ldp", "ldp_published") or not isinstance(
        config.logger, WandbConfig
    ):
        return
    wanted = config.logger.sample_images
    if wanted == "none" or (wanted == "public" and config.data.name in _USERS_OWN):
        return
    images, captions = [], []
    for when, data in (("before", clean), (f"after, β = {config.beta:g}", released)):
        split = data.splits["train"]
        for index in range(min(SAMPLES, len(split.labels))):
            images.append(np.moveaxis(np.asarray(split.pixels[index]), 0, -1))  # (H, W, C)
            captions.append(f"{data.classes[int(split.labels[index])]}, {when}")
    wandb.log_images("samples", images, captions)
