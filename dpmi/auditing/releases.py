"""Audit of a local DP run by pixels of known value, as the network was given them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytorch_lightning as L
import torch
from numpy.typing import NDArray
from torch.nn import functional

from dpmi.auditing.bounds import measured
from dpmi.auditing.canaries import CLASSES, SIDE, CanaryNet, Cells, auditors_data
from dpmi.auditing.coins import Coins
from dpmi.auditing.replica import again, claim, execute, replica
from dpmi.auditing.result import Audit, Bound, Found
from dpmi.auditing.transcript import LEARNING_RATE
from dpmi.config.schema import Config
from dpmi.config.sections import LdpMechanism
from dpmi.data.batches import ShuffledBatches
from dpmi.mechanisms import batch_images
from dpmi.privacy.guarantee import Guarantee
from dpmi.privacy.laplace import mean_moves
from dpmi.run.durability.stopping import StoppedByRequest
from dpmi.run.given import Given

MOST_IMAGES = 1024
# Between the two values a pixel gives what is released: at one end, at the other, in the middle;
# in units of their distance less one, with the share of the error that each has.
_TESTS = ((1.0, 0.5), (0.0, 0.4), (0.5, 0.1))

ASSUMES = "the values of an image are independent trials, as they are in local DP as claimed"


class SeenByNetwork(L.Callback):
    """Adds up what the network is given in place of each value, in all epochs and attempts.

    Noise that is drawn once gives the same value again, and the mean is the release itself.

    Args:
        n: training images.
        lost_step: that the process is to die after, so that the next one goes on.
    """

    def __init__(self, n: int, lost_step: int) -> None:
        self._sums, self._times = np.zeros((n, SIDE, SIDE)), np.zeros(n)
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

    def means(self, pool: int) -> NDArray[np.float64]:
        """(n, S / pool, S / pool), in 8-bit units: as what the mean of each block was released.

        The network sees what was interpolated between the means, and rounded; it is undone.
        """
        blocks = torch.eye(SIDE // pool)[None]
        undo = np.linalg.pinv(functional.interpolate(blocks, SIDE, mode="linear")[0].numpy())
        return np.asarray(undo.T @ (self._sums / self._times[:, None, None]) @ undo)


def audit_releases(
    config: Config,
    n: int,
    *,
    seconds: float,
    confidence: float = 0.95,
    claimed: float | None = None,
    progress: Callable[[int, float], None] = lambda runs, passed: None,
) -> Audit:
    """Run ``config`` on images with pixels that fair coins make black or white, and bound its ε.

    One pixel of each block that gets noise of its own: all of them where none are pooled.

    Args:
        config: of a run with ``mechanism=ldp``.
        n: training images of that run; the replica has no more.
        seconds: that may pass; one run is made in any case.
        confidence: with which the bound holds.
        claimed: ε that the audited run states; by default that of the replica.
        progress: called after each run.

    Raises:
        UserError: a run did not complete, or has no ε.
    """
    coins = Coins()
    rng = coins.rng
    images = min(n, MOST_IMAGES)

    assert isinstance(config.mechanism, LdpMechanism)
    pool = config.mechanism.pool

    def run(_: int) -> tuple[Guarantee | None, NDArray[np.float64], NDArray[np.bool_]]:
        white = rng.random((images, SIDE // pool, SIDE // pool)) < 0.5
        guarantee, means = _released(config, pool, white, rng.integers(0, len(CLASSES), images))
        return guarantee, means.ravel(), white.ravel()

    guarantees, means, white = zip(*again(run, seconds, progress), strict=True)
    stated = claim(guarantees[-1], claimed)
    included, score = np.concatenate(white), np.concatenate(means)
    apart = mean_moves(pool)  # of all that is released from a black pixel and from a white one
    rates = [
        measured(
            score[included], score[~included], at * (apart - 1) + 0.5, share * (1 - confidence)
        )
        for at, share in _TESTS
    ]
    bounds = {"trials": Bound(max(one.epsilon(stated.delta) for one in rates), ASSUMES)}
    return coins.audit(stated, Found(bounds, len(score), len(means)), confidence)


def _released(
    config: Config, pool: int, white: NDArray[np.bool_], labels: NDArray[np.int64]
) -> tuple[Guarantee | None, NDArray[np.float64]]:
    """The run's guarantee, and what was released in place of each value."""
    with TemporaryDirectory(prefix="dpmi-audit-") as name:
        own = replica(
            config,
            Path(name),
            # What follows the release costs nothing: it is left out where it would hide values.
            data={"image_size": SIDE, "resize": None, "augment": "none", "multiplicity": 1},
            model={"learning_rate": LEARNING_RATE},
            trainer={"devices": 1, "checkpoint_seconds": 0.0},
        )
        pixels = np.zeros((len(white), 1, SIDE, SIDE), np.uint8)
        pixels[:, 0, ::pool, ::pool] = np.where(white, 255, 0)
        data = auditors_data(pixels, labels)
        batches = ShuffledBatches(len(pixels), batch_images(own, len(pixels)), own.seed)
        steps = batches.steps_per_epoch * own.trainer.max_epochs
        seen = SeenByNetwork(len(white), (steps + 1) // 2)
        net = CanaryNet(Cells(SIDE * SIDE, False), 1.0)
        record = execute(own, Path(name), Given(data, net, (seen,)))
        return record.guarantee, seen.means(pool)
