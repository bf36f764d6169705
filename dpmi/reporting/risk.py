"""What the guarantees mean: the most that an attacker can do, cell by cell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dpmi.privacy.guarantee import Group, printed_epsilon
from dpmi.privacy.risk import FALSE_POSITIVE_RATES, Risk
from dpmi.reporting.cells import Cell, Column, Panel

EXPLANATION = (
    "What follows from the guarantees for any attacker at all, who knows the network, everything "
    "in the training set but one unit, and all that was released, every step of training too. "
    "Upper bounds, computed from the releases on each run's ledger and rounded up. Zero-out: it "
    "was there, or a blank in its place; replace-one: it or any other. Where the unit is an image, "
    "a patient with several of them is hidden less well than one of them is. Where patients are "
    "known, a report made of private records has the bounds of the one with the most images, too."
)
CSV_HEADER = (
    *("attack_accuracy", "attack_advantage"),
    *(f"attack_tpr_at_fpr_{rate:g}" for rate in FALSE_POSITIVE_RATES),
    *("attack_picks_of_2", "attack_picks_of_10", "attack_picks_of_most", "attack_most"),
)
MARKDOWN_HEADER = (
    *("what an attacker can do, at most", "of one", "right of 100 guesses (chance: 50)"),
    *(f"TPR at FPR {100 * rate:g} % (%)" for rate in FALSE_POSITIVE_RATES),
    *("picks of 2 (%)", "of 10 (%)", "of 1000 (%)"),
)


@dataclass(frozen=True)
class CellRisk:
    """One cell of a panel that completed.

    Attributes:
        column: which.
        risks: of its least private run, by unit, and of the patient with the most images, where
            known; empty where a run has no guarantee.
        largest: that patient's images, and ε of all of them at once; None where ``risks`` has none.
        reason: why nothing is bounded, where nothing is.
    """

    column: Column
    risks: tuple[Risk, ...]
    largest: Group | None
    reason: str | None

    @property
    def of_largest(self) -> str:
        """ε of that patient, in a sentence; "" where there is none."""
        if self.largest is None:
            return ""
        epsilon = printed_epsilon(self.largest.epsilon)
        return f"All {self.largest.images} images of that patient together have ε = {epsilon}."


def cell_risks(panel: Panel) -> list[CellRisk]:
    """One a cell that completed, by column."""
    found = []
    for column, cells in panel.columns.items():
        its = cells["test"].guarantee
        if its is not None:
            bounds, largest = risks_of_cell(cells["test"])
            found.append(CellRisk(column, bounds, largest, its.reason))
    return found


def risks_of_cell(cell: Cell) -> tuple[tuple[Risk, ...], Group | None]:
    """Of the run about which an attacker can do most; none where a run has no guarantee."""
    if not cell.completed or not all(run.risk for run in cell.completed):
        return (), None
    worst = max(cell.completed, key=lambda run: run.risk[0].advantage)
    if worst.patient_risk is None:
        return worst.risk, None
    assert worst.guarantee is not None
    return (*worst.risk, worst.patient_risk), worst.guarantee.private["largest_patient"]


def bound(value: float) -> str:
    """A probability in per cent, rounded up to three digits."""
    return printed_epsilon(100 * value)


def of_most(risk: Risk) -> tuple[int, float]:
    """The largest number of candidates, and how probably the right one is picked of them."""
    most = max(risk.candidates, key=int)
    return int(most), risk.candidates[most]


def markdown_rows(found: Sequence[CellRisk]) -> list[list[str]]:
    """A row a cell and unit, under ``MARKDOWN_HEADER``."""
    rows = []
    for its in found:
        for risk in its.risks:
            most, picked = of_most(risk)
            beside = "" if most == 1000 else f" (of {most})"
            rows.append([
                its.column.title, f"{risk.unit}, {risk.adjacency}", bound(risk.accuracy),
                *(bound(rate) for rate in risk.true_positive_rates.values()),
                *(bound(risk.candidates[count]) for count in ("2", "10")),
                f"{bound(picked)}{beside}",
            ])  # fmt: skip
    return rows


def csv_values(cell: Cell) -> tuple[float | str, ...]:
    """Of the guarantee's own unit, under ``CSV_HEADER``."""
    risks, _ = risks_of_cell(cell)
    if not risks:
        return ("",) * len(CSV_HEADER)
    risk = risks[0]
    most, picked = of_most(risk)
    return (
        *(risk.accuracy, risk.advantage),
        *(risk.true_positive_rates[f"{rate:g}"] for rate in FALSE_POSITIVE_RATES),
        *(risk.candidates["2"], risk.candidates["10"], picked, most),
    )
