"""Clipped and noised gradients of a logical batch: DP-SGD (Abadi et al. 2016, Algorithm 1)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from dpmi.privacy.engines.clipping import ClippingEngine
from dpmi.privacy.ledger import Ledger
from dpmi.privacy.noise import GaussianNoise
from dpmi.privacy.plan import PrivacyPlan


class PrivateGradient:
    """Leaves in ``p.grad`` the noised mean gradient of a logical batch.

    Contract: with C = ``plan.max_grad_norm``, one call releases
    (sum_i clip_C(g_i) + N(0, (plan.noise_multiplier C)^2 I)) / plan.expected_batch_size
    and writes it on the ledger first. The sum's L2 sensitivity to one image is C. Noise is added
    once, however many pieces the batch is processed in, and also to an empty batch.

    Args:
        net: the network.
        engine: computes the clipped sum of a piece of the batch; bound to ``net`` and C.
        plan: what to execute.
        noise: draws the noise, on the network's device.
        ledger: where each release is recorded.
        physical_batch_size: most images in one forward and backward pass; may be changed between
            batches, which changes rounding and nothing else.
    """

    def __init__(
        self,
        net: nn.Module,
        engine: ClippingEngine,
        *,
        plan: PrivacyPlan,
        noise: GaussianNoise,
        ledger: Ledger,
        physical_batch_size: int,
    ) -> None:
        self.plan, self.ledger = plan, ledger
        self._engine, self._noise = engine, noise
        self.physical_batch_size = physical_batch_size
        self._parameters = [p for p in net.parameters() if p.requires_grad]
        self._buffer = torch.empty(
            sum(p.numel() for p in self._parameters), device=self._parameters[0].device
        )
        self._grads: dict[Tensor, Tensor] = {}
        start = 0
        for parameter in self._parameters:
            part = self._buffer[start : start + parameter.numel()]
            self._grads[parameter] = part.view(parameter.shape)
            start += parameter.numel()

    @property
    def dropped(self) -> int:
        """Examples that contributed nothing because their gradient was not finite.

        A count on private data: not itself private.
        """
        return self._engine.dropped

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        """Process one logical batch.

        Args:
            images: (B, C, H, W) in [0, 1]; B may be 0.
            labels: (B,) class indices.

        Returns:
            Logits (B, K), detached: computed on private data without noise.
        """
        plan = self.plan
        self.ledger.record(plan.noise_multiplier, plan.sample_rate)
        # The buffer starts as the noise, and the pieces are added to it: nothing without noise is
        # ever in p.grad, and the parameters are gone through once less.
        scale = 1.0 / plan.expected_batch_size
        self._noise.fill(self._buffer, plan.noise_multiplier * plan.max_grad_norm * scale)
        for parameter in self._parameters:
            parameter.grad = None  # an engine's backward pass must not add to the last release
        logits = []
        size = self.physical_batch_size
        for piece, target in zip(images.split(size), labels.split(size), strict=True):
            if len(piece):
                logits.append(self._engine.add_clipped_sum(piece, target, self._grads, scale))
        for parameter in self._parameters:
            parameter.grad = self._grads[parameter]
        return torch.cat(logits) if logits else images.new_zeros((0, 0))

    def close(self) -> None:
        """Leave the network as it was found."""
        self._engine.close()


def refuse_batch_norm(net: nn.Module) -> None:
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
