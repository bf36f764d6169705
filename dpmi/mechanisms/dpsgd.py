"""DP-SGD: Poisson batches, clipped per-example gradients, Gaussian noise."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from dpmi.data.prepare import PreparedData
from dpmi.models.resnet import FrozenStatisticsBatchNorm
from dpmi.privacy.accounting import epsilon
from dpmi.privacy.gradients import PrivateGradient
from dpmi.privacy.guarantee import Guarantee
from dpmi.privacy.ledger import Ledger
from dpmi.privacy.plan import PrivacyPlan
from dpmi.privacy.randomness import NoiseSource
from dpmi.privacy.sampling import PoissonBatchSampler


def frozen_batch_norm_grad_sampler(
    layer: nn.Module, activations: list[Tensor], backprops: Tensor
) -> dict[nn.Parameter, Tensor]:
    """Per-example gradients of the affine part of a BatchNorm with constant statistics.

    y = w (x - μ)/σ + b, so dL/dw = Σ_hw dy (x - μ)/σ and dL/db = Σ_hw dy.

    Args:
        layer: the FrozenStatisticsBatchNorm.
        activations: its input, (B, C, H, W), alone in a list.
        backprops: gradient of the loss by its output, (B, C, H, W).

    Returns:
        (B, C) for the weight and for the bias.
    """
    assert isinstance(layer, FrozenStatisticsBatchNorm)
    statistics = (layer.running_mean, layer.running_var)
    normalised = nn.functional.batch_norm(activations[0], *statistics, eps=layer.eps)
    samples = {}
    if layer.weight.requires_grad:
        samples[layer.weight] = torch.einsum("bchw,bchw->bc", backprops, normalised)
    if layer.bias.requires_grad:
        samples[layer.bias] = backprops.sum((2, 3))
    return samples


class DPSGD:
    """Executes a plan and keeps the ledger of what was executed.

    Args:
        plan: what to execute.
        steps_per_epoch: batches of one pass over the loader.
        max_physical_batch_size: most images in one forward and backward pass.
        noise: where the randomness comes from.
    """

    name = "dpsgd"

    def __init__(
        self,
        plan: PrivacyPlan,
        *,
        steps_per_epoch: int,
        max_physical_batch_size: int,
        noise: NoiseSource,
    ) -> None:
        self.plan = plan
        self.ledger = Ledger()
        self._piece, self._noise = max_physical_batch_size, noise
        self._batches = PoissonBatchSampler(plan, steps_per_epoch, noise.torch("sampling"))
        self._gradient: PrivateGradient | None = None

    def release_data(self, data: PreparedData) -> PreparedData:
        """Leave the images as they are: only gradients are released."""
        return data

    def train_batches(self) -> PoissonBatchSampler:
        """Poisson batches of the plan."""
        return self._batches

    def make_gradient(self, net: nn.Module) -> PrivateGradient:
        """Clipped and noised gradient, executed by the plan and written on the ledger.

        Raises:
            ValueError: a layer that DP-SGD cannot train.
        """
        self._gradient = PrivateGradient(
            net,
            plan=self.plan,
            generator=self._noise.torch("gradient", next(net.parameters()).device),
            ledger=self.ledger,
            max_physical_batch_size=self._piece,
            grad_samplers={FrozenStatisticsBatchNorm: frozen_batch_norm_grad_sampler},
        )
        return self._gradient

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
                "the noise is a single-precision Gaussian, not hardened against attacks on "
                "floating-point rounding",
            ),
        )

    def describe(self) -> dict[str, Any]:
        """Return the plan, the ledger, and how many gradients were not finite."""
        return {
            "plan": self.plan.to_dict(),
            "ledger": self.ledger.to_dict(),
            "nonprivate/dropped_gradients": self._gradient.dropped if self._gradient else 0,
        }
