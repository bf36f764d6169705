"""The common base of mechanisms that execute a plan of Gaussian releases."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from dpmi.base.ranks import ALONE, Ranks
from dpmi.data.prepare import PreparedData
from dpmi.mechanisms.base import COUNTED, EVALUATED, NO_GROUPS, PUBLIC_WEIGHTS, FirstWeights
from dpmi.mechanisms.statistics import CLASS_LOGITS, hand_over, statistic
from dpmi.models.gradient import Gradient
from dpmi.privacy.accounting import epsilon
from dpmi.privacy.guarantee import (
    REPEATABLE,
    STRICTER_DELTAS,
    Group,
    Guarantee,
    printed_delta,
)
from dpmi.privacy.journal import Journal
from dpmi.privacy.ledger import Ledger
from dpmi.privacy.noise import GaussianNoise
from dpmi.privacy.plan import ROUNDING, PrivacyPlan, StatisticRelease
from dpmi.privacy.randomness import NoiseSource
from dpmi.privacy.releases import release_sum
from dpmi.privacy.sampling import PoissonBatches
from dpmi.privacy.spending import LedgerEntry
from dpmi.privacy.statistics import SENSITIVITY, TrainingSet


class PlannedMechanism(ABC):
    """Executes a plan and keeps the ledger of what was executed.

    Args:
        plan: what to execute.
        steps_per_epoch: batches of one pass over the loader.
        noise: where the randomness comes from.
        train: what the plan's statistics are of; None where it has none.
        journal: where releases are written ahead; None where no process may follow this one.
        ranks: who trains.
        together: training images that belong to one, by the name of what they have in common.
        first: the weights before training: what they took from the same images is in ε.
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
        together: Mapping[str, int] = NO_GROUPS,
        first: FirstWeights = PUBLIC_WEIGHTS,
    ) -> None:
        self.plan, self.ranks = plan, ranks
        self._together, self._first = together, first
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
        for planned in self.plan.statistics:
            if planned.name != CLASS_LOGITS:
                exact = statistic(self._train, planned.name)
                released = self._release_statistic(planned, exact, physical_batch_size)
                hand_over(net, planned.name, released, self._train, planned.noise_std)

    def _release_statistic(
        self, planned: StatisticRelease, exact: Tensor, physical_batch_size: int
    ) -> Tensor:
        released = release_sum(
            exact,
            sensitivity=SENSITIVITY,
            noise_multiplier=planned.noise_multiplier,
            noise=self._noise,
            purpose="statistic",
            step=self.plan.statistics.index(planned),
            ledger=self.ledger,
            journal=self._journal,
            physical_batch_size=physical_batch_size,
            after_steps=planned.name == CLASS_LOGITS,
        )
        self._statistics_released += 1
        return released

    @abstractmethod
    def settle(self, net: nn.Module, logits: Tensor) -> None:
        """Release what the plan has after its steps, and hand it to the network."""

    @property
    def reproducible(self) -> bool:
        """Whether the noise can be repeated, so that no ε holds."""
        return self._source.reproducible

    def spent(self) -> tuple[float, str] | None:
        """ε of the ledger, of the plan's unit."""
        if not self.ledger.steps or self.reproducible:
            return None
        return self._epsilon(self.plan.delta), self.plan.unit

    def _epsilon(self, delta: float, **change: Any) -> float:
        return epsilon(self.released, delta, self.plan.accountant, **change)

    @property
    def released(self) -> tuple[LedgerEntry, ...]:
        """All that ε is of: what the first weights took from the same images, and the ledger."""
        return (*self.before, *self.ledger.entries)

    @property
    def before(self) -> tuple[LedgerEntry, ...]:
        """Noised gradients of the same images that the weights before training are made of."""
        return self._first.ledger

    def guarantee(self) -> Guarantee:
        """ε of the ledger: of what was executed, also when that is not the whole plan."""
        if not self.ledger.steps:
            return Guarantee.none(self.name, "no step was executed")
        if self.reproducible:
            return Guarantee.none(self.name, REPEATABLE)
        delta = self.plan.delta
        return Guarantee(
            mechanism=self.name,
            epsilon=self._epsilon(delta),
            delta=delta,
            unit=self.plan.unit,
            adjacency=self.plan.adjacency,
            accountant=self.plan.accountant,
            epsilons={printed_delta(other): self._epsilon(other) for other in STRICTER_DELTAS},
            replace_one_epsilon=self._epsilon(delta, adjacency="replace-one"),
            private={
                name: Group(images, self._epsilon(delta, images=images))
                for name, images in self._together.items()
            },
            assumptions=(
                *self._whose(),
                *self._first.assumptions,
                "metrics on training images (nonprivate/...), and choices made with them or with "
                "the test images, are not covered",
                EVALUATED,
                self._source.assumption,
                *self._lost(),
                "what rounding in single precision adds to the sensitivity is within the plan's "
                f"allowance of {ROUNDING:.2g}",
            ),
        )

    def _whose(self) -> tuple[str, str]:
        """What is public, and what a unit is."""
        if self.plan.unit == "patient":
            return (
                f"the number of training patients, {self.plan.n}, is public; it is {COUNTED}",
                "ε is that of one patient with all their training images; one who goes by several "
                "names, or whose image others have too, has a larger one",
            )
        return (
            f"the number of training images, {self.plan.n}, is public; it is {COUNTED}",
            "ε is that of one image; a patient with several, or an image with copies in the "
            "training set, has a larger one",
        )

    def _lost(self) -> list[str]:
        lost = self.ledger.lost
        return [f"{lost} steps that an interrupted attempt may have taken are counted"] * bool(lost)

    def describe(self) -> dict[str, Any]:
        """Return the plan and the ledger."""
        return {
            "plan": self.plan.to_dict(),
            "ledger": self.ledger.to_dict(),
            "lost_steps": self.ledger.lost,
        }

    def state_dict(self) -> dict[str, Any]:
        """What a process that resumes the run must know; plain values."""
        return {
            "ledger": self.ledger.state_dict(),
            "statistics_released": self._statistics_released,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what an earlier process executed, before a gradient is made."""
        self.ledger.load_state_dict(state["ledger"])
        self._statistics_released = state["statistics_released"]
