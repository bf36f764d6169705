"""Where data, privacy and models meet: one file per mechanism, all with one interface."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from dpmi.base.errors import UserError
from dpmi.base.ranks import ALONE, Ranks
from dpmi.config.schema import Config
from dpmi.config.sections import (
    ClassMeansMechanism,
    DpsgdMechanism,
    DpsgdPublishedMechanism,
    LdpFeaturesMechanism,
    LdpMechanism,
    LdpPublishedMechanism,
)
from dpmi.mechanisms.base import NO_GROUPS, PUBLIC_WEIGHTS, FirstWeights, Mechanism
from dpmi.mechanisms.class_means import ClassMeans
from dpmi.mechanisms.dpsgd import DPSGD, clipping_engine
from dpmi.mechanisms.dpsgd_published import DPSGDAsPublished
from dpmi.mechanisms.ldp import Announce, LocalDP
from dpmi.mechanisms.ldp_features import LocalDPOfFeatures
from dpmi.mechanisms.ldp_published import LocalDPAsPublished
from dpmi.mechanisms.none import NonPrivate
from dpmi.mechanisms.planned import PlannedMechanism
from dpmi.mechanisms.statistics import (
    CENTRE,
    CLASS_COUNTS,
    CLASS_LOGITS,
    CLASS_SUMS,
    ExactStatistics,
)
from dpmi.models.walk import noise_walk
from dpmi.privacy.budget import share_out
from dpmi.privacy.guarantee import Claim, printed_delta, printed_epsilon
from dpmi.privacy.journal import Journal
from dpmi.privacy.laplace import mean_moves, pixel_noise
from dpmi.privacy.plan import PrivacyPlan, StatisticRelease, delta_for
from dpmi.privacy.randomness import NoiseSource
from dpmi.privacy.statistics import TrainingSet, class_sensitivity

__all__ = [
    "DPSGD", "ClassMeans", "DPSGDAsPublished", "LocalDP", "LocalDPAsPublished",
    "LocalDPOfFeatures", "Mechanism", "NonPrivate", "PlannedMechanism", "batch_images",
    "build_mechanism", "clipping_engine", "epochs",
]  # fmt: skip

log = logging.getLogger(__name__)

SAFE_SHARE = 0.1  # largest n δ without a warning: what the δ allows to happen to some image


def build_mechanism(
    config: Config,
    n: int,
    noise: NoiseSource | None = None,
    journal: Journal | None = None,
    piece: int | None = None,
    ranks: Ranks = ALONE,
    together: Mapping[str, int] = NO_GROUPS,
    announce: Announce | None = None,
    first: FirstWeights = PUBLIC_WEIGHTS,
    train: TrainingSet | None = None,
    unit: str = "image",
    drawn: tuple[Tensor, Tensor] | None = None,
) -> Mechanism:
    """Make the mechanism that a config asks for.

    Args:
        config: the whole run.
        n: training images; patients, where they are what is protected.
        noise: the source of its randomness; None for a new one.
        journal: where steps are written ahead; None where no process may follow this one.
        piece: images in one pass, where a resumed run must go on with what it began with.
        ranks: who trains.
        together: training images that belong to one, as a patient's do: a data fingerprint's.
        announce: called before a release of noised images; None where nobody counts it.
        first: the weights before training.
        train: labels and features of the training images, where statistics of them are released.
        unit: what is protected: "image" or "patient".
        drawn: features and labels of drawn images, where ``model.features.drawn_classes`` is true.

    Raises:
        UserError: no plan fits (batch larger than n, δ >= 1/n, an ε out of reach), or local
            DP has no noise for this β.
    """
    settings, noise = config.mechanism, noise or NoiseSource(config.noise_seed)
    cache_dir, names = Path(config.cache_dir), _statistics(config)
    if isinstance(settings, LdpMechanism):
        try:
            pixel_noise(config.beta, mean_moves(settings.pool))
        except ValueError as error:
            raise UserError(str(error)) from error
        return LocalDP(
            config.beta,
            settings.pool,
            settings.matched,
            config.seed,
            noise,
            cache_dir,
            ranks,
            together=together,
            announce=announce,
            first=first,
            statistics=ExactStatistics(train, names),
            one_each=unit == "patient",
        )
    if isinstance(settings, LdpFeaturesMechanism):
        assert train is not None  # a head has features
        try:
            return LocalDPOfFeatures(
                *(config.beta, train, noise, cache_dir),
                uniform=config.model.prior != "train",
                drawn=drawn,
                together=together,
                announce=announce,
                first=first,
            )
        except ValueError as error:
            raise UserError(str(error)) from error
    if isinstance(settings, DpsgdMechanism | ClassMeansMechanism):
        common: dict[str, Any] = {
            "noise": noise, "train": train, "journal": journal, "ranks": ranks,
            "together": together, "first": first,
        }  # fmt: skip
        if isinstance(settings, ClassMeansMechanism):
            bound = class_sensitivity(settings.count_scale, settings.moment_scale)
            return ClassMeans(
                _plan(config, settings, n, unit, batch_size=n, steps=1, max_grad_norm=bound),
                count_scale=settings.count_scale,
                moment_scale=settings.moment_scale,
                uniform=config.model.prior != "train",
                **common,
            )
        batch_size = batch_images(config, n)
        steps_per_epoch = max(1, round(n / batch_size))
        steps = steps_per_epoch * config.trainer.max_epochs
        plan = _plan(config, settings, n, unit, batch_size, steps, config.max_grad_norm)
        return DPSGD(
            plan,
            learning_rate=_learning_rate(config, plan),
            steps_per_epoch=steps_per_epoch,
            max_physical_batch_size=piece or config.max_physical_batch_size,
            input_shape=_input_shape(config, train),
            engine=settings.engine,
            multiplicity=config.data.multiplicity,
            compiled=config.trainer.compile is True,
            **common,
        )
    if isinstance(settings, LdpPublishedMechanism):
        return LocalDPAsPublished(config.beta, noise, ranks, ExactStatistics(train, names))
    if isinstance(settings, DpsgdPublishedMechanism):
        return DPSGDAsPublished(
            microbatches=settings.microbatches[config.data.name],
            max_grad_norm=config.max_grad_norm,
            noise_multiplier=settings.noise_multipliers[config.data.name][config.beta],
            claim=Claim(1 / config.beta, settings.claimed_delta, "image", "the poster's authors"),
            noise=noise,
            statistics=ExactStatistics(train, names),
        )
    statistics = ExactStatistics(train, names)
    return NonPrivate(ranks, statistics, config.model.gradient_clip_val)


def batch_images(config: Config, n: int) -> int:
    """Images, or patients, in a training batch, of n."""
    return n if config.data.batch_size == "all" else config.data.batch_size


def epochs(config: Config) -> int:
    """Passes over the loader that a mechanism takes: as the config says, or one release."""
    computed = config.mechanism.name in ("class_means", "ldp_features")
    return 1 if computed else config.trainer.max_epochs


def _learning_rate(config: Config, plan: PrivacyPlan) -> float:
    """The config's, or a lower one at which the noise moves no weight too far."""
    rate, most = config.learning_rate, config.noise_walk
    if most is None:
        return rate
    noise = plan.noise_std / plan.expected_batch_size  # in the gradient of a step
    walk = noise * noise_walk(config.model.schedule, plan.steps, config.model.momentum)
    return min(rate, most / walk)


def _input_shape(config: Config, train: TrainingSet | None) -> tuple[int, ...]:
    """Of one image as the network sees it, gray ones repeated in colour; or of one vector."""
    if config.model.train == "head":
        assert train is not None
        assert train.vectors is not None
        return tuple(train.vectors.shape[1:])
    return 3, config.data.image_size, config.data.image_size


def _statistics(config: Config) -> tuple[str, ...]:
    """Names of what a config releases of all training images beside the steps, in their order."""
    names = [CENTRE] if config.model.train == "head" and config.model.features.centre else []
    names += [CLASS_SUMS] if config.model.train == "head_then_all" else []
    discriminant = config.mechanism.name == "class_means"  # which counts, and decides midway
    if config.model.prior != "train" and not discriminant:
        names.append(CLASS_COUNTS)
    if config.model.prior == "midway" and not discriminant:
        names.append(CLASS_LOGITS)
    return tuple(names)


def _plan(
    config: Config,
    settings: DpsgdMechanism | ClassMeansMechanism,
    n: int,
    unit: str,
    batch_size: int,
    steps: int,
    max_grad_norm: float,
) -> PrivacyPlan:
    if batch_size > n:
        raise UserError(
            f"data.batch_size={batch_size}: larger than the {n} training {unit}s; allowed is 1 to "
            f"{n}, or all"
        )
    delta = delta_for(n) if settings.delta == "auto" else settings.delta
    if delta >= 1 / n:
        raise UserError(
            f"mechanism.delta={delta}: with {n} training {unit}s a mechanism that publishes one of "
            f"them whole would pass; allowed is below 1/n = {1 / n:.3g}, or auto"
        )
    if n * delta > SAFE_SHARE:
        log.warning(
            "mechanism.delta=%s is large for %d training %ss: to publish one of them whole with "
            "probability %.2f would satisfy it; mechanism.delta=auto takes %s.",
            *(printed_delta(delta), n, unit, n * delta, printed_delta(delta_for(n))),
        )
    names = _statistics(config)
    statistics: tuple[StatisticRelease, ...] = ()
    if isinstance(settings, DpsgdMechanism) and settings.calibration == "noise_multiplier":
        if names:  # never in a config that was checked (config.beta.check_beta); nor under -O
            raise ValueError(f"no ε of which {', '.join(names)} could have a share")
        noise_multiplier = config.beta
    else:
        try:
            statistics, noise_multiplier = share_out(
                *(1 / config.beta, delta, batch_size / n, steps, settings.accountant),
                {name: _share(settings, name) for name in names},
            )
        except (ValueError, RuntimeError, MemoryError, OverflowError) as error:
            raise UserError(
                f"beta={config.beta}: no noise was found for ε = 1/β = "
                f"{printed_epsilon(1 / config.beta)} at δ = {printed_delta(delta)} with "
                f"{settings.accountant} ({error}); try another β or mechanism.accountant"
            ) from error
    return PrivacyPlan(
        n=n,
        expected_batch_size=batch_size,
        max_grad_norm=max_grad_norm,
        noise_multiplier=noise_multiplier,
        steps=steps,
        delta=delta,
        accountant=settings.accountant,
        unit=unit,
        statistics=statistics,
    )


def _share(settings: DpsgdMechanism | ClassMeansMechanism, name: str) -> float:
    if name == CLASS_COUNTS and isinstance(settings, DpsgdMechanism):
        return settings.shares.counts
    if name == CLASS_LOGITS and isinstance(settings, DpsgdMechanism):
        return settings.shares.logits
    if name == CLASS_SUMS and isinstance(settings, DpsgdMechanism):
        return settings.shares.head
    return settings.shares.centre
