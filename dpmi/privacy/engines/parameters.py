"""Parameters that a layer uses by itself, of which every example is given a copy of its own.

A class token, a position embedding, a scale of channels: each meets the values of all examples by
broadcasting. Given as (B, ...) in its place, the same values meet the same values, and the copy's
gradient has a row for each example.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from dpmi.privacy.engines.clipping import of_examples
from dpmi.privacy.engines.rules import Contribution, LayerRule, Recorded, Rows, Rule


@dataclass(frozen=True)
class BroadcastRule(Rule):
    """Layers that broadcast parameters along the first axis of their first input, the examples'.

    Attributes:
        along: names of parameters whose own first axis, of length 1, stands for the examples.
        before: of those that lack such an axis, and get one before their own.
    """

    along: tuple[str, ...] = ()
    before: tuple[str, ...] = ()

    def refusal(self, layer: nn.Module) -> str | None:
        """Refuse parameters that the rule does not name."""
        for name, parameter in layer.named_parameters(recurse=False):
            if parameter.requires_grad and name not in self.along + self.before:
                return f"its parameter {name} has no per-example gradients here; freeze it"
            if name in self.along and len(parameter) != 1:
                return f"its parameter {name} has an axis of {len(parameter)} for the examples"
        return None

    def run(self, layer: Any, plain: Any, recorded: Recorded, *inputs: Any, **options: Any) -> Any:
        """The layer's own forward, which finds the copies in place of its parameters.

        Raises:
            ValueError: its first input is not named by its place.
        """
        if not inputs:
            raise ValueError(f"a {type(layer).__name__} was given its input by name")
        own = {name: getattr(layer, name) for name in self.along + self.before}
        copies = {
            name: recorded(name, _Held(parameter), _Copies(name in self.along), inputs[0])
            for name, parameter in own.items()
            if parameter.requires_grad
        }
        layer.__dict__.update(copies)  # found before the parameter is
        try:
            return plain(*inputs, **options)
        finally:
            for name in copies:
                del layer.__dict__[name]


@dataclass(frozen=True)
class _Held:
    parameter: Tensor


@dataclass(frozen=True)
class _Copies(LayerRule):
    """A parameter to (B, ...) of it; of the input, the number of examples alone."""

    has_axis: bool

    def forward(self, layer: _Held, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        own = layer.parameter if self.has_axis else layer.parameter[None]
        return own.repeat(len(x), *(1 for _ in own.shape[1:])), ()

    def backward(
        self,
        layer: _Held,
        saved: tuple[Tensor, ...],
        grad_output: Tensor,
        needs_input: bool,
        views: int,
    ) -> tuple[Tensor | None, Contribution]:
        rows = grad_output.reshape(-1, *layer.parameter.shape)
        return None, Rows({layer.parameter: [of_examples(rows, views)]})
