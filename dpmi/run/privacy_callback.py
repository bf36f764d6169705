"""Lightning's side of a privacy plan: refuses what does not match it, logs ε as it is spent."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import pytorch_lightning as L
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from dpmi.base.errors import UserError
from dpmi.base.ranks import ALONE
from dpmi.mechanisms.planned import PlannedMechanism
from dpmi.privacy.accounting import EpsilonSchedule, steps_within
from dpmi.privacy.journal import Reservation, reserved_entries
from dpmi.privacy.sampling import PoissonBatches


class PrivacyCallback(L.Callback):
    """Watches that what runs is what the plan says.

    Logs ``epsilon`` and ``delta`` at the end of every step. ε is that of the ledger's steps, by
    :class:`EpsilonSchedule`: never less than what was spent.

    Args:
        mechanism: holds the plan and the ledger.
        reserved: releases that earlier attempts of this run may have made and cannot be repeated
            to the bit: all of them that a checkpoint does not know are counted as lost.
        reservations: what they were; all that the journal has.
        max_epsilon: the budget; training stops before the step that would pass it.

    Attributes:
        stopped: why training stopped before the plan's end, None where it did not.

    Raises:
        UserError: at the start of training or of a batch, where a part in hand is not the plan's.
    """

    def __init__(
        self,
        mechanism: PlannedMechanism,
        reserved: int = 0,
        max_epsilon: float | None = None,
        reservations: Sequence[Reservation] = (),
    ) -> None:
        self._mechanism, self._reserved, self._max_epsilon = mechanism, reserved, max_epsilon
        self._reservations = reservations
        self._plan, self._ledger = mechanism.plan, mechanism.ledger
        self._schedule: EpsilonSchedule | None = None
        self._affordable: int | None = None  # steps of the plan
        self.stopped: str | None = None
        self.seconds = 0.0  # spent here, at the ends of steps

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint: what was executed."""
        return self._mechanism.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what the process before this one executed."""
        self._mechanism.load_state_dict(state_dict)

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Count what was lost, and compute ε for the steps ahead, before the first of them."""
        plan, ledger = self._plan, self._ledger
        for entry in reserved_entries(self._reservations, ledger.steps, self._reserved):
            ledger.record_lost(entry)
        beside = [*self._mechanism.before, *ledger.lost_entries]
        self._schedule = EpsilonSchedule(plan, beside)
        if self._max_epsilon is not None:
            self._affordable = steps_within(self._max_epsilon, plan, beside)
            if not self._affordable:
                raise UserError(
                    f"privacy.max_epsilon={self._max_epsilon:g}: not one step of this run fits "
                    f"({ledger.lost} releases were lost to an interruption); allow more, or raise "
                    "beta"
                )

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Compare the parts in hand with the plan."""
        if trainer.accumulate_grad_batches != 1:
            raise UserError(
                f"accumulate_grad_batches={trainer.accumulate_grad_batches}: gradients would be "
                "accumulated outside the plan, with noise for one batch only; allowed is 1 "
                "(max_physical_batch_size bounds the memory)"
            )
        ranks = self._mechanism.ranks
        if (trainer.global_rank, trainer.world_size) != (ranks.rank, ranks.size):
            raise UserError(
                f"process {trainer.global_rank} of {trainer.world_size} trains as if it were "
                f"{ranks.rank} of {ranks.size}: noise would not be added exactly once"
            )
        self._check_sampler(trainer.train_dataloader)
        planned, done = self._plan.steps, self._mechanism.taken
        in_all = int(trainer.num_training_batches) * int(trainer.max_epochs or 0)
        will_run = in_all - trainer.global_step
        if done + will_run != planned:
            raise UserError(
                f"{will_run} steps are ahead and {done} done, but the plan has "
                f"{planned}: its noise is calibrated for just that many"
            )

    def _check_sampler(self, loader: Any) -> None:
        sampler = getattr(loader, "batch_sampler", None)
        batches = getattr(sampler, "batches", sampler)
        if not isinstance(batches, PoissonBatches) or batches.plan != self._plan:
            raise UserError(
                f"the training loader draws its batches by {type(batches).__name__}, not by the "
                f"plan's Poisson sampler (n={self._plan.n}, sample rate "
                f"{self._plan.sample_rate:.4g}): ε would be that of another mechanism"
            )
        if getattr(sampler, "ranks", ALONE) != self._mechanism.ranks:
            raise UserError(
                "the training loader gives out another process's part of a batch: the parts of all "
                "would not be the plan's sample"
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
        if self._mechanism.taken >= self._plan.steps:
            raise UserError(f"the plan's {self._plan.steps} steps are spent; train no further")
        if self._affordable is not None and self._mechanism.taken >= self._affordable:
            raise UserError(f"privacy.max_epsilon={self._max_epsilon:g} is spent; train no further")

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Check that the step released exactly once, and log ε."""
        started = time.perf_counter()
        if self._mechanism.taken != trainer.global_step:
            raise UserError(
                f"{trainer.global_step} steps were taken but {self._mechanism.taken} noised "
                "gradients are on the ledger: something trains without the mechanism"
            )
        assert self._schedule is not None
        taken = self._mechanism.taken
        if not self._mechanism.reproducible:  # else no ε holds
            # As tensors on the processor: Lightning would send numbers to a device, and wait.
            spent = torch.tensor(self._schedule.at(taken))
            pl_module.log("epsilon", spent, batch_size=1)
            pl_module.log("delta", torch.tensor(self._plan.delta), batch_size=1)
        if self._affordable is not None and taken >= self._affordable:
            if taken < self._plan.steps:
                self.stopped = (
                    f"privacy.max_epsilon={self._max_epsilon:g} was reached after {taken} of "
                    f"the plan's {self._plan.steps} steps"
                )
            trainer.should_stop = True
        self.seconds += time.perf_counter() - started
