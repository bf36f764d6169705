"""Clipped and noised gradients of a logical batch: DP-SGD (Abadi et al. 2016, Algorithm 1)."""

from __future__ import annotations

import logging
import math

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torchvision.ops import StochasticDepth

from dpmi.base.ranks import ALONE, Ranks
from dpmi.privacy.engines import padding
from dpmi.privacy.engines.clipping import ClippingEngine
from dpmi.privacy.journal import Journal
from dpmi.privacy.lattice import (
    BEYOND_REACH,
    COARSEST,
    FINEST,
    REACH,
    LatticeGaussian,
    lattice_gaussian,
)
from dpmi.privacy.ledger import Ledger
from dpmi.privacy.noise import GaussianNoise
from dpmi.privacy.plan import ROUNDING, PrivacyPlan

# In steps of the lattice; with noise on it, double precision is exact to 2^53.
_LARGEST_SUM = 2.0**51
# What single precision moves in a sum grows with the batch: 5.3e-5 C was measured at 1024 images
# (docs/performance.md), and half of ROUNDING is 4.9e-4 C.
LARGEST_BATCH = 8192
_log = logging.getLogger(__name__)


class PrivateGradient:
    """Leaves in ``p.grad`` the noised mean gradient of a logical batch.

    Contract: with C = ``plan.max_grad_norm``, h = :func:`lattice_step` and S = sum_i clip_C(g_i)
    rounded to multiples of h, g_i the mean gradient of the views of image i, or of the drawn images
    of patient i, one call releases
    (S + h round(N(0, (plan.noise_std / h)^2 I))) / plan.expected_batch_size
    and writes it on the journal and the ledger first. S moves by at most ``plan.sensitivity`` in L2
    with one image, or one patient. S + h round(...) is S + N(0, plan.noise_std^2 I), the Gaussian
    mechanism, rounded, for S is on the lattice. Noise is added once, however many pieces the batch
    is processed in, and also to an empty batch.
    Where memory runs out, the same release is made again from its first image, in pieces of half
    the size: same batch, same noise, one entry on the ledger.
    Where several processes train, each is given its part of the batch. S is the sum of all parts,
    rounded once; each process adds the same noise to it, and leaves the same in ``p.grad``.

    Args:
        net: the network.
        engine: computes the clipped sum of a piece of the batch; bound to ``net`` and C.
        plan: what to execute.
        noise: draws the noise; where several processes train, of the same key in each.
        ledger: where each release is recorded.
        physical_batch_size: most images in one forward and backward pass; may be changed between
            batches, which changes rounding and nothing else.
        first_step: number of the first release, which its noise depends on; not 0 where a run
            is resumed.
        journal: where each release is written ahead; None where no process may follow this one,
            and in all processes but the first.
        ranks: who trains.
        pads: fill pieces up to a few sizes, with what adds nothing: where kernels are chosen, or
            code is made, for each size that comes.

    Attributes:
        physical_batch_size: halved where memory ran out.

    Raises:
        ValueError: the noise of the plan cannot be executed on a lattice, or is cut off too early
            for its δ; or its batches are too large for single precision.
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
        pads: bool = False,
    ) -> None:
        self.plan, self.ledger, self._ranks, self._pads = plan, ledger, ranks, pads
        self.physical_batch_size = physical_batch_size
        self._engine, self._noise, self._journal = engine, noise, journal
        self._step = first_step
        self._dropped_elsewhere = 0
        self._parameters = [p for p in net.parameters() if p.requires_grad]
        size = sum(p.numel() for p in self._parameters)
        self._buffer = torch.empty(size, device=self._parameters[0].device)
        self._lattice_step = lattice_step(plan, size)
        self._law = _law(plan, size, self._lattice_step)
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
        return int(self._engine.dropped) + self._dropped_elsewhere

    @property
    def functional(self) -> tuple[str, ...]:
        """Names of layers that the engine has no rule for."""
        return self._engine.functional

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        """Process one logical batch.

        Args:
            images: (B, C, H, W) in [0, 1], or (B, D); or several views of each, (B, K, ...), which
                go through the network together; B may be 0.
            labels: (B,) class indices, or of each view (B, K); (B, F) findings, or of each view
                (B, K, F).

        Returns:
            Logits (B, classes), or of all views (B K, classes), detached: computed on private data
            without noise.
        """
        plan, step = self.plan, self._step
        self._write_ahead()
        self.ledger.record(plan.noise_multiplier, plan.sample_rate)
        self._step += 1
        dropped = self._engine.dropped
        while (logits := self._add_up(images, labels)) is None:
            self._engine.dropped = dropped
            self._engine.forget()
            if images.is_cuda:
                torch.cuda.empty_cache()
            _log.warning("out of memory: %d images in a pass from now", self.physical_batch_size)
            self._write_ahead(again=True)
        if self._ranks.size > 1:
            self._add_up_ranks()
        unit = self._lattice_step / plan.expected_batch_size
        self._noise.release(self._buffer, self._law, unit, step)
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

    def _add_up(self, images: Tensor, labels: Tensor) -> Tensor | None:
        """Sum into the buffer, in steps of the lattice; None where memory ran out, pieces halved.

        What is in the buffer is not yet a release: nothing without noise is ever in ``p.grad``.
        """
        self._buffer.zero_()
        scale = 1.0 / self._lattice_step  # a power of two: changes no digit
        for parameter in self._parameters:
            parameter.grad = None  # an engine's backward pass must not add to the last release
        logits = []
        size = self.physical_batch_size
        for piece, target in zip(images.split(size), labels.split(size), strict=True):
            if not len(piece):
                continue
            try:
                logits.append(self._add_piece(piece, target, scale))
            except (RuntimeError, MemoryError) as error:  # torch.OutOfMemoryError is the former
                if len(piece) == 1 or not ran_out_of_memory(error):
                    raise
                self.physical_batch_size = len(piece) // 2
                return None
        return torch.cat(logits) if logits else images.new_zeros((0, 0))

    def _add_piece(self, images: Tensor, labels: Tensor, scale: float) -> Tensor:
        if not self._pads:
            return self._engine.add_clipped_sum(images, labels, self._grads, scale)
        b = len(images)
        size = padding.size(b, self.physical_batch_size)
        filled = padding.filled(images, size), padding.filled(labels, size)
        logits = self._engine.add_clipped_sum(*filled, self._grads, scale, b)
        return logits[: b * len(logits) // size]  # of all views

    def _add_up_ranks(self) -> None:
        """Replace each process's clipped sum by that of all.

        No process has it before the first, which writes ahead, gives its part: after the release
        is on the disk, with the size of pieces that all then go on with.
        """
        dropped = int(self._engine.dropped)
        rows = self._ranks.gather(self.physical_batch_size, dropped)
        self._dropped_elsewhere = sum(row[1] for row in rows) - dropped
        self.physical_batch_size = min(row[0] for row in rows)
        self._write_ahead(again=True)
        self._ranks.sum(self._buffer)

    def close(self) -> None:
        """Leave the network as it was found."""
        self._engine.close()


def lattice_step(plan: PrivacyPlan, size: int) -> float:
    """h: a power of two, so that the lattice's part of the plan's allowance for rounding holds.

    h sqrt(P) <= C ROUNDING / 2, and at least COARSEST steps in a standard deviation of the noise.

    Args:
        plan: gives C and the noise.
        size: P, how many coordinates a release has.
    """
    most = min(
        plan.max_grad_norm * ROUNDING / 2 / math.sqrt(size),
        plan.noise_std / COARSEST,
    )
    return 2.0 ** math.floor(math.log2(most))


def _law(plan: PrivacyPlan, size: int, step: float) -> LatticeGaussian:
    """The noise of a release, in steps of the lattice; refused where it cannot be executed."""
    refuse_delta(plan, size)
    if plan.expected_batch_size > LARGEST_BATCH:
        raise ValueError(
            f"a batch of {plan.expected_batch_size} images: single precision may move their sum by "
            "more than the plan allows for rounding; give data.batch_size of "
            f"{LARGEST_BATCH} or less"
        )
    if plan.n * plan.sensitivity / step > _LARGEST_SUM or plan.noise_std / step > FINEST:
        raise ValueError(
            f"noise_multiplier={plan.noise_multiplier:g}: sum and noise do not fit one lattice of "
            f"{_LARGEST_SUM:.2g} steps; with n={plan.n} and {size} parameters allowed is about "
            f"{plan.n * COARSEST / _LARGEST_SUM:.1g} to {FINEST * step / plan.sensitivity:.1g}"
        )
    return lattice_gaussian(plan.noise_std / step)


def refuse_delta(plan: PrivacyPlan, size: int) -> None:
    """Refuse a δ below what the noise, which ends somewhere, can keep.

    Args:
        plan: of steps and statistics.
        size: values of a release, the most that any of them has.

    Raises:
        ValueError: it is below.
    """
    releases = plan.steps + len(plan.statistics)
    least = releases * size * BEYOND_REACH
    if plan.delta < least:
        raise ValueError(
            f"delta={plan.delta:g}: below {least:.2g}, the probability that {releases} releases of "
            f"{size} noise values have one beyond {REACH} standard deviations, where the noise "
            "ends; give a larger delta"
        )


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether torch says so: on a GPU by its type, on a CPU by its words alone."""
    messages = ("DefaultCPUAllocator", "std::bad_alloc", "could not create a primitive")  # oneDNN's
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(
        words in str(error) for words in messages
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


def refuse_randomness(net: nn.Module) -> None:
    """Refuse layers that draw random numbers as they compute.

    They are drawn for a batch in one go: what an image gets would depend on which others are in
    its batch, and in which piece of it, not on the seed, the step and the image alone.

    Raises:
        ValueError: names the layer and says why.
    """
    for name, layer in net.named_modules():
        drawn = layer.p if isinstance(layer, _DropoutNd | StochasticDepth) else 0.0
        if isinstance(layer, nn.MultiheadAttention):
            drawn = layer.dropout
        if drawn:
            raise ValueError(
                f"layer {name} ({type(layer).__name__}) drops at random, p={drawn:g}: what an "
                "image gets would depend on the other images of its batch; set it to 0"
            )
