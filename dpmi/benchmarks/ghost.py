"""A training step with Opacus' ghost clipping, which no mechanism here uses."""

from __future__ import annotations

from opacus.grad_sample import GradSampleModuleFastGradientClipping
from opacus.optimizers import DPOptimizerFastGradientClipping
from opacus.utils.fast_gradient_clipping_utils import DPLossFastGradientClipping
from torch import Tensor, nn
from torch.optim import Optimizer

from dpmi.mechanisms.layers import SAMPLERS


def prepared(
    net: nn.Module, optimizer: Optimizer, batch_size: int
) -> tuple[DPLossFastGradientClipping, DPOptimizerFastGradientClipping]:
    """Opacus' loss and optimizer around a network and its own.

    Args:
        net: the network.
        optimizer: of its weights.
        batch_size: images in a batch.
    """
    GradSampleModuleFastGradientClipping.GRAD_SAMPLERS.update(SAMPLERS)
    module = GradSampleModuleFastGradientClipping(
        net,
        batch_first=True,
        loss_reduction="mean",
        strict=False,  # which would refuse constant statistics
        max_grad_norm=1.0,
        use_ghost_clipping=True,
    )
    private = DPOptimizerFastGradientClipping(
        optimizer,
        noise_multiplier=1.0,
        max_grad_norm=1.0,
        expected_batch_size=batch_size,
        loss_reduction="mean",
    )
    return DPLossFastGradientClipping(module, private, nn.CrossEntropyLoss()), private


def step(
    criterion: DPLossFastGradientClipping,
    optimizer: DPOptimizerFastGradientClipping,
    images: Tensor,
    labels: Tensor,
    piece: int,
) -> None:
    """One step.

    Args:
        criterion: as from :func:`prepared`, as is ``optimizer``.
        optimizer: adds noise when the last piece has been clipped.
        images: (B, C, H, W).
        labels: (B,).
        piece: most images in a pass.
    """
    pieces = list(zip(images.split(piece), labels.split(piece), strict=True))
    for number, (some, target) in enumerate(pieces, 1):
        optimizer.signal_skip_step(do_skip=number < len(pieces))
        optimizer.zero_grad()
        criterion(criterion.module(some), target).backward()
        optimizer.step()
