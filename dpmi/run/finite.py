"""Stop training that has diverged."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as L
import torch

from dpmi.base.errors import UserError


class FiniteWeights(L.Callback):
    """Refuses to go on with weights that are not finite.

    It looks at the weights, not at the loss: under DP-SGD they are released, and looking at them
    costs no privacy, where stopping by the loss of private images would.

    Raises:
        UserError: after the step that made a weight NaN or infinite.
    """

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        """Look at all weights at once: a sum of norms is finite only if each of them is."""
        norms = torch._foreach_norm([p.detach() for p in pl_module.parameters()])
        if not bool(torch.stack(norms).sum().isfinite()):
            raise UserError(
                f"the weights are not finite after step {trainer.global_step}: training has "
                "diverged; lower model.learning_rate"
            )
