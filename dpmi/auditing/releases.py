"""Audit of a local DP run by pixels of known value, as the network was given them."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytorch_lightning as L
from numpy.typing import NDArray

from dpmi.auditing.bounds import measured
from dpmi.auditing.canaries import CLASSES, SIDE, CanaryNet, Cells, auditors_data
from dpmi.auditing.replica import again, claim, execute, replica
from dpmi.auditing.result import Audit, Bound
from dpmi.auditing.transcript import LEARNING_RATE
from dpmi.config import Config
from dpmi.mechanisms import batch_images
from dpmi.privacy.guarantee import Guarantee
from dpmi.run.given import Given
from dpmi.run.stopping import StoppedByRequest

MOST_IMAGES = 1024
# Saturated on one side, on the other, and between; with the share of the error that each has.
_TESTS = ((254.5, 0.5), (0.5, 0.4), (127.5, 0.1))

ASSUMES = "the values of an image are independent trials, as they are in local DP as claimed"


class SeenByNetwork(L.Callback):
    """Adds up what the network is given in place of each value, in all epochs and attempts.

    Noise that is drawn once gives the same value again, and the mean is the release itself.

    Args:
        shape: (n, S, S).
        lost_step: that the process is to die after, so that the next one goes on.
    """

    def __init__(self, shape: tuple[int, int, int], lost_step: int) -> None:
        self._sums, self._times = np.zeros(shape), np.zeros(shape[0])
        self._lost_step: int | None = lost_step

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Which images these are is public: the order depends on the public seed alone."""
        loader: Any = trainer.train_dataloader
        members = loader.batch_sampler.batches.draw(trainer.global_step)
        self._sums[members] += np.rint(255 * batch[0][:, 0].cpu().numpy())
        self._times[members] += 1

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        """Die, once."""
        if trainer.global_step == self._lost_step:
            self._lost_step = None
            raise StoppedByRequest

    def means(self) -> NDArray[np.float64]:
        """(n, S, S), in 8-bit units."""
        return self._sums / self._times[:, None, None]


def audit_releases(
    config: Config,
    n: int,
    *,
    seconds: float,
    confidence: float = 0.95,
    claimed: float | None = None,
    progress: Callable[[int, float], None] = lambda runs, passed: None,
) -> Audit:
    """Run ``config`` on images whose values are black or white by fair coins, and bound its ε.

    Args:
        config: of a run with ``mechanism=ldp``.
        n: training images of that run; the replica has no more.
        seconds: that may pass; one run is made in any case.
        confidence: with which the bound holds.
        claimed: ε that the audited run told; by default what the replica tells.
        progress: called after each run.

    Raises:
        UserError: a run did not complete, or told no ε.
    """
    started = time.monotonic()
    coins = secrets.token_hex(16)
    rng = np.random.default_rng(int(coins, 16))
    images = min(n, MOST_IMAGES)

    def run(_: int) -> tuple[Guarantee | None, NDArray[np.float64], NDArray[np.bool_]]:
        white = rng.random((images, SIDE, SIDE)) < 0.5
        told, means = _released(config, white, rng.integers(0, len(CLASSES), images))
        return told, means.ravel(), white.ravel()

    told, means, white = zip(*again(run, seconds, progress), strict=True)
    epsilon, delta, unit = claim(told[-1])
    included, score = np.concatenate(white), np.concatenate(means)
    rates = [
        measured(score[included], score[~included], at, share * (1 - confidence))
        for at, share in _TESTS
    ]
    return Audit(
        claimed=epsilon if claimed is None else claimed,
        delta=delta,
        unit=unit,
        confidence=confidence,
        bounds={"trials": Bound(max(one.epsilon(delta) for one in rates), ASSUMES)},
        canaries=len(score),
        runs=len(means),
        coins=coins,
        seconds=time.monotonic() - started,
    )


def _released(
    config: Config, white: NDArray[np.bool_], labels: NDArray[np.int64]
) -> tuple[Guarantee | None, NDArray[np.float64]]:
    """The run's guarantee, and what was released in place of each value."""
    with TemporaryDirectory(prefix="dpmi-audit-") as name:
        own = replica(
            config,
            Path(name),
            # What follows the release costs nothing: it is left out where it would hide values.
            data={"image_size": SIDE, "resize": None, "augment": "none"},
            model={"learning_rate": LEARNING_RATE},
            trainer={"devices": 1, "checkpoint_seconds": 0.0},
        )
        pixels = np.where(white, 255, 0).astype(np.uint8)[:, None]
        data = auditors_data(pixels, labels)
        batches = -(-len(pixels) // batch_images(own, len(pixels)))
        seen = SeenByNetwork(white.shape, (batches * own.trainer.max_epochs + 1) // 2)
        net = CanaryNet(Cells(SIDE * SIDE, False), 1.0)
        record = execute(own, Path(name), Given(data, net, (seen,)))
        return record.guarantee, seen.means()
