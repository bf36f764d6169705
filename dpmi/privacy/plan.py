"""The one plan of a DP-SGD run, from which sampling, clipping, noise and accounting derive.

Most broken DP training is broken between files: a sampler set in one place, clipping in another,
noise in a third, and an accountant that believes something else. Here one frozen value is made
once and handed to all of them.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import dp_accounting

# What rounding may add to the sensitivity, relative. Half of it is for the lattice: sums with and
# without an image, each of P coordinates rounded to a multiple of h, differ by at most h sqrt(P)
# more. The other half is for single precision: of an example's norm and factor, and of the sum,
# which changes in its last digits with any image. Measured of it, on ResNet-18 with gradients that
# point one way: sums with and without an image differ from its own part by 5e-8 C an image of the
# batch (5e-5 C at 1024), bfloat16 included, and the length of that difference is C to 1.2e-6.
ROUNDING = 2.0**-10


@dataclass(frozen=True)
class StatisticRelease:
    """One Gaussian release of a statistic of all images, before the first step or after the last.

    Attributes:
        name: "centre", the sum of the images' vectors; "class_sums", of each class's vectors, and
            their numbers; "class_counts"; or, after the last step, "class_logits", the sums of the
            trained network's logits by class.
        noise_multiplier: standard deviation of the noise in units of the sensitivity, which is 1.
        share: of the plan's budget, in μ² (Dong, Roth and Su 2022, arXiv 1905.02383).
    """

    name: str
    noise_multiplier: float
    share: float

    @property
    def noise_std(self) -> float:
        """Standard deviation of the noise of each value, rounding's part of the sensitivity too."""
        return self.noise_multiplier * (1 + ROUNDING)


@dataclass(frozen=True)
class PrivacyPlan:
    """Poisson-subsampled Gaussian mechanism, composed ``steps`` times (Abadi et al. 2016).

    Contract: a run that releases each of ``statistics`` once, includes each of ``n`` units (images,
    or patients) independently with probability ``sample_rate`` at each of ``steps`` steps, clips
    each unit's gradient to ``max_grad_norm`` in L2 (a patient's is the mean of the gradients of
    some of their images), adds N(0, (noise_multiplier * sensitivity)^2) to each
    coordinate of their sum, and divides by ``expected_batch_size``, releases what :meth:`event`
    describes, and nothing else. A sample rate of 1 is every image in every batch: Gaussian
    mechanisms, composed.

    Attributes:
        n: training images, or patients; public under zero-out adjacency.
        expected_batch_size: mean size of a Poisson batch; also the normaliser of the sum.
        max_grad_norm: L2 bound of one unit's gradient.
        noise_multiplier: standard deviation of the noise in units of :attr:`sensitivity`.
        steps: noised releases of the whole run.
        delta: the δ at which ε is stated.
        accountant: "prv", "rdp" or "pld".
        unit: what is protected: "image", or "patient", with all their images.
        adjacency: "zero-out": neighbours differ in one unit replaced by one that contributes
            nothing, so that n is the same for both (Kairouz et al. 2021, arXiv 2103.00039).
        sampler: how a batch is drawn.
        statistics: what is released of all images beside the steps, each once.

    Raises:
        ValueError: a value that no plan can have.
    """

    n: int
    expected_batch_size: int
    max_grad_norm: float
    noise_multiplier: float
    steps: int
    delta: float
    accountant: str
    unit: str = "image"
    adjacency: str = "zero-out"
    sampler: str = "poisson"
    statistics: tuple[StatisticRelease, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what no plan can have."""
        if not 1 <= self.expected_batch_size <= self.n:
            raise ValueError(
                f"expected_batch_size={self.expected_batch_size} must be from 1 to n={self.n}"
            )
        if self.steps < 1:
            raise ValueError(f"steps={self.steps} must be at least 1")
        if not 0 < self.delta < 1 / self.n:
            raise ValueError(f"delta={self.delta} must be above 0 and below 1/n={1 / self.n:.2e}")
        for name in ("max_grad_norm", "noise_multiplier"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name}={value} must be positive and finite")

    @property
    def sample_rate(self) -> float:
        """Probability with which an image, or a patient, is in a batch."""
        return self.expected_batch_size / self.n

    @property
    def sensitivity(self) -> float:
        """L2 bound of what one unit moves in the sum as it is computed and rounded."""
        return self.max_grad_norm * (1 + ROUNDING)

    @property
    def noise_std(self) -> float:
        """Standard deviation of the noise of a release, on the scale of the sum."""
        return self.noise_multiplier * self.sensitivity

    def event(self) -> dp_accounting.DpEvent:
        """Describe what the whole plan releases, in dp-accounting's terms."""
        statistics = [step_event(s.noise_multiplier, 1.0, 1) for s in self.statistics]
        steps = step_event(self.noise_multiplier, self.sample_rate, self.steps)
        return dp_accounting.ComposedDpEvent([*statistics, steps])

    def to_dict(self) -> dict[str, Any]:
        """Plain values for the record, with what derives from them."""
        return asdict(self) | {"sample_rate": self.sample_rate, "sensitivity": self.sensitivity}


def step_event(noise_multiplier: float, sample_rate: float, steps: int) -> dp_accounting.DpEvent:
    """``steps`` Poisson-sampled Gaussian releases as one event."""
    gaussian = dp_accounting.GaussianDpEvent(noise_multiplier)
    sampled = dp_accounting.PoissonSampledDpEvent(sample_rate, gaussian)
    return dp_accounting.SelfComposedDpEvent(sampled, steps)


def delta_for(n: int) -> float:
    """The largest power of ten below 1/(10 n), for ``n`` training images.

    To publish one image in full, chosen at random, with probability n δ satisfies (0, δ)-DP: with
    this δ that is less than one chance in ten for any image at all.
    """
    return float(f"1e-{len(str(10 * n))}")
