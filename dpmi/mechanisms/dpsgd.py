"""DP-SGD: Poisson batches, clipped per-example gradients, Gaussian noise."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from dpmi.base import devices
from dpmi.mechanisms.layers import RULES, SAMPLERS
from dpmi.mechanisms.planned import PlannedMechanism
from dpmi.mechanisms.statistics import CLASS_LOGITS, decide_midway, logit_sums
from dpmi.privacy.engines.bookkeeping import BookKeeping
from dpmi.privacy.engines.clipping import ClippingEngine
from dpmi.privacy.engines.opacus_hooks import OpacusHooks
from dpmi.privacy.engines.piece_size import physical_batch_size
from dpmi.privacy.gradients import (
    PrivateGradient,
    refuse_batch_norm,
    refuse_delta,
    refuse_randomness,
)
from dpmi.privacy.plan import PrivacyPlan


def clipping_engine(name: str, net: nn.Module, max_grad_norm: float) -> ClippingEngine:
    """The engine of a name, "fast" or "opacus", bound to a network and an example's bound."""
    if name == "opacus":
        return OpacusHooks(net, max_grad_norm, SAMPLERS)
    return BookKeeping(net, max_grad_norm, RULES)


class DPSGD(PlannedMechanism):
    """Clipped per-example gradients with Gaussian noise (Abadi et al. 2016).

    Args:
        plan: what to execute.
        input_shape: of one image as the network sees it, (C, H, W), or of one vector, (D,).
        max_physical_batch_size: most images in one forward and backward pass; "auto" takes what
            half of the free memory holds when training starts.
        engine: how gradients are clipped: "fast" (book-keeping) or "opacus" (hooks, the reference).
        multiplicity: views of each image in a batch; images of each patient.
        learning_rate: the peak of its schedule, which the noise may have lowered.
        compiled: code is made for the network, for the sizes of batches that come.
        options: of PlannedMechanism. Of several processes each clips its part of a batch; all add
            the same noise.
    """

    name = "dpsgd"
    gradient: ClassVar[type[PrivateGradient]] = PrivateGradient  # of a variant another

    def __init__(
        self,
        plan: PrivacyPlan,
        *,
        input_shape: tuple[int, ...],
        max_physical_batch_size: int | Literal["auto"],
        engine: str,
        learning_rate: float,
        multiplicity: int = 1,
        compiled: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(plan, **options)
        self.learning_rate = learning_rate
        self._piece, self._input_shape = max_physical_batch_size, input_shape
        self._engine, self._multiplicity, self._dropped = engine, multiplicity, 0
        self._compiled = compiled
        self._gradient: PrivateGradient | None = None
        self._functional: list[str] | None = None  # layers without a rule, of an earlier process

    def make_gradient(self, net: nn.Module, first_step: int = 0) -> PrivateGradient:
        """Clipped and noised gradient, executed by the plan and written on the ledger.

        Raises:
            ValueError: a layer that DP-SGD cannot train.
        """
        refuse_batch_norm(net)
        refuse_randomness(net)
        piece = self._piece
        if piece == "auto":
            piece = physical_batch_size(
                net,
                self._input_shape,
                expected_batch_size=-(-self.plan.expected_batch_size // self.ranks.size),
                keeps_gradients=self._engine == "opacus",
                views=self._multiplicity,
                sharers=self.ranks.size if next(net.parameters()).device.type == "cpu" else 1,
            )
        size = min(row[0] for row in self.ranks.gather(piece))  # one for all, for the journal
        if any(planned.name == CLASS_LOGITS for planned in self.plan.statistics):
            assert self._train is not None
            refuse_delta(self.plan, self._train.num_logit_sums)
        if not first_step:
            self._release_statistics(net, size)
        self._gradient = self.gradient(
            net,
            clipping_engine(self._engine, net, self.plan.max_grad_norm),
            plan=self.plan,
            noise=self._noise,
            ledger=self.ledger,
            physical_batch_size=size,
            first_step=first_step,
            journal=self._journal,
            ranks=self.ranks,
            pads=self._compiled or not devices.on_host(next(net.parameters())),
        )
        return self._gradient

    def settle(self, net: nn.Module, logits: Tensor) -> None:
        """Release the sums of the classes' logits, where the plan has them; see ``midway``."""
        for planned in self.plan.statistics:
            if planned.name == CLASS_LOGITS:
                exact = logit_sums(self._train, logits)
                piece = self._gradient.physical_batch_size if self._gradient else self._piece
                assert piece != "auto"  # this process trained, or took it over
                released = self._release_statistic(planned, exact, piece)
                decide_midway(net, released, self._train, planned.noise_std)

    def describe(self) -> dict[str, Any]:
        """Return the plan, the ledger, and how gradients were clipped.

        That is: the peak of the learning rate, the size of pieces, which layers went without a
        rule, one example at a time, and how many gradients were not finite.
        """
        return super().describe() | {
            "learning_rate": self.learning_rate,
            "physical_batch_size": None if self._size == "auto" else self._size,
            "functional_layers": self._without_rule,
            "nonprivate/dropped_gradients": self._dropped_so_far(),
        }

    @property
    def _size(self) -> int | str:
        return self._gradient.physical_batch_size if self._gradient else self._piece

    @property
    def _without_rule(self) -> list[str] | None:
        return list(self._gradient.functional) if self._gradient else self._functional

    def _dropped_so_far(self) -> int:
        return self._dropped + (self._gradient.dropped if self._gradient else 0)

    def state_dict(self) -> dict[str, Any]:
        """What a process that resumes the run must know; plain values."""
        return super().state_dict() | {
            "dropped": self._dropped_so_far(),
            "physical_batch_size": self._size,
            "functional_layers": self._without_rule,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what an earlier process executed, before a gradient is made."""
        super().load_state_dict(state)
        self._dropped, self._piece = state["dropped"], state["physical_batch_size"]
        self._functional = state["functional_layers"]
