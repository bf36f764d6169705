"""Who pays, in text: as Markdown for the report, and as CSV."""

from __future__ import annotations

from collections.abc import Sequence

from dpmi.models.groups import MEASURES, SMALL, Measured
from dpmi.models.names import UNDEFINED
from dpmi.reporting.cells import Panel
from dpmi.reporting.table import csv_text, markdown_table
from dpmi.reporting.who_pays import BY, TITLES, Group, Loss, Payer, groups_of

_HEADER = (
    *("dataset", "setup", "grouped_by", "group", "mechanism", "beta", "variant", "runs"),
    *("images", "patients", "classes"),
    *(f"{name}{end}" for name in MEASURES for end in ("", "_low_95", "_high_95")),
    *("loss_of_balanced_accuracy", "loss_low_95", "loss_high_95", "loss_interval_over", "note"),
)


def groups_csv(panels: Sequence[Panel]) -> str:
    """A line a group and cell."""
    lines = [
        [
            *(panel.dataset, panel.setup, group.column, group.name, group.cell.mechanism),
            *(f"{group.cell.beta:g}" if group.cell.beta else "", group.cell.variant, group.runs),
            *(group.images, _patients(group), " ".join(group.classes)),
            *(text for name in MEASURES for text in _measured(group, name)),
            *_loss(group.loss),
            f"fewer than {SMALL} images" if group.is_small else "",
        ]
        for panel in panels
        for group in groups_of(panel)
    ]
    return csv_text(_HEADER, lines)


def _patients(group: Group) -> str:
    return "unknown" if group.patients is None else str(group.patients)


def _measured(group: Group, name: str) -> tuple[str, ...]:
    its = group.measures.get(name)
    if its is None:
        return ("",) * 3
    absent = UNDEFINED if its.value is None else ""
    ends = (absent if end is None else f"{end:.6f}" for end in (its.low, its.high))
    return group.shown(name, "{:.6f}"), *ends


def _loss(loss: Loss | None) -> tuple[str, ...]:
    if loss is None:
        return ("",) * 4
    ends = ("" if end is None else f"{end:.6f}" for end in (loss.low, loss.high))
    return f"{loss.value:.6f}", *ends, loss.over


def who_pays_markdown(payers: Sequence[Payer], groups: Sequence[Group]) -> list[str]:
    """Two tables: who pays in each cell, and each group."""
    header = ["who pays", "grouped by", "loses most", "points", "95 %", "all images lose"]
    rows = []
    for payer in payers:
        most, worst = payer.most, payer.worst
        loss = most.loss if most else None
        lost = "" if loss is None else f"{100 * loss.value:.1f}"
        whole = "" if payer.whole is None else f"{100 * payer.whole:.1f}"
        fares = [worst.name, worst.shown(BY, "{:.1%}")] if worst else ["", ""]
        beside = [payer.column, most.name if most else "", lost, _ends(loss), whole]
        rows.append([payer.cell.title, *beside, *fares])
    whole_header = ["group", "cell", "images", "patients", "classes"]
    for name in (BY, "loss", "auroc", "accuracy", "ece"):
        whole_header += [TITLES.get(name, "loss (points)"), "95 %"]
    return [
        markdown_table([*header, "fares worst", "balanced accuracy"], rows),
        markdown_table(whole_header, [_row(group) for group in groups]),
    ]


def _row(group: Group) -> list[str]:
    measures, loss = group.measures, group.loss
    few = f" (fewer than {SMALL} images)" if group.is_small else ""
    return [
        *(f"{group.title}{few}", group.cell.title, str(group.images), _patients(group)),
        ", ".join(group.classes),
        *(group.shown(BY, "{:.1%}"), _ends(measures[BY])),
        *("" if loss is None else f"{100 * loss.value:.1f}", _ends(loss)),
        *(group.shown("auroc"), _ends(measures["auroc"], 1)),
        *(group.shown("accuracy", "{:.1%}"), _ends(measures.get("accuracy"))),
        *(group.shown("ece"), _ends(measures.get("ece"), 1)),
    ]


def _ends(its: Measured | Loss | None, scale: float = 100) -> str:
    if its is None or its.low is None or its.high is None:
        return ""
    return " to ".join(f"{scale * end:.{1 if scale > 1 else 3}f}" for end in (its.low, its.high))
