"""One noised release of a sum over all images, written ahead and on the ledger."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dpmi.privacy.journal import Journal
from dpmi.privacy.lattice import COARSEST, lattice_gaussian
from dpmi.privacy.ledger import Ledger
from dpmi.privacy.noise import GaussianNoise
from dpmi.privacy.plan import ROUNDING


def release_sum(
    exact: Tensor,
    *,
    sensitivity: float,
    noise_multiplier: float,
    noise: GaussianNoise,
    purpose: str,
    step: int,
    ledger: Ledger,
    journal: Journal | None,
    physical_batch_size: int,
    after_steps: bool = False,
) -> Tensor:
    """Return ``exact`` + N(0, (noise_multiplier · sensitivity · (1 + ROUNDING))² I), on a lattice.

    Contract: where one image moves ``exact`` by at most ``sensitivity`` in L2, this is a Gaussian
    mechanism of ``noise_multiplier``; it is on the journal and the ledger before it is made. The
    lattice is so fine that rounding to it adds less than half of ROUNDING to the sensitivity.

    Args:
        exact: (P,) float64, of private images.
        sensitivity: L2 norm of the most that one image contributes.
        noise_multiplier: standard deviation of the noise in units of the sensitivity.
        noise: draws it.
        purpose: of the noise; the same gives the same again.
        step: number of the release within its purpose.
        ledger: where the release is recorded.
        journal: where it is written ahead; None where no process may follow this one.
        physical_batch_size: of the run's steps, for the journal.
        after_steps: it is made after the last of them.

    Returns:
        (P,) float64 on the CPU.

    Raises:
        ValueError: the noise does not fit a lattice so fine.
    """
    if journal and after_steps:
        journal.cover_after_steps(ledger.steps, noise_multiplier, 1.0, physical_batch_size)
    elif journal:
        journal.cover(ledger.steps, noise_multiplier, 1.0, physical_batch_size, ahead=1)
    ledger.record(noise_multiplier, 1.0)
    std = noise_multiplier * sensitivity * (1 + ROUNDING)
    # Rounding moves two sums by unit sqrt(P) apart at most. A power of two changes no digit.
    finest = sensitivity * ROUNDING / 2 / math.sqrt(len(exact))
    unit = 2.0 ** math.floor(math.log2(min(finest, std / COARSEST)))
    sums = (exact.detach().to("cpu", torch.float64) / unit).contiguous()
    noise.release(sums, lattice_gaussian(std / unit), unit, step, purpose)
    return sums
