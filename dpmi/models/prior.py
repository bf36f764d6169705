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
    patients it meets. Zeros leave the prior of the training set.

    Args:
        num_classes: K.
    """

    log_shares: Tensor  # (K,)

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.register_buffer("log_shares", torch.zeros(num_classes))

    def set_class_counts(self, counts: Tensor) -> None:
        """Take the shares of the classes from their numbers, (K,), which may be noisy.

        A count below one image is taken for one: noise may have made it negative.
        """
        known = counts.double().clamp(min=1.0)
        self.log_shares.copy_((known / known.sum()).log())

    def decided(self, logits: Tensor) -> Tensor:
        """Logits (B, K) as they are in training, corrected in evaluation."""
        return logits if self.training else logits - self.log_shares

    @abstractmethod
    def exported(self) -> dict[str, Tensor]:
        """Weights to be kept, that decide as this network does in evaluation."""
