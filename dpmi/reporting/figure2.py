"""Figure 2: what noise does to an image, to the eye and in numbers."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchmetrics.functional.image import (
    peak_signal_noise_ratio,
    structural_similarity_index_measure,
)

from dpmi.mechanisms.ldp_release import noised
from dpmi.privacy.laplace import mean_moves, pixel_noise
from dpmi.privacy.published import expected_blank_share, scalar_laplace
from dpmi.privacy.randomness import NoiseSource
from dpmi.reporting.cells import Panel
from dpmi.reporting.charts.style import MUTED, Chart, new_figure
from dpmi.run.records.record import RunRecord

DRAWS = 101
_SEED = 0  # public images, shown beside their originals: the noise protects nobody here
MECHANISMS = ("ldp", "ldp_published")


@dataclass(frozen=True)
class Noised:
    """One image under one noise at one β.

    Attributes:
        mechanism, beta: which.
        pool: side of the blocks of pixels that have noise of their own.
        png: it, in base64.
        drawn: "in the run", or "for this page" where no run of the cell left one.
        ssim, psnr: structural similarity, in [-1, 1], and peak signal-to-noise ratio, in dB, of
            the image shown, to the one before.
        typical_ssim, typical_psnr: medians over 101 draws of the noise for this image.
        blank: probability that this image goes wholly black or white, in closed form; None for
            independent noise, where it is nil.
    """

    mechanism: str
    beta: float
    pool: int
    png: str
    drawn: str
    ssim: float
    psnr: float
    typical_ssim: float
    typical_psnr: float
    blank: float | None

    @property
    def title(self) -> str:
        """Which noise, at which β."""
        ours = "independent" if self.pool == 1 else f"on blocks of {self.pool} x {self.pool}"
        which = ours if self.mechanism == "ldp" else "as published"
        return f"{which}, β={self.beta:g}"

    @property
    def words(self) -> str:
        """What it is, for those who do not see it."""
        return f"{self.title}: SSIM {self.ssim:.3f}, PSNR {self.psnr:.1f} dB"


@dataclass(frozen=True)
class Figure2:
    """The same image before and after each noise.

    Attributes:
        dataset, label: what the image is.
        side, every: as in the record's sample.
        before: PNG in base64.
        rows: β to the noised images, ours first.
    """

    dataset: str
    label: str
    side: int
    every: int
    before: str
    rows: dict[float, list[Noised]]

    @property
    def unchanged(self) -> str:
        """What is to be said of the mechanism that is not here."""
        return "DP-SGD trains on the image as it is: its noise is on the gradient."


def figure2(panel: Panel) -> Figure2 | None:
    """From the records' samples; None where none of them may show an image.

    A β of DP-SGD so small that LDP's noise could not keep its ε is left out.
    """
    shown = [run for run in panel.runs if run.sample is not None]
    if not shown:
        return None
    sample = shown[0].sample
    assert sample is not None
    pool = max(run.config["mechanism"].get("pool", 1) for run in shown)  # the runs of LDP have one
    betas = {column.beta for column in panel.columns if column.mechanism != "none"}
    clean = _pixels(sample.before)
    rows = {
        beta: [_noised(m, beta, pool, clean, sample.before, shown) for m in MECHANISMS]
        for beta in sorted(betas)
        if _has_noise(beta, pool)
    }
    if not rows:
        return None
    return Figure2(panel.dataset, sample.label, sample.side, sample.every, sample.before, rows)


def _has_noise(beta: float, pool: int) -> bool:
    try:
        pixel_noise(beta, mean_moves(pool))
    except ValueError:
        return False
    return True


def _noised(
    mechanism: str,
    beta: float,
    pool: int,
    clean: NDArray[np.uint8],
    before: str,
    shown: Sequence[RunRecord],
) -> Noised:
    pool = pool if mechanism == "ldp" else 1
    draws = _draws(mechanism, beta, pool, clean)
    png, drawn = _png(draws[0]), "for this page"
    for run in shown:
        of = run.config["mechanism"]["name"], run.config["beta"], run.sample and run.sample.before
        if of == (mechanism, beta, before) and run.sample and run.sample.after:
            png, drawn = run.sample.after, "in the run"
            break
    (ssim,), (psnr,) = similarity(clean, _pixels(png)[None])
    ssims, psnrs = similarity(clean, draws)
    blank = expected_blank_share(clean[None], beta) if mechanism == "ldp_published" else None
    return Noised(
        mechanism, beta, pool, png, drawn, ssim, psnr,
        float(np.median(ssims)), float(np.median(psnrs)), blank,
    )  # fmt: skip


def _draws(mechanism: str, beta: float, pool: int, clean: NDArray[np.uint8]) -> NDArray[np.uint8]:
    source = NoiseSource(_SEED)  # no secret: the clean image is beside it
    copies = np.repeat(clean[None], DRAWS, axis=0)
    if mechanism == "ldp_published":
        return scalar_laplace(copies, beta, source.stream("laplace_train"))
    _, height, width = clean.shape  # of every second, third, ... pixel: blocks may not fill it
    missing = [(0, 0), (0, 0), (0, -height % pool), (0, -width % pool)]
    whole = np.pad(copies, missing, mode="edge")
    drawn = np.concatenate(list(noised(whole, beta, pool, source, "laplace_train")))
    return drawn[:, :, :height, :width]


def similarity(
    clean: NDArray[np.uint8], noised: NDArray[np.uint8]
) -> tuple[list[float], list[float]]:
    """SSIM and PSNR (dB) of images to the one that they were.

    Args:
        clean: (C, H, W), of 8-bit values.
        noised: (N, C, H, W), the same.

    Returns:
        N values of each.
    """
    ours, theirs = _tensor(noised), _tensor(clean).expand(noised.shape)
    ssim = structural_similarity_index_measure(ours, theirs, data_range=1.0, reduction="none")
    psnr = peak_signal_noise_ratio(ours, theirs, data_range=1.0, reduction="none", dim=(1, 2, 3))
    assert isinstance(ssim, Tensor)
    return ssim.tolist(), psnr.tolist()


def _tensor(pixels: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(pixels.copy()).float().div(255)


def figure2_chart(shown: Figure2, name: str) -> Chart:
    """A row a β: before, our noise, the published noise."""
    figure, axes = new_figure(len(shown.rows), 3, 6.6, 0.5 + 2.15 * len(shown.rows))
    for row, (beta, images) in zip(axes, shown.rows.items(), strict=True):
        pictures = [
            ("before", shown.before),
            *[(image.words.replace(": ", "\n"), image.png) for image in images],
        ]
        for each, (caption, png) in zip(row, pictures, strict=True):
            pixels = np.moveaxis(_pixels(png), 0, -1).squeeze()
            each.imshow(pixels, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            each.set_title(caption, fontsize=8.5, fontweight="normal")
            each.set_xticks([])
            each.set_yticks([])
            each.spines[:].set_visible(False)
        row[0].set_ylabel(f"β = {beta:g}", color=MUTED)
    words = "; ".join(image.words for images in shown.rows.values() for image in images)
    return Chart(name, f"One image before and after noise: {shown.dataset}", words, figure)


def _pixels(png: str) -> NDArray[np.uint8]:
    """(C, H, W) of a PNG in base64."""
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(png))))
    return pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)


def _png(pixels: NDArray[np.uint8]) -> str:
    file = io.BytesIO()
    Image.fromarray(np.moveaxis(pixels, 0, -1).squeeze()).save(file, "PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode("ascii")
