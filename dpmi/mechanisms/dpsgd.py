"""DP-SGD: Poisson batches, clipped per-example gradients, Gaussian noise."""

from __future__ import annotations

from typing import Any, Literal

from torch import nn

from dpmi.data.prepare import PreparedData
from dpmi.mechanisms.frozen_norm import FrozenBatchNormRule, frozen_batch_norm_grad_sampler
from dpmi.models.resnet import FrozenStatisticsBatchNorm
from dpmi.privacy.accounting import epsilon
from dpmi.privacy.engines.bookkeeping import BookKeeping
from dpmi.privacy.engines.clipping import ClippingEngine
from dpmi.privacy.engines.opacus_hooks import OpacusHooks
from dpmi.privacy.engines.piece_size import physical_batch_size
from dpmi.privacy.gradients import PrivateGradient, refuse_batch_norm
from dpmi.privacy.guarantee import Guarantee
from dpmi.privacy.journal import Journal
from dpmi.privacy.ledger import Ledger
from dpmi.privacy.noise import GaussianNoise
from dpmi.privacy.plan import ROUNDING, PrivacyPlan
from dpmi.privacy.randomness import NoiseSource
from dpmi.privacy.sampling import PoissonBatches
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
    ) -> None:
        self.plan, self.ranks = plan, ranks
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

    def guarantee(self) -> Guarantee:
        """ε of the ledger: of what was executed, also when that is not the whole plan."""
        if not self.ledger.steps:
            return Guarantee.none(self.name, "no step was executed")
        return Guarantee(
            mechanism=self.name,
            epsilon=epsilon(self.ledger.entries, self.plan.delta, self.plan.accountant),
            delta=self.plan.delta,
            unit=self.plan.unit,
            adjacency=self.plan.adjacency,
            accountant=self.plan.accountant,
            assumptions=(
                f"the number of training images, {self.plan.n}, is public",
                "a patient with k training images is protected as a group: at least k times this ε",
                "the weights before training come from public data",
                "metrics on training images (nonprivate/...), and choices made with them or with "
                "the test images, are not covered",
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
