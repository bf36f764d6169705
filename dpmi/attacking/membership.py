"""Was this image, or this patient, in the training set? LiRA against shadow models of a run."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import numpy as np
from rich.console import Console

from dpmi.attacking.curve import OVER_MODELS, measured_roc
from dpmi.attacking.lira import PER_IMAGE_FROM, likelihood_ratios, one_sided
from dpmi.attacking.result import Membership
from dpmi.attacking.shadows import PLANNED, Shadows
from dpmi.config.schema import Config
from dpmi.mechanisms import Mechanism, PlannedMechanism
from dpmi.privacy.tradeoff import of_ledger

MODELS_OF_HEADS, MODELS_OF_NETWORKS = 128, 32
ATTACKER = (
    "The attacker knows the method, its public seed and weights, and the images of all candidates "
    "with their labels, trains shadow models, and sees the confidence of a model's final weights "
    "on each image."
)
OF_FINDINGS = (
    " Its statistic is the log odds that a model gives each finding as it is known of the image; "
    "Gaussians are fitted to each, and log likelihood ratios (or, one-sided, standard deviations) "
    "are summed over the known findings."
)
ZERO_OUT = (
    "an absent {unit} contributes nothing, and the number of {unit}s stays what it is (zero-out)"
)
LEFT_OUT = "an absent {unit} is left out, and the run is of the others"


def attack_membership(
    config: Config,
    models: int | None,
    seed: int,
    console: Console,
    progress: Callable[[int, int], None],
) -> Membership:
    """Train shadow models on what fair coins choose, images or patients; attack each by the others.

    Args:
        config: of the run.
        models: how many; None for a number that fits what is trained.
        seed: of the coins.
        console: shows that features are computed.
        progress: called with the number of models that are trained, and of all.

    Raises:
        UserError: the mechanism is attacked otherwise, or the data cannot be used.
    """
    started = time.monotonic()
    shadows = Shadows(config, console)
    head = config.model.train == "head"
    models = models or (MODELS_OF_HEADS if head else MODELS_OF_NETWORKS)
    rng = np.random.default_rng(seed)
    coins = rng.random((models, shadows.n)) < 0.5
    found = []
    mechanism: Mechanism
    for number, present in enumerate(coins):
        net, mechanism = shadows.trained(present)
        found.append(shadows.confidences(net))
        progress(number + 1, models)
    confidences = np.stack(found)
    per_image = models >= PER_IMAGE_FROM
    scores = {"likelihood ratio": likelihood_ratios, "one-sided": one_sided}
    rocs = [
        measured_roc(name, partial(score, per_image=per_image), confidences, coins)
        for name, score in scores.items()
    ]
    promised, epsilon, delta = None, None, None
    if isinstance(mechanism, PlannedMechanism):
        allowed = of_ledger(mechanism.released, "zero-out")
        promised = [(at, allowed.true_positive_rate(at)) for at, *_ in rocs[0].curve]
        guarantee = mechanism.guarantee()
        epsilon, delta = guarantee.epsilon, guarantee.delta
    return Membership(
        attacker=ATTACKER + (OF_FINDINGS if config.multilabel else ""),
        absent=(ZERO_OUT if config.mechanism.name in PLANNED else LEFT_OUT).format(
            unit=shadows.unit
        ),
        intervals=OVER_MODELS,
        models=models,
        unit=shadows.unit,
        candidates=shadows.n,
        coins=seed,
        rocs=rocs,
        promised=promised,
        epsilon=epsilon,
        delta=delta,
        seconds=time.monotonic() - started,
    )
