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
from dpmi.privacy.engines.attention import AttentionRule
from dpmi.privacy.engines.clipping import clip_factors, not_finite, precise, total_loss
from dpmi.privacy.engines.convolution import ConvolutionRule
from dpmi.privacy.engines.functional import FunctionalRule
from dpmi.privacy.engines.linear import LinearRule
from dpmi.privacy.engines.norms import GroupNormRule, LayerNormRule
from dpmi.privacy.engines.rules import Contribution, LayerRule, Rule, Sums

_RULES: dict[type[Any], Rule] = {
    nn.Conv2d: ConvolutionRule(),
    nn.GroupNorm: GroupNormRule(),
    nn.LayerNorm: LayerNormRule(),
    nn.Linear: LinearRule(),
    nn.MultiheadAttention: AttentionRule(),
}
_WITHOUT_RULE = FunctionalRule()


class BookKeeping:
    """Clipping by book-keeping; see :class:`dpmi.privacy.engines.clipping.ClippingEngine`.

    While it is open, the network's own layers record what they do whenever gradients are enabled.

    Args:
        net: the network.
        max_grad_norm: bound C of an example's gradient.
        rules: for further types of layers.

    Attributes:
        functional: names of the layers that have no rule, and go one example at a time.

    Raises:
        ValueError: names a layer that its rule cannot handle, and one whose parameters another
            layer shares.
    """

    def __init__(
        self,
        net: nn.Module,
        max_grad_norm: float,
        rules: dict[type[Any], Rule],
    ) -> None:
        self.dropped: int | Tensor = 0
        self._views = 1
        self._net, self._max_grad_norm = net, max_grad_norm
        self._layers = _trainable_layers(net, _RULES | rules)
        self.functional = tuple(
            name or "(the whole)"
            for name, (_, rule) in self._layers.items()
            if rule is _WITHOUT_RULE
        )
        self._tape: dict[str, Contribution] = {}
        for name, (layer, rule) in self._layers.items():
            layer.forward = partial(self._forward, name, layer, rule, layer.forward)

    @torch.compiler.disable  # what stands between the recorded layers compiles
    def _forward(
        self, name: str, layer: nn.Module, rule: Rule, plain: Any, *inputs: Any, **options: Any
    ) -> Any:
        if not torch.is_grad_enabled():
            return plain(*inputs, **options)
        try:
            return rule.run(layer, plain, partial(self._recorded, name), *inputs, **options)
        except _RefusedError:  # a layer within
            raise
        except ValueError as error:
            raise _RefusedError(f"layer {name or '(the whole)'}: {error}") from error

    def _recorded(self, name: str, part: str, holder: Any, rule: LayerRule, x: Tensor) -> Tensor:
        trained = [p for p in _parameters(holder) if p.requires_grad]
        if not trained:
            return rule.forward(holder, x)[0]
        record = partial(self._record, f"{name}.{part}" if part else name)
        y: Tensor = _Recorded.apply(x, trained[0], holder, rule, self._views, record)
        return y

    def _record(self, name: str, contribution: Contribution) -> None:
        if name in self._tape:
            raise ValueError(
                f"layer {name} was used twice in one pass: its examples' gradients would be two, "
                "and clipped apart; give each use a layer of its own"
            )
        self._tape[name] = contribution

    def add_clipped_sum(
        self,
        images: Tensor,
        labels: Tensor,
        sums: Sums,
        scale: float,
        examples: int | None = None,
    ) -> Tensor:
        """Process one piece of a batch."""
        self._tape.clear()
        images, labels, self._views = as_one_batch(images, labels)
        logits = precise(self._net(images))
        # Autocast is for the forward pass alone: each rule's backward pass takes the type that its
        # forward pass took, and what is measured and summed is float32.
        with torch.autocast(images.device.type, enabled=False):
            total_loss(logits, labels, self._views).backward()
            self._refuse_strays()
            with torch.no_grad():  # the inputs that layers kept are part of a graph
                self._add_weighted_sums(sums, scale, examples)
        return logits.detach()

    def _refuse_strays(self) -> None:
        """What autograd itself found is of no example, and would be missing from the norms."""
        for name, parameter in self._net.named_parameters():
            if parameter.grad is not None:
                parameter.grad = None
                raise ValueError(
                    f"parameter {name} is used outside of its layer's own forward: its examples' "
                    "gradients are not known; use it there, or freeze it"
                )

    def _add_weighted_sums(self, sums: Sums, scale: float, examples: int | None) -> None:
        squares = [contribution.squared_norms for contribution in self._tape.values()]
        norms = torch.stack(squares).sum(0).sqrt()
        rounding = [c.rounding for c in self._tape.values() if c.rounding is not None]
        if rounding:  # on tensor cores; what is executed is bounded, not what was measured
            norms = norms + torch.stack(rounding).norm(dim=0)
        factors, finite = clip_factors(norms, self._max_grad_norm, examples)
        self.dropped = self.dropped + not_finite(finite, examples)
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
        layer: Any,
        rule: LayerRule,
        views: int,
        record: Any,
    ) -> Tensor:
        """``anchor`` requires a gradient, so that backward is called where ``x`` does not."""
        y, saved = rule.forward(layer, x)
        ctx.save_for_backward(*saved)
        ctx.layer, ctx.rule, ctx.views, ctx.record = layer, rule, views, record
        # Not a view: what comes next may add to it in place, and no rule has kept it.
        return y if y._base is None else torch.ops.aten._unsafe_view(y, y.shape)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Any:
        """Gradient of ``x``; the layer's parameters are left to the tape."""
        needs_input = ctx.needs_input_grad[0]
        grad_input, contribution = ctx.rule.backward(
            ctx.layer, ctx.saved_tensors, grad_outputs[0], needs_input, ctx.views
        )
        ctx.record(contribution)
        return grad_input, None, None, None, None, None


class _RefusedError(ValueError):
    """Names the layer already."""


def _parameters(holder: Any) -> list[Tensor]:
    if isinstance(holder, nn.Module):
        return list(holder.parameters())
    return [value for value in vars(holder).values() if isinstance(value, Tensor)]


def _trainable_layers(
    net: nn.Module, rules: dict[type[Any], Rule]
) -> dict[str, tuple[nn.Module, Rule]]:
    layers: dict[str, tuple[nn.Module, Rule]] = {}
    owners: dict[nn.Parameter, str] = {}
    claimed: tuple[str, ...] = ()
    for name, layer in net.named_modules():
        if name.startswith(claimed):
            continue
        own = [p for p in layer.parameters(recurse=False) if p.requires_grad]
        rule = rules.get(type(layer), _WITHOUT_RULE)
        if rule.claims and (own or rule is not _WITHOUT_RULE):
            own = [p for p in layer.parameters() if p.requires_grad]
            claimed += (f"{name}." if name else "",)
        if not own:
            continue
        title = f"layer {name or '(the whole)'} ({type(layer).__name__})"
        if reason := rule.refusal(layer):
            raise ValueError(f"{title}: {reason}")
        for parameter in own:
            if parameter in owners:
                raise ValueError(f"{title} shares a parameter with layer {owners[parameter]}")
            owners[parameter] = name
        layers[name] = (layer, rule)
    return layers
