"""Audit of released class means by canaries in feature space.

A canary is an image, or a patient with one to three of them, whose vector is one coordinate's unit
vector or its negative, by a fair coin; no other image has anything there. So the two worlds differ
by one unit replaced by another, by a distance of 2 in the features' mean and in one class's sum.
The auditor reads both off the head: its centre, and its weights, which are the class means over a
variance. What centring moved is known to them, as the centre is, and taken off.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytorch_lightning as L
import torch
from numpy.typing import NDArray
from scipy.stats import norm

from dpmi.auditing.bounds import Family, measured, one_run
from dpmi.auditing.canaries import CLASSES, SIDE, auditors_data, owners
from dpmi.auditing.coins import Coins
from dpmi.auditing.replica import again, claim, execute, replica
from dpmi.auditing.result import Audit, Bound, Found
from dpmi.config.schema import Config
from dpmi.features.extract import Features
from dpmi.mechanisms.statistics import CENTRE
from dpmi.models.discriminant import DIRECTIONS
from dpmi.models.head import FeatureHead
from dpmi.run.durability.stopping import StoppedByRequest
from dpmi.run.given import Given
from dpmi.run.records.record import RunRecord

Values = NDArray[np.float64]

MOST = 1024  # canaries of a run
_MOST_VALUES = 1 << 26  # of all vectors together
# False positive rates of the claimed mechanism where thresholds are put, with their share of the
# error; None: between the two worlds.
_TESTS = ((None, 0.6), (0.2, 0.1), (0.03, 0.1))
_CENTRE_ALONE, _ONE_RUN = 0.1, 0.1  # of the error

TRIALS = (
    "canaries are independent trials: they are so in class means as claimed, having no coordinate "
    "of the release in common; compared with ε of one {unit} replaced by another"
)
FAMILY = (
    "canaries are independent trials, and the noise is Gaussian: of a {unit} replaced by one that "
    "contributes nothing it then hides half the distance"
)
ONE_RUN = "nothing but that the coins are fair; compared with ε of one {unit} replaced by another"


class SeenInHead(L.Callback):
    """Writes down what the head is given in each attempt, and lets the first one die after that.

    Args:
        dies: whether it does: the next attempt repeats the step.

    Attributes:
        seen: of each attempt the centre (D,) and the class means over the variance (K, D).
    """

    def __init__(self, dies: bool) -> None:
        self._dies = dies
        self.seen: list[tuple[Values, Values]] = []

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        """Read the head after the one step."""
        net = pl_module.net
        assert isinstance(net, FeatureHead)
        parts = net.centre.cpu().double().numpy().copy(), net.weight.cpu().double().numpy().copy()
        self.seen.append(parts)
        if self._dies:
            self._dies = False
            raise StoppedByRequest


def audit_class_means(
    config: Config,
    n: int,
    *,
    seconds: float,
    confidence: float = 0.95,
    most: int = MOST,
    claimed: float | None = None,
    progress: Callable[[int, float], None] = lambda runs, passed: None,
) -> Audit:
    """Run ``config`` on canaries' vectors, again and again, and bound its ε from below.

    Args:
        config: of a run with ``mechanism=class_means`` without second moments;
            patients are protected where its ``privacy.unit=patient``.
        n: training images of that run, or patients; the replica has as many.
        seconds: that may pass; one run is made in any case.
        confidence: with which all bounds hold at once.
        most: canaries of a run.
        claimed: ε that the audited run states; by default that of the replica.
        progress: called after each run.

    Raises:
        UserError: a run did not complete, or has no ε.
    """
    coins = Coins()
    rng = coins.rng
    patients = config.privacy.unit == "patient"
    whose = owners(n, patients)
    m = min(most, n, _MOST_VALUES // len(whose))

    def run(before: int) -> tuple[RunRecord, Values, Values, NDArray[np.bool_]]:
        included = rng.random(m) < 0.5
        return *_watched(config, n, included, whose, patients, rng, not before), included

    records, scores, of_centre, coin = zip(*again(run, seconds, progress), strict=True)
    stated = claim(records[-1].guarantee, claimed)
    assert records[-1].guarantee is not None
    score, centre, included = map(np.concatenate, (scores, of_centre, coin))
    plan, error = records[-1].mechanism["plan"], 1 - confidence
    away = _deviations(plan)
    tests = [
        (score, 0.0 if rate is None else _above(away, rate), share * error)
        for rate, share in _TESTS
    ]
    tests.append((centre, 0.0, _CENTRE_ALONE * error))
    rates = [measured(its[included], its[~included], at, share) for its, at, share in tests]
    family = Family(1.0, 1)
    # Of a distance of 2: half of it, with the same noise, is one unit that contributes nothing.
    noise = family.refuted(rates, 1 / (2 * away))
    order = np.argsort(score)
    quarter = max(1, len(score) // 4)
    right = int(included[order[-quarter:]].sum() + (~included[order[:quarter]]).sum())
    one = one_run(len(score), 2 * quarter, right, stated.delta, _ONE_RUN * error)
    replaced = records[-1].guarantee.replace_one_epsilon
    several = max(rate.epsilon(stated.delta) for rate in rates)
    unit = stated.unit
    bounds = {
        "family": Bound(
            family.epsilon(2 * noise, stated.delta) if noise else 0.0, FAMILY.format(unit=unit)
        ),
        "trials": Bound(several, TRIALS.format(unit=unit), replaced),
        "one run": Bound(one, ONE_RUN.format(unit=unit), replaced),
    }
    return coins.audit(stated, Found(bounds, len(score), len(records)), confidence)


def _watched(
    config: Config,
    n: int,
    included: NDArray[np.bool_],
    whose: NDArray[np.int64],
    patients: bool,
    rng: np.random.Generator,
    interrupted: bool,
) -> tuple[RunRecord, Values, Values]:
    """Run it on canaries; return the record, and (m,) scores, by all that is seen and the centre.

    A score is a canary's sign times its signal, plus noise of standard deviation 1.
    """
    m = len(included)
    labels = rng.integers(0, len(CLASSES), n)
    # Those that are no canaries cancel each other, in a coordinate of their own.
    labels[m:] = np.arange(n - m) // 2 % len(CLASSES)
    vectors = torch.zeros(n, m + 1)
    vectors[m:, m] = 1.0 - 2.0 * (torch.arange(n - m) % 2)
    vectors[torch.arange(m), torch.arange(m)] = torch.from_numpy(
        np.where(included, 1.0, -1.0)
    ).float()
    pixels = np.zeros((len(whose), 1, SIDE, SIDE), np.uint8)
    data = auditors_data(pixels, labels[whose], whose if patients else None)
    test = data.splits["test"].labels
    features = Features(
        vectors={"train": vectors[torch.from_numpy(whose)], "test": vectors[: len(test)]},
        labels={"train": torch.from_numpy(labels[whose]), "test": torch.from_numpy(test)},
    )
    with TemporaryDirectory(prefix="dpmi-audit-") as name:
        folder, head = Path(name), SeenInHead(interrupted)
        own = replica(config, folder, trainer={"devices": 1})
        record = execute(own, folder, Given(data, watch=(head,), features=features))
    plan = record.mechanism["plan"]
    # Releases that were repeated to the bit are one; new noise would be averaged out.
    seen = np.unique([np.concatenate([c[None], w]) for c, w in head.seen], axis=0).mean(0)
    centre, means = seen[0, :m], seen[1:, :m]
    of_class = np.bincount(labels, minlength=len(CLASSES))
    sums = means * (of_class / DIRECTIONS)[:, None] + of_class[:, None] * centre
    of_sums = sums[labels[:m], np.arange(m)] / _stds(plan)["sums"]
    std = _stds(plan).get(CENTRE)
    of_centre = np.zeros(m) if std is None else n * centre / std
    signals = np.array([1 / one for one in _stds(plan).values()])
    both = signals[0] * of_sums + (signals[1] * of_centre if len(signals) > 1 else 0.0)
    return record, both / np.linalg.norm(signals), of_centre


def _stds(plan: dict[str, Any]) -> dict[str, float]:
    """Of the noise in each release, the class sums' first."""
    stds = {"sums": plan["noise_multiplier"] * plan["max_grad_norm"]}
    return stds | {one["name"]: one["noise_multiplier"] for one in plan["statistics"]}


def _deviations(plan: dict[str, Any]) -> float:
    """Standard deviations by which a canary's score is away from 0, as claimed."""
    return float(np.linalg.norm([1 / one for one in _stds(plan).values()]))


def _above(away: float, rate: float) -> float:
    """Threshold that a canary of the negative sign passes at this rate, as claimed."""
    return float(norm.isf(rate)) - away
