"""Audit of a DP-SGD run by one who sees its final weights alone, and can choose images.

The realistic adversary: the run's own network and images, trained as the run trains them, with
canaries among them. He tells by its loss whether an image was among them.
"""

from __future__ import annotations

import dataclasses
import secrets
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from torch import nn

from dpmi.auditing.bounds import measured, one_run
from dpmi.auditing.replica import execute, replica
from dpmi.auditing.result import Bound, Found
from dpmi.config import Config
from dpmi.data.datamodule import ImageDataset
from dpmi.data.prepare import PreparedData, Split
from dpmi.errors import UserError
from dpmi.models.weights import build_resnet18
from dpmi.run.first_weights import load_start
from dpmi.run.given import Given

MOST = 256  # canaries, of no more than a quarter of the images
_TILES = 4  # on a side
_PIECE = 64

ONE_RUN = "nothing but that the coins are fair; compared with ε of one image replaced by another"
TRIALS = (
    "canaries are independent trials, though one network learns them all; compared with ε of one "
    "image replaced by another"
)


def audit_black_box(config: Config, data: PreparedData, *, confidence: float = 0.95) -> Found:
    """Train once on ``data`` with canaries, and bound ε from the final weights.

    A fair coin decides whether a canary takes the place of an image. So the two worlds differ by
    one image replaced by another, and the bounds are compared with that ε.

    Args:
        config: of a run with ``mechanism=dpsgd``.
        data: that it trains on.
        confidence: with which both bounds hold at once.

    Raises:
        UserError: the run did not complete, or told no such ε.
    """
    rng = np.random.default_rng()
    train = data.splits["train"]
    m = min(MOST, len(train.labels) // 4)
    tiled, held_out = (_canaries(data, m, rng) for _ in range(2))
    included = rng.random(m) < 0.5
    places = rng.choice(len(train.labels), m, replace=False)[included]
    pixels, labels = np.array(train.pixels), np.array(train.labels)
    pixels[places], labels[places] = tiled.pixels[included], tiled.labels[included]
    changed = dataclasses.replace(
        data,
        splits=data.splits | {"train": Split(pixels, labels, train.patients)},
        fingerprint=dataclasses.replace(data.fingerprint, sha256=secrets.token_hex(32)),
        train_contents=(),
    )
    cache = Path(config.cache_dir).expanduser()
    first = load_start(config.model.weights, data.channels, cache, Console(quiet=True))
    net = build_resnet18(len(data.classes), config.model.norm, first.state)
    with TemporaryDirectory(prefix="dpmi-audit-") as name:
        own = replica(config, Path(name), trainer={"devices": 1})
        told = execute(own, Path(name), Given(changed, net)).guarantee
    if told is None or told.replace_one_epsilon is None or told.delta is None:
        raise UserError(f"the run claims no ε, so there is none to audit ({told})")
    size = config.data.image_size
    scores, unseen = (-_losses(net, one, size) for one in (tiled, held_out))
    error = (1 - confidence) / 2
    # Of canaries that were surely not included: a threshold that knows nothing of the coins.
    rates = [
        measured(scores[included], scores[~included], float(np.quantile(unseen, at)), error / 2)
        for at in (0.5, 0.95)
    ]
    quarter = max(1, m // 4)
    ranked = included[np.argsort(scores)]
    right = int(ranked[-quarter:].sum() + (~ranked[:quarter]).sum())
    one = one_run(m, 2 * quarter, right, told.delta, error)
    several = max(rate.epsilon(told.delta) for rate in rates)
    return Found(
        bounds={
            "black box": Bound(one, ONE_RUN, told.replace_one_epsilon),
            "black box, trials": Bound(several, TRIALS, told.replace_one_epsilon),
        },
        canaries=m,
        runs=1,
    )


def _canaries(data: PreparedData, m: int, rng: np.random.Generator) -> Split:
    """Images of random gray tiles, with random labels: nothing but memory tells a label."""
    tile = -(-data.size // _TILES)
    tiles = rng.integers(0, 256, (m, data.channels, _TILES, _TILES), np.uint8)
    pixels = tiles.repeat(tile, axis=2).repeat(tile, axis=3)[..., : data.size, : data.size]
    return Split(np.ascontiguousarray(pixels), rng.integers(0, len(data.classes), m), ("",) * m)


def _losses(net: nn.Module, canaries: Split, size: int) -> NDArray[np.float64]:
    """(m,) of the final weights, not augmented."""
    net = net.eval().cpu()
    images, labels = ImageDataset(canaries, size).__getitems__(range(len(canaries.labels)))
    with torch.no_grad():
        logits = torch.cat([net(piece) for piece in images.split(_PIECE)])
    return np.asarray(nn.functional.cross_entropy(logits, labels, reduction="none").double())
