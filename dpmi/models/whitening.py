"""A public, linear change of coordinates before the last layer, for training under noise.

The gradient of a linear layer is large along the directions in which its inputs vary most, whether
or not these tell the classes apart. Without noise many steps make up for it. DP-SGD has few steps,
each clipped and noised: its classifier hardly leaves the difference of the class means. In
coordinates in which the inputs of *public* images have the identity for their covariance, the same
steps come near to logistic regression. No private image has a part in it, so no ε is spent.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

RIDGE = 0.1  # of the mean variance, added to each: directions of hardly any are not blown up


class Whitening(nn.Module):
    """x to (x - mean) @ factor, with factor = (covariance + ridge)^(-1/2).

    Args:
        features: (n, D), of public images; n may be smaller than D.
    """

    mean: Tensor
    factor: Tensor  # (D, D), symmetric

    def __init__(self, features: Tensor) -> None:
        super().__init__()
        rows = features.double()
        mean = rows.mean(0)
        covariance = (rows - mean).T @ (rows - mean) / len(rows)
        ridge = RIDGE * covariance.diagonal().mean().clamp(min=torch.finfo(torch.float32).tiny)
        variances, directions = torch.linalg.eigh(covariance)
        scale = (variances.clamp(min=0.0) + ridge).rsqrt()
        self.register_buffer("mean", mean.float())
        self.register_buffer("factor", ((directions * scale) @ directions.T).float())

    def forward(self, x: Tensor) -> Tensor:
        """(B, D) to (B, D)."""
        return (x - self.mean) @ self.factor

    def folded(self, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """The (K, D) and (K,) that give, of x itself, what these give of what is whitened."""
        plain = weight.double() @ self.factor.double()
        return plain.to(weight), (bias.double() - plain @ self.mean.double()).to(bias)

    def unfolded(self, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """The inverse of ``folded``."""
        whitened = torch.linalg.solve(self.factor.double(), weight.double().T).T
        moved = bias.double() + weight.double() @ self.mean.double()
        return whitened.to(weight), moved.to(bias)
