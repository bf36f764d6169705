"""Audit of a DP-SGD run by canaries in gradient space."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from dpmi.auditing import attacks
from dpmi.auditing.bounds import Family, Rates, measured, one_run
from dpmi.auditing.canaries import make_canaries
from dpmi.auditing.coins import Coins
from dpmi.auditing.replica import again, claim, watched
from dpmi.auditing.result import Audit, Bound, Found
from dpmi.config.schema import Config
from dpmi.run.records.record import RunRecord

Values = NDArray[np.float64]

MOST = 4096  # canaries of a run
_MOST_MOVING = 256  # where a canary takes a strip of its own, and an image many channels
_REHEARSED = 20_000
_FALSE_POSITIVES = (0.2, 0.03, 0.003)  # of the rehearsal, where else thresholds are put

TRIALS = (
    "canaries are independent trials: they are so in DP-SGD as claimed, having no image, no noise "
    "and no coordinate of the release in common"
)
FAMILY = f"{TRIALS}; the mechanism's trade-off curve is that of DP-SGD with this or other noise"
ONE_RUN = "nothing but that the coins are fair: canaries may interact"


def audit_gradients(
    config: Config,
    n: int,
    *,
    seconds: float,
    confidence: float = 0.95,
    most: int = MOST,
    claimed: float | None = None,
    progress: Callable[[int, float], None] = lambda runs, passed: None,
) -> Audit:
    """Run ``config`` on canaries, again and again, and bound its ε from below.

    Args:
        config: of a run with ``mechanism=dpsgd``;
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
    moving = config.data.augment != "none"
    cells = min(most, _MOST_MOVING) if moving else most

    def run(before: int) -> tuple[RunRecord, Values, NDArray[np.bool_]]:
        canaries = make_canaries(n, cells, moving, config.privacy.unit == "patient", rng)
        return *watched(config, canaries, interrupted=not before), canaries.included

    records, seen, included = zip(*again(run, seconds, progress), strict=True)
    record = records[-1]
    stated = claim(record.guarantee, claimed)
    plan = record.mechanism["plan"]
    noise, rate, steps = plan["noise_multiplier"], plan["sample_rate"], plan["steps"]
    coin = np.concatenate(included)
    scores = {
        "likelihood": _of_all(seen, lambda r: attacks.likelihood_ratio(r, noise, rate)),
        "spread": _of_all(seen, attacks.spread),
        "reach": _of_all(seen, attacks.reach),
    }
    error = 1 - confidence
    rehearsed = attacks.rehearse(noise, rate, steps, _REHEARSED, rng)
    rates = _rates(scores, coin, rehearsed, noise, 0.8 * error)
    family = Family(rate, steps)
    delta = stated.delta
    right, guesses = _best_guesses(scores["likelihood"], coin, rehearsed, delta, 0.2 * error)
    bounds = {
        "family": Bound(family.bound(rates, delta, noise), FAMILY),
        "trials": Bound(max(one.epsilon(delta) for one in rates), TRIALS),
        "one run": Bound(one_run(len(coin), guesses, right, delta, 0.2 * error), ONE_RUN),
    }
    return coins.audit(stated, Found(bounds, len(coin), len(seen)), confidence)


def _of_all(seen: Sequence[Values], score: Callable[[Values], Values]) -> Values:
    return np.concatenate([score(releases) for releases in seen])


def _rates(
    scores: dict[str, Values],
    coin: NDArray[np.bool_],
    rehearsed: tuple[Values, Values],
    noise: float,
    error: float,
) -> list[Rates]:
    """All tests, with what of the error each has: their intervals hold together."""
    inside, outside = rehearsed
    trials = len(coin) // 2
    tests = [("likelihood", _most_advantage(inside, outside), 0.5)]
    tests += [("likelihood", float(np.quantile(outside, 1 - p)), 0.08) for p in _FALSE_POSITIVES]
    tests.append(("likelihood", _largest_likelihood(inside, outside, trials, 0.08 * error), 0.08))
    tests += [("spread", 0.5, 0.09), ("reach", 3 * noise, 0.09)]
    return [
        measured(scores[name][coin], scores[name][~coin], threshold, share * error)
        for name, threshold, share in tests
    ]


def _most_advantage(inside: Values, outside: Values) -> float:
    """Threshold with the most true positives less false ones."""
    places = np.quantile(np.concatenate([inside, outside]), np.linspace(0.01, 0.99, 99))
    return float(max(places, key=lambda at: (inside > at).mean() - (outside > at).mean()))


def _largest_likelihood(inside: Values, outside: Values, trials: int, error: float) -> float:
    """Threshold that gives the most by itself, in as many trials."""

    def expected(at: float) -> float:
        sample = [np.full(trials, -np.inf), np.full(trials, -np.inf)]
        for world, known in zip(sample, (inside, outside), strict=True):
            world[: round(float((known > at).mean()) * trials)] = np.inf
        return measured(sample[0], sample[1], at, error).epsilon(0.0)

    places = np.quantile(outside, 1 - np.geomspace(0.2, 3 / len(outside), 24))
    return float(max(places, key=expected))


def _best_guesses(
    scores: Values,
    coin: NDArray[np.bool_],
    rehearsed: tuple[Values, Values],
    delta: float,
    error: float,
) -> tuple[int, int]:
    """Guess of the highest and the lowest scores alone; return how many are right, of how many.

    How many are guessed is fixed by the rehearsal.
    """
    order = np.argsort(np.concatenate(rehearsed))
    expected = np.repeat([1.0, 0.0], len(rehearsed[0]))[order]  # whether it was included
    scale, best, chosen = len(coin) / len(order), -1.0, (1, 0)
    for share in np.geomspace(0.002, 0.5, 8):
        count = max(1, round(share * len(order) / 2))
        for low in (0, count):
            right = expected[-count:].sum() + (1 - expected[:low]).sum()
            guesses = round((count + low) * scale)
            bound = one_run(len(coin), guesses, round(right * scale), delta, error)
            if bound > best:
                best, chosen = bound, (round(count * scale), round(low * scale))
    high, low = chosen
    ranked = coin[np.argsort(scores)]
    return int(ranked[len(ranked) - high :].sum() + (~ranked[:low]).sum()), high + low
