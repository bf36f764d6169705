"""Clipped and noised gradients of a logical batch: DP-SGD (Abadi et al. 2016, Algorithm 1)."""

from __future__ import annotations

import logging

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from dpmi.privacy.engines.clipping import ClippingEngine
from dpmi.privacy.journal import Journal
from dpmi.privacy.ledger import Ledger
from dpmi.privacy.noise import GaussianNoise
from dpmi.privacy.plan import PrivacyPlan
from dpmi.ranks import ALONE, Ranks

_log = logging.getLogger(__name__)


class PrivateGradient:
    """Leaves in ``p.grad`` the noised mean gradient of a logical batch.

    Contract: with C = ``plan.max_grad_norm``, one call releases
    (sum_i clip_C(g_i) + N(0, (plan.noise_multiplier C)^2 I)) / plan.expected_batch_size
    and writes it on the journal and the ledger first. The sum's L2 sensitivity to one image is C.
    Noise is added once, however many pieces the batch is processed in, and also to an empty batch.
    Where memory runs out, the same release is made again from its first image, in pieces of half
    the size: same batch, same noise, one entry on the ledger.
    Where several processes train, each is given its part of the batch, and the sum is over all
    parts: the noise is in it once, and each process leaves the same in ``p.grad``.

    Args:
        net: the network.
        engine: computes the clipped sum of a piece of the batch; bound to ``net`` and C.
        plan: what to execute.
        noise: draws the noise, on the network's device.
        ledger: where each release is recorded.
        physical_batch_size: most images in one forward and backward pass; may be changed between
            batches, which changes rounding and nothing else.
        first_step: number of the first release, which its noise depends on; not 0 where a run
            is resumed.
        journal: where each release is written ahead; None where no process may follow this one,
            and in all processes but the first.
        ranks: who trains.

    Attributes:
        physical_batch_size: halved where memory ran out.
    """

    def __init__(
        self,
        net: nn.Module,
        engine: ClippingEngine,
        *,
        plan: PrivacyPlan,
        noise: GaussianNoise,
        ledger: Ledger,
        physical_batch_size: int,
        first_step: int = 0,
        journal: Journal | None = None,
        ranks: Ranks = ALONE,
    ) -> None:
        self.plan, self.ledger, self._ranks = plan, ledger, ranks
        self.physical_batch_size = physical_batch_size
        self._engine, self._noise, self._journal = engine, noise, journal
        self._step = first_step
        self._dropped_elsewhere = 0
        self._parameters = [p for p in net.parameters() if p.requires_grad]
        self._buffer = torch.empty(
            sum(p.numel() for p in self._parameters), device=self._parameters[0].device
        )
        self._grads: dict[Tensor, Tensor] = {}
        start = 0
        for parameter in self._parameters:
            part = self._buffer[start : start + parameter.numel()]
            self._grads[parameter] = part.view(parameter.shape)
            start += parameter.numel()

    @property
    def dropped(self) -> int:
        """Examples that contributed nothing because their gradient was not finite.

        A count on private data: not itself private.
        """
        return self._engine.dropped + self._dropped_elsewhere

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        """Process one logical batch.

        Args:
            images: (B, C, H, W) in [0, 1]; B may be 0.
            labels: (B,) class indices.

        Returns:
            Logits (B, K), detached: computed on private data without noise.
        """
        plan, step = self.plan, self._step
        self._write_ahead()
        self.ledger.record(plan.noise_multiplier, plan.sample_rate)
        self._step += 1
        dropped = self._engine.dropped
        while (logits := self._add_up(images, labels, step)) is None:
            self._engine.dropped = dropped
            self._engine.forget()
            if images.is_cuda:
                torch.cuda.empty_cache()
            _log.warning("out of memory: %d images in a pass from now", self.physical_batch_size)
            self._write_ahead(again=True)
        if self._ranks.size > 1:
            self._add_up_ranks()
        for parameter in self._parameters:
            parameter.grad = self._grads[parameter]
        return logits

    def _write_ahead(self, again: bool = False) -> None:
        """Put the next release on the journal; again, where its rounding is about to change."""
        if self._journal:
            self._journal.cover(
                self.ledger.steps - again,
                self.plan.noise_multiplier,
                self.plan.sample_rate,
                self.physical_batch_size,
            )

    def _add_up(self, images: Tensor, labels: Tensor, step: int) -> Tensor | None:
        """Fill the buffer from its start; None where memory ran out, pieces halved."""
        # The buffer starts as the noise, and the pieces are added to it: nothing without noise is
        # ever in p.grad, and the parameters are gone through once less.
        plan = self.plan
        scale = 1.0 / plan.expected_batch_size
        if self._ranks.is_first:
            self._noise.fill(self._buffer, plan.noise_multiplier * plan.max_grad_norm * scale, step)
        else:
            self._buffer.zero_()
        for parameter in self._parameters:
            parameter.grad = None  # an engine's backward pass must not add to the last release
        logits = []
        size = self.physical_batch_size
        for piece, target in zip(images.split(size), labels.split(size), strict=True):
            if not len(piece):
                continue
            try:
                logits.append(self._engine.add_clipped_sum(piece, target, self._grads, scale))
            except (RuntimeError, MemoryError) as error:  # torch.OutOfMemoryError is the former
                if len(piece) == 1 or not ran_out_of_memory(error):
                    raise
                self.physical_batch_size = len(piece) // 2
                return None
        return torch.cat(logits) if logits else images.new_zeros((0, 0))

    def _add_up_ranks(self) -> None:
        """Make the release, of the first process's noise and all processes' clipped sums.

        No process has it before the first, which writes ahead, gives its noise: after the release
        is on the disk, with the size of pieces that all then go on with.
        """
        rows = self._ranks.gather(self.physical_batch_size, self._engine.dropped)
        self._dropped_elsewhere = sum(row[1] for row in rows) - self._engine.dropped
        self.physical_batch_size = min(row[0] for row in rows)
        self._write_ahead(again=True)
        self._ranks.sum(self._buffer)

    def close(self) -> None:
        """Leave the network as it was found."""
        self._engine.close()


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether torch says so: on a GPU by its type, on a CPU by its words alone."""
    told = ("DefaultCPUAllocator", "std::bad_alloc", "could not create a primitive")  # oneDNN's
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(
        words in str(error) for words in told
    )


def refuse_batch_norm(net: nn.Module) -> None:
    """Refuse layers for which clipping an example does not bound its influence.

    Raises:
        ValueError: names the layer and says why.
    """
    for name, layer in net.named_modules():
        if isinstance(layer, _BatchNorm):
            raise ValueError(
                f"layer {name} is a BatchNorm: it mixes the examples of a batch, so no clipping "
                "bounds what one image does; use model.norm=group or model.norm=frozen_batch"
            )
