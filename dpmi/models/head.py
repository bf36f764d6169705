"""A linear classifier on features: all that is trained where the network before it is frozen."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dpmi.models.prior import DecidingNetwork

_SMALLEST = 1e-12
DEGREE = 3  # of the polynomials of an ordinal head


class FeatureHead(DecidingNetwork):
    """Unit vectors to logits: x - centre, to length one again, and a linear map.

    Linear: logits = W x + b. Ordinal, for classes in an order: logits = Q U x + b, where the K x d
    matrix Q holds the orthonormal polynomials of degree 1 to d = 3 at the grades (degree 0 moves
    all logits alike and says nothing). What is trained, U and b, starts at zero.

    Args:
        num_features: D.
        num_classes: K.
        kind: "linear" or "ordinal".
    """

    centre: Tensor  # (D,)
    codes: Tensor  # Q, (K, d)

    def __init__(self, num_features: int, num_classes: int, kind: str) -> None:
        super().__init__(num_classes)
        codes = torch.eye(num_classes) if kind == "linear" else polynomials(num_classes)
        self.register_buffer("centre", torch.zeros(num_features))
        self.register_buffer("codes", codes, persistent=False)
        self.slopes = nn.Linear(num_features, codes.shape[1], bias=False)  # U
        # b as a layer of its own on a constant: examples' gradients of it are found like others.
        self.intercepts = nn.Linear(1, num_classes, bias=False)
        nn.init.zeros_(self.slopes.weight)
        nn.init.zeros_(self.intercepts.weight)

    def centred(self, x: Tensor) -> Tensor:
        """(B, D) less the centre, each row of length one; after it, or the length would differ."""
        x = x - self.centre
        return x / x.norm(dim=1, keepdim=True).clamp(min=_SMALLEST)

    def forward(self, x: Tensor) -> Tensor:
        """(B, D) to logits (B, K); in evaluation by the one matrix that is kept."""
        x = self.centred(x)
        if self.training:
            slopes = nn.functional.linear(self.slopes(x), self.codes)
        else:
            slopes = nn.functional.linear(x, self.weight)
        return self.decided(slopes + self.intercepts(x.new_ones(x.shape[0], 1)))

    @property
    def weight(self) -> Tensor:
        """(K, D): Q U."""
        return (self.codes @ self.slopes.weight).detach()

    @property
    def bias(self) -> Tensor:
        """(K,): b."""
        return self.intercepts.weight.detach().flatten()

    @torch.no_grad()
    def set_weights(self, weight: Tensor, bias: Tensor) -> None:
        """Take (K, D) and (K,) over; of a linear head."""
        self.slopes.weight.copy_(weight)
        self.intercepts.weight.copy_(bias[:, None])

    @torch.no_grad()
    def fold(self) -> None:
        """Into the intercepts."""
        self.intercepts.weight -= self.log_shares[:, None]
        self.log_shares.zero_()

    def exported(self) -> dict[str, Tensor]:
        """``centre``, ``weight`` and ``bias``: logits = weight (x - centre) / |x - centre| + bias.

        x is the image's unit vector (``dpmi.features.vectors``).
        """
        return {
            "centre": self.centre,
            "weight": self.weight,
            "bias": self.bias - self.log_shares,
        }


def polynomials(grades: int, degree: int = DEGREE) -> Tensor:
    """(K, d): orthonormal polynomials of degree 1 to d at the grades 0 to K-1; d < K."""
    degree = min(degree, grades - 1)
    powers = torch.linspace(-1, 1, grades, dtype=torch.float64)[:, None] ** torch.arange(degree + 1)
    q, _ = torch.linalg.qr(powers)  # column by column, as Gram and Schmidt would
    return q[:, 1:].float()
