"""Clipped and noised gradients of a logical batch: DP-SGD (Abadi et al. 2016, Algorithm 1).

Opacus' hooks give every example's gradient, Opacus' optimizer adds the noise. What is ours is the
bound: an example's contribution is at most ``max_grad_norm`` whatever its gradient is, also where
that is not a number.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from opacus.grad_sample import GradSampleHooks
from opacus.optimizers import DPOptimizer
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from dpmi.privacy.ledger import Ledger
from dpmi.privacy.plan import PrivacyPlan

_ROUNDING = 1e-6  # added to a norm before dividing by it, as Opacus does: stays below the bound

GradSampler = Callable[[nn.Module, list[Tensor], Tensor], dict[nn.Parameter, Tensor]]


class BoundedOptimizer(DPOptimizer):
    """Opacus' DP optimizer, bounding also the examples whose gradient is not finite.

    Attributes:
        dropped: examples whose gradient had a NaN, an infinity, or a norm beyond float32, and
            that therefore contributed nothing. A count on private data: not itself private.
    """

    dropped: int = 0

    def clip_and_accumulate(self) -> None:
        """Add this piece's clipped gradients to ``p.summed_grad``.

        The norm is over all parameters: factor_i = min(1, C / ||g_i||), and 0 where ||g_i|| is
        not finite. Those rows are zeroed first, because 0 times NaN is NaN.
        """
        rows = self.grad_samples
        norms = torch.stack([_norm_per_example(row) for row in rows]).norm(dim=0)  # (B,)
        finite = torch.isfinite(norms)
        factors = (self.max_grad_norm / (norms + _ROUNDING)).clamp(max=1.0)
        if not bool(finite.all()):
            self.dropped += int((~finite).sum())
            factors = torch.where(finite, factors, torch.zeros_like(factors))
            for row in rows:
                row[~finite] = 0.0
        for parameter, row in zip(self.params, rows, strict=True):
            clipped = torch.einsum("b,b...->...", factors, row)
            if parameter.summed_grad is None:
                parameter.summed_grad = clipped
            else:
                parameter.summed_grad += clipped
            parameter.grad_sample = None


def _norm_per_example(row: Tensor) -> Tensor:
    """L2 norm of each example's gradient of one parameter: (B, ...) to (B,).

    First over each output channel's weights, then over the channels: one float32 sum of millions
    of squares is off by 4e-5 (and the bound with it), two short ones by 1e-7.
    """
    return row.reshape(len(row), row.shape[1], -1).norm(dim=2).norm(dim=1)


class PrivateGradient:
    """Leaves in ``p.grad`` the noised mean gradient of a logical batch.

    Contract: with C = ``plan.max_grad_norm``, one call releases
    (sum_i clip_C(g_i) + N(0, (plan.noise_multiplier C)^2 I)) / plan.expected_batch_size
    and writes it on the ledger first. The sum's L2 sensitivity to one image is C. Noise is added
    once, however many pieces the batch is processed in, and also to an empty batch.

    Args:
        net: the network; every layer with trainable parameters must have a grad sampler.
        plan: what to execute.
        generator: source of the noise, on the network's device.
        ledger: where each release is recorded.
        max_physical_batch_size: most images in one forward and backward pass.
        grad_samplers: per-example gradients of layers that Opacus does not know.

    Raises:
        ValueError: a layer that mixes examples, or one without per-example gradients.
    """

    def __init__(
        self,
        net: nn.Module,
        *,
        plan: PrivacyPlan,
        generator: torch.Generator,
        ledger: Ledger,
        max_physical_batch_size: int,
        grad_samplers: dict[type[nn.Module], GradSampler],
    ) -> None:
        GradSampleHooks.GRAD_SAMPLERS.update(grad_samplers)
        check_layers(net)
        self.plan, self.ledger = plan, ledger
        self._net, self._piece = net, max_physical_batch_size
        self._hooks = GradSampleHooks(net, loss_reduction="sum", strict=False)
        trainable = [p for p in net.parameters() if p.requires_grad]
        self._optimizer = BoundedOptimizer(
            torch.optim.SGD(trainable, lr=0.0),  # holds the parameters; the caller does the step
            noise_multiplier=plan.noise_multiplier,
            max_grad_norm=plan.max_grad_norm,
            expected_batch_size=plan.expected_batch_size,
            generator=generator,
        )

    @property
    def dropped(self) -> int:
        """Examples that contributed nothing because their gradient was not finite."""
        return self._optimizer.dropped

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        """Process one logical batch.

        Args:
            images: (B, C, H, W) in [0, 1]; B may be 0.
            labels: (B,) class indices.

        Returns:
            Logits (B, K), detached: computed on private data without noise.
        """
        self._optimizer.zero_grad()
        logits = []
        for piece, target in zip(images.split(self._piece), labels.split(self._piece), strict=True):
            if len(piece):
                output = self._net(piece)
                nn.functional.cross_entropy(output, target, reduction="sum").backward()
                self._optimizer.clip_and_accumulate()
                logits.append(output.detach())
        self._release()
        return torch.cat(logits) if logits else images.new_zeros((0, 0))

    def _release(self) -> None:
        for parameter in self._optimizer.params:
            if parameter.summed_grad is None:  # an empty batch: noise alone
                parameter.summed_grad = torch.zeros_like(parameter)
        self.ledger.record(self._optimizer.noise_multiplier, self.plan.sample_rate)
        self._optimizer.add_noise()
        for parameter in self._optimizer.params:
            parameter.grad /= self.plan.expected_batch_size
            parameter.summed_grad = None

    def close(self) -> None:
        """Take the hooks off the network."""
        self._hooks.remove_hooks()


def check_layers(net: nn.Module) -> None:
    """Refuse layers for which clipping an example does not bound its influence.

    Raises:
        ValueError: names the layer and says why.
    """
    for name, layer in net.named_modules():
        if isinstance(layer, _BatchNorm):
            raise ValueError(
                f"layer {name} is a BatchNorm: it mixes the examples of a batch, so no clipping "
                "bounds what one image does; use model.norm=group or model.norm=frozen_batch"
            )
        own = [p for p in layer.parameters(recurse=False) if p.requires_grad]
        if own and type(layer) not in GradSampleHooks.GRAD_SAMPLERS:
            raise ValueError(
                f"layer {name} ({type(layer).__name__}) has no per-example gradients: "
                f"give it a grad sampler or freeze it"
            )
