"""Attacks that were tried: their part of the report, and figures beside a run."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from dpmi.attacking.result import Attacks, Membership, Ranked, Reconstruction, all_attacks
from dpmi.reporting.cells import TITLES
from dpmi.reporting.charts.roc import roc_chart
from dpmi.reporting.charts.style import Chart, new_figure, save
from dpmi.reporting.table import markdown_table

EXPLANATION = (
    "A guarantee bounds every attack; these are some that were made. An attack that fails shows no "
    "more than that this one did."
)
ROC, PICTURE = "attack-roc", "attack-reconstruction"
PARTS = ("original", "released", "denoised")


@dataclass(frozen=True)
class Tried:
    """What the report says of attacks.

    Attributes:
        attacks: each run's that was attacked, once.
        charts: ROC curves, one of each data set and unit.
    """

    attacks: list[Attacks]
    charts: list[Chart]

    @property
    def membership(self) -> list[tuple[Attacks, Membership]]:
        """Those on membership."""
        return [(each, each.membership) for each in self.attacks if each.membership]

    @property
    def linkage(self) -> list[tuple[Attacks, str, Ranked]]:
        """Those on linkage: what was sought, and its ranks."""
        rows = []
        for each in self.attacks:
            if each.linkage:
                rows.append((each, "the image itself", each.linkage.image))
                if each.linkage.patient:
                    rows.append((each, "the patient's nearest other", each.linkage.patient))
        return rows

    @property
    def reconstruction(self) -> list[tuple[Attacks, Reconstruction]]:
        """Those on the image itself."""
        return [(each, each.reconstruction) for each in self.attacks if each.reconstruction]

    def sentences(self, kind: str) -> list[str]:
        """What attackers of a kind know and see, and what intervals are over, each once.

        Args:
            kind: "membership", "linkage" or "reconstruction".
        """
        tried = [(each.mechanism, getattr(each, kind)) for each in self.attacks]
        found = [(mechanism, its) for mechanism, its in tried if its]
        lines = [its.attacker for _, its in found]
        if kind == "membership":
            for absent in dict.fromkeys(its.absent for _, its in found):
                of = dict.fromkeys(TITLES[name] for name, its in found if its.absent == absent)
                lines.append(f"{absent[0].upper()}{absent[1:]}: {', '.join(of)}.")
        if kind != "reconstruction":
            lines += [f"Intervals: {its.intervals}." for _, its in found]
        return list(dict.fromkeys(lines))


def attacks_tried(folders: Sequence[Path]) -> Tried | None:
    """From the files below some folders; None where no attack was tried.

    Raises:
        UserError: a file is not readable.
    """
    found = {
        each.config_digest: each for folder in folders for each in all_attacks(folder)
    }  # the last of a run that is below two
    attacks = sorted(found.values(), key=lambda its: (its.dataset, *_order(its)))
    if not attacks:
        return None
    # Images and patients have the same colours: a chart each.
    panels: dict[tuple[str, str], list[Attacks]] = {}
    for each in attacks:
        if each.membership:
            panels.setdefault((each.dataset, each.membership.unit), []).append(each)
    charts = [
        roc_chart(those, f"{ROC}-{number}") for number, those in enumerate(panels.values(), 1)
    ]
    return Tried(attacks, [chart for chart in charts if chart])


def _order(attacks: Attacks) -> tuple[int, str, float, str]:
    return list(TITLES).index(attacks.mechanism), attacks.detail, attacks.beta, attacks.run


def as_markdown(tried: Tried) -> str:
    """The section."""
    parts = ["## Attacks that were tried", EXPLANATION]
    parts += [f"![{chart.title}]({chart.name}.svg)" for chart in tried.charts]
    if tried.membership:
        header = ["membership", "set-up", "score", "AUC", "advantage"]
        header += ["TPR at FPR 0.1 %", "at FPR 1 %", "guaranteed, at 1 %"]
        rows = [
            [each.run, setting(each, found), roc.score, str(roc.auc), str(roc.advantage),
             *(rate.percent for rate in roc.true_positive.values()), promised_at(found, 0.01)]
            for each, found in tried.membership for roc in found.rocs
        ]  # fmt: skip
        parts += [markdown_table(header, rows), " ".join(tried.sentences("membership"))]
    if tried.linkage:
        header = ["linkage", "set-up", "sought", "ranked first", "guess", "among five", "median"]
        rows = [
            [each.run, each.detail, sought, its.first.percent, f"{its.chance_first:.3%}",
             its.among_five.percent, f"{its.median:g} of {its.candidates}"]
            for each, sought, its in tried.linkage
        ]  # fmt: skip
        parts += [markdown_table(header, rows), " ".join(tried.sentences("linkage"))]
    if tried.reconstruction:
        header = ["reconstruction", "set-up", "SSIM released", "SSIM", "PSNR released", "PSNR (dB)"]
        rows = [
            [each.run, each.detail, f"{its.ssim_released:.3f}", f"{its.ssim:.3f}",
             f"{its.psnr_released:.1f}", f"{its.psnr:.1f}"]
            for each, its in tried.reconstruction
        ]  # fmt: skip
        parts += [markdown_table(header, rows), " ".join(tried.sentences("reconstruction"))]
    return "\n\n".join(parts)


def setting(attacks: Attacks, found: Membership) -> str:
    """What was attacked: size, what was trained, and whose membership, where it is a patient's."""
    return attacks.detail + (", patients" if found.unit == "patient" else "")


def promised_at(found: Membership, rate: float) -> str:
    """The bound of the guarantee at a false positive rate; "–" where there is none."""
    at = dict(found.promised or [])
    return f"{at[rate]:.2%}" if rate in at else "–"


def save_figures(attacks: Attacks, folder: Path) -> None:
    """Draw what a run's attacks found into its folder; as private as the run's other files."""
    charts = [roc_chart([attacks], ROC)]
    if attacks.reconstruction:
        charts.append(picture(attacks, attacks.reconstruction))
    for chart in charts:
        if chart:
            for suffix in (".svg", ".png"):
                save(chart, folder / f"{chart.name}{suffix}")


def picture(attacks: Attacks, found: Reconstruction) -> Chart:
    """An original, what was released of it, and what an attacker makes of that."""
    figure, (row,) = new_figure(1, 3, 7.8, 3.3)
    lines = ["", *(f"\nSSIM {ssim:.3f}, PSNR {psnr:.1f} dB" for ssim, psnr in found.of_shown)]
    for axes, part, words, png in zip(row, PARTS, lines, found.shown, strict=True):
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(png))))
        axes.imshow(pixels, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        axes.set_title(f"{part}{words}", fontsize=8.5, fontweight="normal")
        axes.set_axis_off()
    words = "; ".join(f"{part}{its.strip()}" for part, its in zip(PARTS, lines, strict=True))
    return Chart(PICTURE, f"One image before and after its noise: {attacks.run}", words, figure)
