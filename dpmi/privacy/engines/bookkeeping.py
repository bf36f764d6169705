"""Per-example clipping in one forward and one backward pass ("book-keeping").

Bu et al. 2022, "Differentially Private Optimization on Large Model at Small Cost" (arXiv
2210.00038): the backward pass computes the gradients of inputs only; each layer keeps what its
weight gradient needs; the norms of the examples' gradients follow layer by layer, and with them
the factors; then each layer makes its clipped sum at about the price of the weight gradient that
plain training would have made.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from dpmi.base.views import as_one_batch
from dpmi.privacy.engines.clipping import clip_factors, total_loss
from dpmi.privacy.engines.convolution import ConvolutionRule
from dpmi.privacy.engines.rules import Contribution, GroupNormRule, LayerRule, LinearRule, Sums

_RULES: dict[type[Any], LayerRule] = {
    nn.Conv2d: ConvolutionRule(),
    nn.GroupNorm: GroupNormRule(),
    nn.Linear: LinearRule(),
}


class BookKeeping:
    """Clipping by book-keeping; see :class:`dpmi.privacy.engines.clipping.ClippingEngine`.

    While it is open, the network's own layers record what they do whenever gradients are enabled.

    Args:
        net: the network.
        max_grad_norm: bound C of an example's gradient.
        rules: for further types of layers.

    Raises:
        ValueError: names a layer that has no rule, and one whose parameters another layer shares.
    """

    def __init__(
        self,
        net: nn.Module,
        max_grad_norm: float,
        rules: dict[type[Any], LayerRule],
    ) -> None:
        self.dropped, self._views = 0, 1
        self._net, self._max_grad_norm = net, max_grad_norm
        self._layers = _trainable_layers(net, _RULES | rules)
        self._tape: dict[str, Contribution] = {}
        for name, (layer, rule) in self._layers.items():
            anchor = next(p for p in layer.parameters(recurse=False) if p.requires_grad)
            plain = layer.forward
            layer.forward = partial(self._forward, name, layer, rule, anchor, plain)

    @torch.compiler.disable  # what stands between the recorded layers compiles
    def _forward(
        self, name: str, layer: nn.Module, rule: LayerRule, anchor: Tensor, plain: Any, x: Tensor
    ) -> Tensor:
        if not torch.is_grad_enabled():
            output: Tensor = plain(x)
            return output
        record = partial(self._record, name)
        y: Tensor = _Recorded.apply(x, anchor, layer, rule, self._views, record)
        return y

    def _record(self, name: str, contribution: Contribution) -> None:
        if name in self._tape:
            raise ValueError(
                f"layer {name} was used twice in one pass: its examples' gradients would be two, "
                "and clipped apart; give each use a layer of its own"
            )
        self._tape[name] = contribution

    def add_clipped_sum(self, images: Tensor, labels: Tensor, sums: Sums, scale: float) -> Tensor:
        """Process one piece of a batch."""
        self._tape.clear()
        images, labels, self._views = as_one_batch(images, labels)
        logits: Tensor = self._net(images).float()
        # Autocast is for the forward pass alone: each rule's backward pass takes the type that its
        # forward pass took, and what is measured and summed is float32.
        with torch.autocast(images.device.type, enabled=False):
            total_loss(logits, labels, self._views).backward()
            with torch.no_grad():  # the inputs that layers kept are part of a graph
                self._add_weighted_sums(sums, scale)
        return logits.detach()

    def _add_weighted_sums(self, sums: Sums, scale: float) -> None:
        squares = [contribution.squared_norms for contribution in self._tape.values()]
        norms = torch.stack(squares).sum(0).sqrt()
        factors, finite = clip_factors(norms, self._max_grad_norm)
        if finite is not None:
            self.dropped += int((~finite).sum())
        while self._tape:  # what was kept for a layer goes as soon as it has served
            _, contribution = self._tape.popitem()
            contribution.add_weighted_sum(factors * scale, finite, sums)

    def forget(self) -> None:
        """Drop the tape."""
        self._tape.clear()

    def close(self) -> None:
        """Give the layers their own forward back."""
        for layer, _ in self._layers.values():
            del layer.forward
        self._layers = {}


class _Recorded(torch.autograd.Function):
    """A layer whose backward pass stops short of its own parameters."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        anchor: Tensor,
        layer: nn.Module,
        rule: LayerRule,
        views: int,
        record: Any,
    ) -> Tensor:
        """``anchor`` requires a gradient, so that backward is called where ``x`` does not."""
        y, saved = rule.forward(layer, x)
        ctx.save_for_backward(*saved)
        ctx.layer, ctx.rule, ctx.views, ctx.record = layer, rule, views, record
        return y

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Any:
        """Gradient of ``x``; the layer's parameters are left to the tape."""
        needs_input = ctx.needs_input_grad[0]
        grad_input, contribution = ctx.rule.backward(
            ctx.layer, ctx.saved_tensors, grad_outputs[0], needs_input, ctx.views
        )
        ctx.record(contribution)
        return grad_input, None, None, None, None, None


def _trainable_layers(
    net: nn.Module, rules: dict[type[Any], LayerRule]
) -> dict[str, tuple[nn.Module, LayerRule]]:
    layers: dict[str, tuple[nn.Module, LayerRule]] = {}
    owners: dict[nn.Parameter, str] = {}
    for name, layer in net.named_modules():
        own = [p for p in layer.parameters(recurse=False) if p.requires_grad]
        if not own:
            continue
        title = f"layer {name or '(the whole)'} ({type(layer).__name__})"
        rule = rules.get(type(layer))
        if rule is None:
            raise ValueError(
                f"{title} has no per-example gradients here: allowed are "
                f"{', '.join(sorted(kind.__name__ for kind in rules))}; replace or freeze it"
            )
        if reason := rule.refusal(layer):
            raise ValueError(f"{title}: {reason}")
        for parameter in own:
            if parameter in owners:
                raise ValueError(f"{title} shares a parameter with layer {owners[parameter]}")
            owners[parameter] = name
        layers[name] = (layer, rule)
    return layers
