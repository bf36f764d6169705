"""ViT-B/16 (Dosovitskiy et al. 2021, arXiv 2010.11929); a stage is a quarter of its blocks."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from dpmi.backbones import Backbone, State

if TYPE_CHECKING:
    from torch import nn

_PATCH = 16


def _make(classes: int, side: int) -> nn.Module:
    from torchvision.models import vit_b_16

    net: nn.Module = vit_b_16(num_classes=classes, image_size=side)
    return net


def _resized(state: State, side: int) -> State:
    from torchvision.models.vision_transformer import interpolate_embeddings

    fitted: State = interpolate_embeddings(side, _PATCH, OrderedDict(state))
    return fitted


def _blocks(first: int, last: int) -> tuple[str, ...]:
    return tuple(f"encoder.layers.encoder_layer_{i}" for i in range(first, last + 1))


_BLOCK, _OWN = r"^blocks\.(\d+)\.", r"encoder.layers.encoder_layer_\1."

BACKBONE = Backbone(
    _make,
    "ViT_B_16_Weights.IMAGENET1K_V1",
    "heads.head",
    {
        "stem": ("class_token", "encoder.pos_embedding", "conv_proj"),
        "layer1": _blocks(0, 2),
        "layer2": _blocks(3, 5),
        "layer3": _blocks(6, 8),
        "layer4": (*_blocks(9, 11), "encoder.ln"),
    },
    batch_norm=False,
    maps=False,
    patch=_PATCH,
    samplers=False,
    older=((r"\.mlp\.linear_1\.", ".mlp.0."), (r"\.mlp\.linear_2\.", ".mlp.3.")),
    timm=(
        ("^cls_token$", "class_token"),
        ("^pos_embed$", "encoder.pos_embedding"),
        (r"^patch_embed\.proj\.", "conv_proj."),
        (r"^norm\.", "encoder.ln."),
        (r"^head\.", "heads.head."),
        (_BLOCK + r"norm([12])\.", _OWN + r"ln_\2."),
        (_BLOCK + r"attn\.qkv\.", _OWN + "self_attention.in_proj_"),
        (_BLOCK + r"attn\.proj\.", _OWN + "self_attention.out_proj."),
        (_BLOCK + r"mlp\.fc1\.", _OWN + "mlp.0."),
        (_BLOCK + r"mlp\.fc2\.", _OWN + "mlp.3."),
    ),
    timm_input=None,
    resized=_resized,
)
