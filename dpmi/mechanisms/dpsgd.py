"""DP-SGD: Poisson batches, clipped per-example gradients, Gaussian noise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from torch import nn

from dpmi.data.prepare import PreparedData
from dpmi.mechanisms.base import COUNTED, EVALUATED, NO_GROUPS, PUBLIC_WEIGHTS, FirstWeights
from dpmi.mechanisms.frozen_norm import FrozenBatchNormRule, frozen_batch_norm_grad_sampler
from dpmi.models.resnet import FrozenStatisticsBatchNorm
from dpmi.privacy.accounting import epsilon
from dpmi.privacy.engines.bookkeeping import BookKeeping
from dpmi.privacy.engines.clipping import ClippingEngine
from dpmi.privacy.engines.opacus_hooks import OpacusHooks
from dpmi.privacy.engines.piece_size import physical_batch_size
from dpmi.privacy.gradients import PrivateGradient, refuse_batch_norm
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
from dpmi.privacy.plan import ROUNDING, PrivacyPlan
from dpmi.privacy.randomness import NoiseSource
from dpmi.privacy.sampling import PoissonBatches
from dpmi.privacy.spending import LedgerEntry
from dpmi.ranks import ALONE, Ranks

_CHANNELS = 3  # as the network sees every image, gray ones repeated


class DPSGD:
    """Executes a plan and keeps the ledger of what was executed.

    Args:
        plan: what to execute.
        steps_per_epoch: batches of one pass over the loader.
        max_physical_batch_size: most images in one forward and backward pass; "auto" takes what
            half of the free memory holds when training starts.
        image_size: side of the images that training sees, in pixels.
        engine: how gradients are clipped: "fast" (book-keeping) or "opacus" (hooks, the reference).
        noise: where the randomness comes from.
        journal: where steps are written ahead; None where no process may follow this one.
        ranks: who trains: each process clips its part of a batch; all add the same noise.
        together: training images that belong to one, by the name of what they have in common.
        first: the weights before training: what they took from the same images is in ε.
    """

    name = "dpsgd"

    def __init__(
        self,
        plan: PrivacyPlan,
        *,
        steps_per_epoch: int,
        max_physical_batch_size: int | Literal["auto"],
        image_size: int,
        engine: str,
        noise: NoiseSource,
        journal: Journal | None = None,
        ranks: Ranks = ALONE,
        together: Mapping[str, int] = NO_GROUPS,
        first: FirstWeights = PUBLIC_WEIGHTS,
    ) -> None:
        self.plan, self.ranks, self._together = plan, ranks, together
        self._first = first
        self.ledger = Ledger()
        self._piece, self._image_size = max_physical_batch_size, image_size
        self._engine, self._noise = engine, noise
        self._journal, self._dropped = journal, 0
        self._batches = PoissonBatches(plan, steps_per_epoch, noise)
        self._gradient: PrivateGradient | None = None

    def release_data(self, data: PreparedData) -> PreparedData:
        """Leave the images as they are: only gradients are released."""
        return data

    def train_batches(self) -> PoissonBatches:
        """Poisson batches of the plan."""
        return self._batches

    def make_gradient(self, net: nn.Module, first_step: int = 0) -> PrivateGradient:
        """Clipped and noised gradient, executed by the plan and written on the ledger.

        Raises:
            ValueError: a layer that DP-SGD cannot train.
        """
        refuse_batch_norm(net)
        piece = self._piece
        if piece == "auto":
            piece = physical_batch_size(
                net,
                (_CHANNELS, self._image_size, self._image_size),
                expected_batch_size=-(-self.plan.expected_batch_size // self.ranks.size),
                keeps_gradients=self._engine == "opacus",
                sharers=self.ranks.size if next(net.parameters()).device.type == "cpu" else 1,
            )
        size = min(row[0] for row in self.ranks.gather(piece))  # one for all, for the journal
        self._gradient = PrivateGradient(
            net,
            self._make_engine(net),
            plan=self.plan,
            noise=GaussianNoise(self._noise),
            ledger=self.ledger,
            physical_batch_size=size,
            first_step=first_step,
            journal=self._journal,
            ranks=self.ranks,
        )
        return self._gradient

    def _make_engine(self, net: nn.Module) -> ClippingEngine:
        bound = self.plan.max_grad_norm
        if self._engine == "opacus":
            samplers = {FrozenStatisticsBatchNorm: frozen_batch_norm_grad_sampler}
            return OpacusHooks(net, bound, dict(samplers))
        return BookKeeping(net, bound, {FrozenStatisticsBatchNorm: FrozenBatchNormRule()})

    @property
    def reproducible(self) -> bool:
        """Whether the noise can be repeated, so that no ε holds."""
        return self._noise.reproducible

    def spent(self) -> tuple[float, str] | None:
        """ε of the ledger, of an image."""
        if not self.ledger.steps or self.reproducible:
            return None
        return self._epsilon(self.plan.delta), self.plan.unit

    def _epsilon(self, delta: float, **change: Any) -> float:
        entries = [*self.before, *self.ledger.entries]
        return epsilon(entries, delta, self.plan.accountant, **change)

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
                f"the number of training images, {self.plan.n}, is public; it is {COUNTED}",
                "ε is that of one image; a patient with several, or an image with copies in the "
                "training set, has a larger one",
                *self._first.assumptions,
                "metrics on training images (nonprivate/...), and choices made with them or with "
                "the test images, are not covered",
                EVALUATED,
                self._noise.assumption,
                *self._lost(),
                "what rounding in single precision adds to the sensitivity is within the plan's "
                f"allowance of {ROUNDING:.2g}",
            ),
        )

    def _lost(self) -> list[str]:
        lost = self.ledger.lost
        return [f"{lost} steps that an interrupted attempt may have taken are counted"] * bool(lost)

    def describe(self) -> dict[str, Any]:
        """Return the plan, the ledger, the size of pieces, how many gradients were not finite."""
        return {
            "plan": self.plan.to_dict(),
            "ledger": self.ledger.to_dict(),
            "lost_steps": self.ledger.lost,
            "physical_batch_size": self._gradient.physical_batch_size if self._gradient else None,
            "nonprivate/dropped_gradients": self._dropped_so_far(),
        }

    def _dropped_so_far(self) -> int:
        return self._dropped + (self._gradient.dropped if self._gradient else 0)

    def state_dict(self) -> dict[str, Any]:
        """What a process that resumes the run must know; plain values."""
        return {
            "ledger": self.ledger.state_dict(),
            "dropped": self._dropped_so_far(),
            "physical_batch_size": (
                self._gradient.physical_batch_size if self._gradient else self._piece
            ),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what an earlier process executed, before a gradient is made."""
        self.ledger.load_state_dict(state["ledger"])
        self._dropped, self._piece = state["dropped"], state["physical_batch_size"]
