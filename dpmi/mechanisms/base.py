"""The interface of a mechanism: what it does to data and gradients, and what it guarantees."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol

from torch import Tensor, nn

from dpmi.data.batches import Batches
from dpmi.data.prepare import PreparedData
from dpmi.models.gradient import Gradient
from dpmi.privacy.guarantee import Guarantee
from dpmi.privacy.spending import LedgerEntry, Spending


@dataclass(frozen=True)
class FirstWeights:
    """What a guarantee must know of the weights before training.

    Attributes:
        taken: from the run's own training images, by those who made the weights.
        assumptions: a sentence each.
    """

    taken: tuple[Spending, ...] = ()
    assumptions: tuple[str, ...] = ()

    @property
    def ledger(self) -> tuple[LedgerEntry, ...]:
        """Noised gradients of the same images."""
        return tuple(entry for spending in self.taken for entry in spending.ledger)


PUBLIC_WEIGHTS = FirstWeights(assumptions=("the weights before training come from public data",))

NO_GROUPS: Mapping[str, int] = MappingProxyType({})  # no images that are known to belong together
COUNTED = (
    "counted after files that cannot be read, copies of validation and test images, and images of "
    "patients whom data.test keeps out were left out, so that it depends on the data"
)
EVALUATED = "validation and test images, and every figure computed on them, are covered by no ε"


class Mechanism(Protocol):
    """A way of training on private images."""

    name: str

    def release_data(self, data: PreparedData) -> PreparedData:
        """Return the images as training may see them; called once a run."""
        ...

    def train_batches(self) -> Batches | None:
        """Return the training batches, None for shuffled ones of a fixed size."""
        ...

    def make_gradient(self, net: nn.Module, first_step: int = 0) -> Gradient:
        """Return how a batch of training images becomes a gradient of ``net``.

        Args:
            net: the network, on its device.
            first_step: number of the first step ahead; not 0 where a run is resumed.
        """
        ...

    def settle(self, net: nn.Module, logits: Tensor) -> None:
        """Give the network, after its last step, what it decides by beside its weights.

        Args:
            net: with the weights that are evaluated and kept.
            logits: (n, K), of the training images as training saw them, in evaluation.
        """
        ...

    def guarantee(self) -> Guarantee:
        """State what holds for what has been executed so far; it takes seconds to compute."""
        ...

    def spent(self) -> tuple[float, str] | None:
        """Return the guarantee's ε and unit, alone and at once; None where there is none."""
        ...

    def describe(self) -> dict[str, Any]:
        """Return what else a record must say of what was executed, as plain values."""
        ...
