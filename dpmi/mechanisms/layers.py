"""How DP-SGD trains the layers that are the models' own, or torchvision's: for both engines.

The models do not know of clipping, nor privacy of the models: it stands here, where they meet.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torchvision.models.convnext import CNBlock, LayerNorm2d
from torchvision.models.vision_transformer import Encoder, VisionTransformer

from dpmi.mechanisms.frozen_norm import FrozenBatchNormRule, frozen_batch_norm_grad_sampler
from dpmi.models.norms import FrozenStatisticsBatchNorm
from dpmi.privacy.engines.norms import LayerNormRule
from dpmi.privacy.engines.opacus_hooks import GradSampler
from dpmi.privacy.engines.parameters import BroadcastRule
from dpmi.privacy.engines.rules import Contribution, Rule


class ChannelNormRule(LayerNormRule):
    """LayerNorm over the channels of (B, C, H, W)."""

    def forward(self, layer: nn.LayerNorm, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The same shape."""
        y, saved = super().forward(layer, x.permute(0, 2, 3, 1))
        return y.permute(0, 3, 1, 2), saved

    def backward(
        self,
        layer: nn.LayerNorm,
        saved: tuple[Tensor, ...],
        grad_output: Tensor,
        needs_input: bool,
        views: int,
    ) -> tuple[Tensor | None, Contribution]:
        """The same shape."""
        upstream = grad_output.permute(0, 2, 3, 1)
        grad_input, kept = super().backward(layer, saved, upstream, needs_input, views)
        return None if grad_input is None else grad_input.permute(0, 3, 1, 2), kept


RULES: dict[type[Any], Rule] = {
    FrozenStatisticsBatchNorm: FrozenBatchNormRule(),
    LayerNorm2d: ChannelNormRule(),
    CNBlock: BroadcastRule(before=("layer_scale",)),
    VisionTransformer: BroadcastRule(along=("class_token",)),
    Encoder: BroadcastRule(along=("pos_embedding",)),
}
SAMPLERS: dict[type[Any], GradSampler] = {
    FrozenStatisticsBatchNorm: frozen_batch_norm_grad_sampler,
}
