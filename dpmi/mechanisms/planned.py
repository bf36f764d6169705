"""What all mechanisms have in common that execute a plan of Gaussian releases."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, cast

from torch import Tensor, nn

from dpmi.data.prepare import PreparedData
from dpmi.models.gradient import Gradient
from dpmi.models.head import FeatureHead
from dpmi.models.prior import DecidingNetwork
from dpmi.privacy.accounting import epsilon
from dpmi.privacy.guarantee import Guarantee
from dpmi.privacy.journal import Journal
from dpmi.privacy.ledger import Ledger
from dpmi.privacy.noise import GaussianNoise
from dpmi.privacy.plan import PrivacyPlan, StatisticRelease
from dpmi.privacy.randomness import NoiseSource
from dpmi.privacy.sampling import PoissonBatches
from dpmi.privacy.statistics import SENSITIVITY, TrainingSet
from dpmi.ranks import ALONE, Ranks


class PlannedMechanism(ABC):
    """Executes a plan and keeps the ledger of what was executed.

    Args:
        plan: what to execute.
        steps_per_epoch: batches of one pass over the loader.
        noise: where the randomness comes from.
        train: what the plan's statistics are of; None where it has none.
        journal: where releases are written ahead; None where no process may follow this one.
        ranks: who trains.
    """

    name: str

    def __init__(
        self,
        plan: PrivacyPlan,
        *,
        steps_per_epoch: int,
        noise: NoiseSource,
        train: TrainingSet | None = None,
        journal: Journal | None = None,
        ranks: Ranks = ALONE,
    ) -> None:
        self.plan, self.ranks = plan, ranks
        self.ledger = Ledger()
        self._source, self._noise = noise, GaussianNoise(noise)
        self._train, self._journal = train, journal
        self._statistics_released = 0
        self._batches = PoissonBatches(plan, steps_per_epoch, noise)

    @property
    def taken(self) -> int:
        """Steps of this training on the ledger, without statistics and what was lost."""
        return self.ledger.steps - self.ledger.lost - self._statistics_released

    def release_data(self, data: PreparedData) -> PreparedData:
        """Leave the images as they are: only sums over them are released."""
        return data

    def train_batches(self) -> PoissonBatches:
        """Poisson batches of the plan."""
        return self._batches

    @abstractmethod
    def make_gradient(self, net: nn.Module, first_step: int = 0) -> Gradient:
        """Return what makes a step's release, after the plan's statistics were released."""

    def _release_statistics(self, net: nn.Module, physical_batch_size: int) -> None:
        """Release what the plan has before its steps, and hand it to the network.

        Args:
            net: takes them; a process that resumes has them in its checkpoint.
            physical_batch_size: images in one pass of the steps, for the journal.
        """
        for number, planned in enumerate(self.plan.statistics):
            released = release_sum(
                self._sum_of(planned),
                sensitivity=SENSITIVITY,
                noise_multiplier=planned.noise_multiplier,
                sample_rate=1.0,
                noise=self._noise,
                purpose="statistic",
                step=number,
                ledger=self.ledger,
                journal=self._journal,
                physical_batch_size=physical_batch_size,
            )
            self._statistics_released += 1
            if planned.name == "centre":
                cast(FeatureHead, net).centre.copy_(released / self.plan.n)
            else:
                cast(DecidingNetwork, net).set_class_counts(released)

    def _sum_of(self, planned: StatisticRelease) -> Tensor:
        if self._train is None:
            raise ValueError(f"the plan releases {planned.name}, and was given no images for it")
        return {"centre": self._train.vector_sum, "class_counts": self._train.class_counts}[
            planned.name
        ]()
