"""Reconstruct an image from its noised release, without having seen any real image."""

from __future__ import annotations

import base64
import io
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.fft import dctn, idctn
from torchmetrics.functional.image import (
    peak_signal_noise_ratio,
    structural_similarity_index_measure,
)

from dpmi.attacking.likelihood import Pixels, Values
from dpmi.attacking.linkage import law_of, released_images
from dpmi.attacking.result import Reconstruction
from dpmi.base.errors import UserError
from dpmi.config.schema import Config
from dpmi.config.sections import LdpMechanism
from dpmi.data.prepare import prepare
from dpmi.features.projection import drawn_images
from dpmi.mechanisms.ldp_release import spread
from dpmi.privacy.laplace import WHITE, PixelNoise, pooled
from dpmi.privacy.randomness import NoiseSource
from dpmi.run.parts import prepared_data

IMAGES = 16
ATTACKER = (
    "The attacker knows the distribution of the noise and the spectrum of synthetic images, and "
    "sees one noised image, once."
)


class Denoiser:
    """The linear estimate of least squared error, and the noise's mean effect undone.

    After clipping, a value v is released as f(v) in the mean, with a variance s²(v), both known
    exactly. f of an image is estimated by a Wiener filter on its cosine transform: each coefficient
    is shrunk by S / (S + s²), where S is the mean power of drawn images at its frequency and s²
    their mean variance (Wiener 1949; it is the mean a posteriori if both were Gaussian). f is then
    inverted.

    Args:
        law: of the noise.
        drawn: (k, C, r, r) public images, pooled as the released ones are.
    """

    def __init__(self, law: PixelNoise, drawn: Pixels) -> None:
        chances = np.array([law.chances(y) for y in range(WHITE + 1)], float) / 2.0**64
        values = np.arange(WHITE + 1.0)
        self._mean = values @ chances  # f, growing
        variance = np.square(values) @ chances - np.square(self._mean)
        seen = self._mean[drawn]
        self._level = float(seen.mean())
        power = np.square(dctn(seen - self._level, axes=(2, 3), norm="ortho")).mean((0, 1))
        power = _by_frequency(power)
        self._kept = power / (power + variance[drawn].mean())

    def __call__(self, released: Pixels) -> Pixels:
        """(m, C, r, r) released images to estimates of them."""
        shrunk = self._kept * dctn(released - self._level, axes=(2, 3), norm="ortho")
        seen = self._level + idctn(shrunk, axes=(2, 3), norm="ortho")
        clean = np.interp(seen, self._mean, np.arange(WHITE + 1.0))
        return np.asarray(np.rint(clean).astype(np.uint8))


def _by_frequency(power: Values) -> Values:
    """(r, r) powers, each the mean of all at about the same frequency: that of a few images."""
    side = len(power)
    frequency = np.rint(np.hypot(*np.mgrid[:side, :side])).astype(int)
    sums = np.bincount(frequency.ravel(), power.ravel())
    return np.asarray((sums / np.bincount(frequency.ravel()))[frequency])


def reconstruct(config: Config, images: int, seed: int) -> Reconstruction:
    """Release training images of a run anew, by its mechanism, and denoise them.

    Args:
        config: of the run.
        images: how many.
        seed: by which they are drawn.

    Raises:
        UserError: the mechanism adds no noise to pixels, or has none for this β, or the data cannot
            be used.
    """
    started = time.monotonic()
    if not isinstance(config.mechanism, LdpMechanism):
        raise UserError(
            f"mechanism={config.mechanism.name}: releases no image with noise on its pixels; "
            "reconstruction applies to ldp"
        )
    law, pool = law_of(config.mechanism, config.beta), config.mechanism.pool
    data = prepared_data(config)
    train = data.splits["train"].pixels
    rows = np.random.default_rng(seed).permutation(len(train))[:images]
    clean = np.ascontiguousarray(train[rows])
    released = released_images(config, clean, NoiseSource(None))
    cache = Path(config.cache_dir)
    drawn = prepare(drawn_images(released.shape[1], clean.shape[-1]), cache)
    denoise = Denoiser(law, pooled(drawn.splits["train"].pixels, pool))
    original = clean[:, : released.shape[1]]
    seen, found = spread(released, pool), spread(denoise(released), pool)
    before, after = similarity(original, seen), similarity(original, found)
    return Reconstruction(
        attacker=ATTACKER,
        images=len(rows),
        ssim_released=float(np.median(before[0])),
        psnr_released=float(np.median(before[1])),
        ssim=float(np.median(after[0])),
        psnr=float(np.median(after[1])),
        shown=(_png(original[0]), _png(seen[0]), _png(found[0])),
        of_shown=((before[0][0], before[1][0]), (after[0][0], after[1][0])),
        seed=seed,
        seconds=time.monotonic() - started,
    )


def similarity(original: Pixels, other: Pixels) -> tuple[list[float], list[float]]:
    """SSIM, and PSNR in dB, of (m, C, R, R) images to others, one by one; m values of each."""
    theirs, ours = (torch.from_numpy(x.astype(np.float32) / WHITE) for x in (other, original))
    ssim = structural_similarity_index_measure(theirs, ours, data_range=1.0, reduction="none")
    psnr = peak_signal_noise_ratio(theirs, ours, data_range=1.0, reduction="none", dim=(1, 2, 3))
    assert isinstance(ssim, torch.Tensor)
    return ssim.reshape(-1).tolist(), psnr.tolist()


def _png(pixels: NDArray[np.uint8]) -> str:
    """(C, R, R) as PNG in base64."""
    file = io.BytesIO()
    Image.fromarray(np.moveaxis(pixels, 0, -1).squeeze()).save(file, "PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode("ascii")
