"""Statistics that a network is given before its first step or after its last, noised or not."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from dpmi.base.targets import are_findings
from dpmi.models.discriminant import first_head
from dpmi.models.head import FeatureHead
from dpmi.models.network import ImageNetwork
from dpmi.models.prior import DecidingNetwork, between, midway
from dpmi.privacy import finding_statistics
from dpmi.privacy.statistics import (
    COUNT_SCALE,
    LOGIT_BOUND,
    TrainingSet,
    class_sensitivity,
)

CENTRE, CLASS_SUMS, CLASS_COUNTS = "centre", "class_sums", "class_counts"  # before the first step
CLASS_LOGITS = "class_logits"  # after the last

_EXPECTED_SHIFT = 1.0  # standard deviation of what training leaves of a threshold, a priori


def statistic(train: TrainingSet | None, name: str) -> Tensor:
    """The exact statistic of this name: private, of sensitivity 1.

    Raises:
        ValueError: there are no images for it.
    """
    if train is None:
        raise ValueError(f"{name} is of training images, and none were given")
    made = {CENTRE: train.vector_sum, CLASS_SUMS: train.class_sums}
    return made.get(name, train.class_counts)()


def hand_over(
    net: nn.Module, name: str, value: Tensor, train: TrainingSet | None, noise_std: float
) -> None:
    """Give a network the statistic of this name.

    Args:
        net: its buffers keep it; of class sums its head does.
        name: of the statistic.
        value: noised or not.
        train: what it is of; used for its number of images, and of what is public, alone.
        noise_std: standard deviation of the noise of each value.
    """
    assert train is not None
    if name == CENTRE:
        cast(FeatureHead, net).centre.copy_(value / train.n)
    elif name == CLASS_SUMS:
        classes, scale = train.num_classes, class_sensitivity(COUNT_SCALE)
        sums, counts = scale * value[:-classes].view(classes, -1), value[-classes:]
        weight, bias = first_head(
            *(sums, counts * scale / COUNT_SCALE),
            noise_std=noise_std * scale,
            count_std=noise_std * scale / COUNT_SCALE,
        )
        cast(ImageNetwork, net).set_head(weight / train.length, bias)
    elif are_findings(train.labels):
        unit, deciding = math.sqrt(train.num_classes), cast(DecidingNetwork, net)
        present, absent = (value * unit).split(train.num_classes)
        deciding.set_finding_counts(present, absent, train.n, noise_std * unit)
    else:
        cast(DecidingNetwork, net).set_class_counts(value)


def logit_sums(train: TrainingSet | None, logits: Tensor) -> Tensor:
    """The exact statistic CLASS_LOGITS: private, of sensitivity 1.

    Raises:
        ValueError: there are no images for it.
    """
    if train is None:
        raise ValueError(f"{CLASS_LOGITS} is of training images, and none were given")
    return train.logit_sums(logits.cpu())


def decide_midway(
    net: nn.Module, sums: Tensor, train: TrainingSet | None, noise_std: float
) -> None:
    """Let a network decide midway between the classes' mean logits (``models.prior.midway``).

    Of findings, midway between the means of those that show one and those that do not, each by
    itself (``models.prior.between``).

    The numbers of the classes are those that the network was given before its first step. Where
    noise is large beside what a threshold is expected to be off by, the shift is shrunk: its mean
    given what was released, under a Gaussian prior.

    Args:
        net: its buffers keep the shift.
        sums: as from ``logit_sums``, noised or not.
        train: what they are of; used for its number of images, and of what is public, alone.
        noise_std: standard deviation of the noise of a sum.
    """
    assert train is not None
    deciding = cast(DecidingNetwork, net)
    log_shares, classes = deciding.log_shares.double().cpu(), train.num_classes
    if are_findings(train.labels):
        odds = torch.stack([log_shares, -log_shares]).sigmoid()  # (2, K): shown, and not
        counts = train.n * deciding.known.double().cpu() * odds
        scale = finding_statistics.LOGIT_BOUND * math.sqrt(classes) / counts
        shift = between(sums.view(2, classes) * scale)
        variance = between((scale * noise_std).square()) / 2  # of a mean of two
    else:
        scale = (LOGIT_BOUND / (train.n * log_shares.softmax(0)))[:, None]
        shift = midway(sums.view(classes, classes) * scale)
        ones = torch.eye(classes**2, dtype=sums.dtype).view(-1, classes, classes)
        moved = torch.stack([midway(one * scale * noise_std) for one in ones])
        variance = moved.square().sum(0).mean()
    deciding.take_off(shift * (_EXPECTED_SHIFT**2 / (_EXPECTED_SHIFT**2 + variance)))


@dataclass(frozen=True)
class ExactStatistics:
    """Statistics without noise: where nothing is guaranteed, or nothing that they could reveal.

    Attributes:
        train: what they are of.
        names: which, as in ``StatisticRelease``.
    """

    train: TrainingSet | None = None
    names: tuple[str, ...] = ()

    def hand_over(self, net: nn.Module, first_step: int) -> None:
        """Give them to a network before its first step; later it has them from a checkpoint.

        Raises:
            ValueError: there are no images for a statistic.
        """
        for name in () if first_step else self.names:
            if name == CLASS_LOGITS:
                continue
            hand_over(net, name, statistic(self.train, name), self.train, 0.0)

    def settle(self, net: nn.Module, logits: Tensor) -> None:
        """Give a network what it is to have after its last step.

        Raises:
            ValueError: there are no images for a statistic.
        """
        if CLASS_LOGITS in self.names:
            assert self.train is not None
            decide_midway(net, logit_sums(self.train, logits), self.train, 0.0)


NO_STATISTICS = ExactStatistics()
