"""Multi-head self-attention under book-keeping (Vaswani et al. 2017, section 3.2.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from dpmi.privacy.engines.linear import LinearRule
from dpmi.privacy.engines.rules import Recorded, Rule

_LINEAR = LinearRule()


@dataclass(frozen=True)
class _Packed:
    """The projections to queries, keys and values, as one linear layer."""

    weight: Tensor  # (3 E, E)
    bias: Tensor | None  # (3 E,)


class AttentionRule(Rule):
    """``nn.MultiheadAttention`` of a sequence to itself, without masks and dropout.

    Two linear layers with an example's own attention between, which has no parameters.
    """

    claims = True

    def refusal(self, layer: nn.MultiheadAttention) -> str | None:
        """Refuse what is not torchvision's use of it."""
        allowed = {
            "batch_first=True": layer.batch_first,
            "dropout=0": not layer.dropout,
            "add_bias_kv=False": layer.bias_k is None,
            "add_zero_attn=False": not layer.add_zero_attn,
            "kdim=vdim=embed_dim": layer._qkv_same_embed_dim,
        }
        wrong = [name for name, holds in allowed.items() if not holds]
        return f"allowed is {', '.join(wrong)}" if wrong else None

    def run(
        self, layer: Any, plain: Any, recorded: Recorded, *inputs: Any, **options: Any
    ) -> tuple[Tensor, None]:
        """(B, T, E) to the same shape; no weights.

        Raises:
            ValueError: it was not called as ``layer(x, x, x, need_weights=False)``.
        """
        if (
            len({id(x) for x in inputs}) != 1
            or len(inputs) != 3
            or options != {"need_weights": False}
        ):
            raise ValueError(
                "a MultiheadAttention was given other than one sequence as query, key and value, "
                "with need_weights=False"
            )
        x = inputs[0]
        b, t, e = x.shape
        packed = recorded("in_proj", _Packed(layer.in_proj_weight, layer.in_proj_bias), _LINEAR, x)
        heads = packed.view(b, t, 3, layer.num_heads, layer.head_dim)
        attended = nn.functional.scaled_dot_product_attention(*heads.permute(2, 0, 3, 1, 4))
        joined = attended.transpose(1, 2).reshape(b, t, e)
        return recorded("out_proj", layer.out_proj, _LINEAR, joined), None
