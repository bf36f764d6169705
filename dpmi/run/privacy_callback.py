"""Lightning's side of a privacy plan: refuses what does not match it, tells ε as it is spent."""

from __future__ import annotations

import time
from typing import Any

import pytorch_lightning as L
from torch.nn.modules.batchnorm import _BatchNorm

from dpmi.errors import UserError
from dpmi.mechanisms.dpsgd import DPSGD
from dpmi.privacy.accounting import EpsilonSchedule
from dpmi.privacy.sampling import PoissonBatchSampler


class PrivacyCallback(L.Callback):
    """Watches that what runs is what the plan says.

    Logs ``epsilon`` and ``delta`` at the end of every step. ε is that of the ledger's steps, told
    by :class:`EpsilonSchedule`: never less than what was spent.

    Args:
        mechanism: holds the plan and the ledger.

    Raises:
        UserError: at the start of training or of a batch, where a part in hand is not the plan's.
    """

    def __init__(self, mechanism: DPSGD) -> None:
        self._plan, self._ledger = mechanism.plan, mechanism.ledger
        self._schedule: EpsilonSchedule | None = None
        self.seconds = 0.0  # spent here, at the ends of steps

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Compute ε for the steps ahead, before the first of them."""
        self._schedule = EpsilonSchedule(self._plan)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Compare the parts in hand with the plan."""
        if trainer.accumulate_grad_batches != 1:
            raise UserError(
                f"accumulate_grad_batches={trainer.accumulate_grad_batches}: gradients would be "
                "accumulated behind the plan's back, with noise for one batch only; allowed is 1 "
                "(max_physical_batch_size bounds the memory)"
            )
        if trainer.world_size != 1:
            raise UserError(f"{trainer.world_size} devices: the plan's batches are drawn for one")
        self._check_sampler(trainer.train_dataloader)
        planned = self._plan.steps
        will_run = int(trainer.num_training_batches) * int(trainer.max_epochs or 0)
        if self._ledger.steps + will_run != planned:
            raise UserError(
                f"{will_run} steps are ahead and {self._ledger.steps} done, but the plan has "
                f"{planned}: its noise is calibrated for just that many"
            )

    def _check_sampler(self, loader: Any) -> None:
        sampler = getattr(loader, "batch_sampler", None)
        if not isinstance(sampler, PoissonBatchSampler) or sampler.plan != self._plan:
            raise UserError(
                f"the training loader draws its batches by {type(sampler).__name__}, not by the "
                f"plan's Poisson sampler (n={self._plan.n}, sample rate "
                f"{self._plan.sample_rate:.4g}): ε would be that of another mechanism"
            )
        if len(loader.dataset) != self._plan.n:
            raise UserError(
                f"the training loader has {len(loader.dataset)} images, the plan {self._plan.n}"
            )

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Refuse BatchNorm in training mode, whoever switched it on, and steps past the plan."""
        for name, layer in pl_module.named_modules():
            if isinstance(layer, _BatchNorm) and layer.training:
                raise UserError(
                    f"layer {name} is a BatchNorm in training mode: it mixes the images of a "
                    "batch, so clipping bounds nothing; use model.norm=group or frozen_batch"
                )
        if self._ledger.steps >= self._plan.steps:
            raise UserError(f"the plan's {self._plan.steps} steps are spent; train no further")

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Check that the step released exactly once, and tell ε."""
        started = time.perf_counter()
        if self._ledger.steps != trainer.global_step:
            raise UserError(
                f"{trainer.global_step} steps were taken but {self._ledger.steps} noised "
                "gradients are on the ledger: something trains past the mechanism"
            )
        assert self._schedule is not None
        spent = {"epsilon": self._schedule.at(self._ledger.steps), "delta": self._plan.delta}
        pl_module.log("epsilon", spent["epsilon"], prog_bar=True, batch_size=1)
        pl_module.log("delta", spent["delta"], batch_size=1)
        self.seconds += time.perf_counter() - started
