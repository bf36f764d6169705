"""Audit of a DP-SGD run by an adversary who sees only its final weights and chose some images.

The realistic adversary: the run's own network, trained as the run trains it, reveals by its loss
whether an image was among the training images, or a patient with all of theirs. None of the run's
own are used: that would train on them once more, outside the account.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from torch import nn

from dpmi.auditing.bounds import measured, one_run
from dpmi.auditing.canaries import CLASSES, auditors_data, owners
from dpmi.auditing.replica import execute, replica
from dpmi.auditing.result import Bound, Found
from dpmi.config.schema import Config
from dpmi.data.datamodule import ImageDataset
from dpmi.data.prepare import PreparedData, Split
from dpmi.run.first_weights import load_start
from dpmi.run.given import Given
from dpmi.run.parts import network

MOST = 256  # canaries, of no more than a quarter of the images, or patients
_TILES = 4  # on a side
_PIECE = 64

ONE_RUN = "nothing but that the coins are fair; compared with ε of one {unit} replaced by another"
TRIALS = (
    "canaries are independent trials, though one network learns them all; compared with ε of one "
    "{unit} replaced by another"
)


@dataclass(frozen=True)
class RealRun:
    """What a run was given, and what it claims.

    Attributes:
        n: training images; patients, where they are what is protected.
        channels: of an image.
        side: of a decoded image, in pixels.
        replace_one_epsilon: ε of an image, or a patient, that is replaced by any other.
        delta: at which it is stated.
    """

    n: int
    channels: int
    side: int
    replace_one_epsilon: float
    delta: float


def audit_black_box(config: Config, real: RealRun, *, confidence: float = 0.95) -> Found:
    """Train once on as many images, canaries among them, and bound ε from the final weights.

    A fair coin decides whether a canary takes the place of another image. So the two worlds differ
    by one image replaced by another, and the bounds are compared with that ε. Where patients are
    protected, a canary is a patient with one to three images, and takes the place of another
    patient. All of a patient's images are the same one, which is then seen whichever is drawn.

    Args:
        config: of a run with ``mechanism=dpsgd`` that trains all layers;
            patients are protected where its ``privacy.unit=patient``.
        real: the run.
        confidence: with which both bounds hold at once.

    Raises:
        UserError: the run did not complete.
    """
    rng = np.random.default_rng()
    m = min(MOST, real.n // 4)
    canaries, held_out = (_tiled(real, m, rng) for _ in range(2))
    included = rng.random(m) < 0.5
    unit = config.privacy.unit
    data = _training(real, canaries, included, unit == "patient", rng)
    cache = Path(config.cache_dir)
    first = load_start(config.model, real.channels, cache, Console(quiet=True))
    net = network(config, len(CLASSES), first.pretrained, None, real.channels)
    with TemporaryDirectory(prefix="dpmi-audit-") as name:
        own = replica(config, Path(name), trainer={"devices": 1})
        execute(own, Path(name), Given(data, net))
    size = config.data.image_size
    scores, unseen = (-_losses(net, one, size) for one in (canaries, held_out))
    error = (1 - confidence) / 2
    # Of canaries that were surely not included: a threshold that knows nothing of the coins.
    rates = [
        measured(scores[included], scores[~included], float(np.quantile(unseen, at)), error / 2)
        for at in (0.5, 0.95)
    ]
    quarter = max(1, m // 4)
    ranked = included[np.argsort(scores)]
    right = int(ranked[-quarter:].sum() + (~ranked[:quarter]).sum())
    one = one_run(m, 2 * quarter, right, real.delta, error)
    several = max(rate.epsilon(real.delta) for rate in rates)
    return Found(
        bounds={
            "black box": Bound(one, ONE_RUN.format(unit=unit), real.replace_one_epsilon),
            "black box, trials": Bound(several, TRIALS.format(unit=unit), real.replace_one_epsilon),
        },
        canaries=m,
        runs=1,
    )


def _training(
    real: RealRun,
    canaries: Split,
    included: NDArray[np.bool_],
    patients: bool,
    rng: np.random.Generator,
) -> PreparedData:
    """As many training images, or patients, as the run has; the included canaries come first."""
    each = _tiled(real, real.n, rng)
    each.pixels[: len(included)][included] = canaries.pixels[included]
    each.labels[: len(included)][included] = canaries.labels[included]
    labels = np.asarray(each.labels, np.int64)
    if not patients:
        return auditors_data(each.pixels, labels)
    whose = owners(real.n, patients)
    return auditors_data(each.pixels[whose], labels[whose], whose)


def _tiled(real: RealRun, many: int, rng: np.random.Generator) -> Split:
    """Images of random gray tiles, with random labels: a label can only be memorized."""
    tile = -(-real.side // _TILES)
    tiles = rng.integers(0, 256, (many, real.channels, _TILES, _TILES), np.uint8)
    pixels = tiles.repeat(tile, axis=2).repeat(tile, axis=3)[..., : real.side, : real.side]
    labels = rng.integers(0, len(CLASSES), many)
    return Split(np.ascontiguousarray(pixels), labels, ("",) * many)


def _losses(net: nn.Module, canaries: Split, size: int) -> NDArray[np.float64]:
    """(m,) of the final weights, not augmented."""
    net = net.eval().cpu()
    images, labels = ImageDataset(canaries, size).__getitems__(range(len(canaries.labels)))
    with torch.no_grad():
        logits = torch.cat([net(piece) for piece in images.split(_PIECE)])
    return np.asarray(nn.functional.cross_entropy(logits, labels, reduction="none").double())
