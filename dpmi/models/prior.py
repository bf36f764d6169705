"""Under which prior a network decides: its logits, corrected for what classes it was trained on."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn


class DecidingNetwork(nn.Module, ABC):
    """A network whose logits are those of a uniform prior once its training shares are known.

    Training with cross-entropy on classes of shares π gives logits that hold log π (Menon et al.
    2021, arXiv 2007.07314, equation 9). In evaluation, never in training, ``log_shares`` is taken
    off again: what remains decides as if every class were equally likely, whatever the sort of
    patients it meets. Zeros leave the prior of the training set. Of findings, each of which is
    present or absent, it is the log odds of each, and what remains decides as if both were equally
    likely.

    Args:
        num_classes: K, or findings.
    """

    log_shares: Tensor  # (K,)
    known: Tensor  # (K,) share of the images of which a finding is known

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.register_buffer("log_shares", torch.zeros(num_classes))
        self.register_buffer("known", torch.ones(num_classes))

    def set_class_counts(self, counts: Tensor) -> None:
        """Take the shares of the classes from their numbers, (K,), which may be noisy.

        A count below one image is taken for one: noise may have made it negative.
        """
        known = counts.double().clamp(min=1.0)
        self.log_shares.copy_((known / known.sum()).log())

    def set_finding_counts(
        self, present: Tensor, absent: Tensor, n: int, noise_std: float = 0.0
    ) -> None:
        """Take the odds of the findings from the images with and without, (K,) each; maybe noisy.

        Args:
            present: images that are known to show each.
            absent: images that are known not to.
            n: images in all.
            noise_std: of a count; one that is smaller than this, or than 1, is taken for this.
        """
        least = max(1.0, noise_std)
        with_it, without = (count.double().clamp(min=least) for count in (present, absent))
        self.log_shares.copy_((with_it / without).log())
        self.known.copy_((with_it + without) / n)

    def take_off(self, shift: Tensor) -> None:
        """Take (K,) more off the logits in evaluation."""
        self.log_shares += shift.to(self.log_shares)

    def decided(self, logits: Tensor) -> Tensor:
        """Logits (B, K) as they are in training, corrected in evaluation."""
        return logits if self.training else logits - self.log_shares

    def fold(self) -> None:
        """Move what is taken off the logits into the biases, for good: after the last step.

        A network without biases goes on taking it off.
        """

    @abstractmethod
    def exported(self) -> dict[str, Tensor]:
        """Weights to be kept, that decide as this network does in evaluation."""


def between(means: Tensor) -> Tensor:
    """What to take off the logits so that each finding is decided midway between its means.

    Args:
        means: (2, K), of the logits of the images that show each finding, and of those that do not.

    Returns:
        (K,), linear in the means.
    """
    return means.mean(0)


def midway(means: Tensor) -> Tensor:
    """What to take off the logits so that each pair of classes is decided midway between them.

    Of two classes j and k, z_k - z_j is compared with the mean of its means over either class. Of
    more than two, all pairs cannot be met at once, and the shift is the least-squares one.

    Args:
        means: (K, K); row c has the mean logits of class c.

    Returns:
        (K,), linear in the means; of K = 2 the threshold of linear discriminant analysis.
    """
    own = means.diagonal()
    pairs = own[None, :] - own[:, None] + means - means.T  # row j, column k
    return pairs.mean(0) / 2
