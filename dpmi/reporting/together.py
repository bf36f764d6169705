"""What all runs of a table take together from the images that they were trained on."""

from __future__ import annotations

from collections.abc import Sequence

from dpmi.privacy.total import total
from dpmi.reporting.cells import Panel
from dpmi.run.record import RunRecord

ALONE = (
    "One run published alone takes its own ε, in the table; to choose it by its results is covered "
    "by no ε."
)


def together(panels: Sequence[Panel]) -> list[str]:
    """A sentence for each set of images: the exact total of its runs, all of them published.

    Runs that failed or were stopped are among them, what attempts that were superseded may have
    released, and those whose weights others started from. Runs share images where the data set has
    the same name, or where their accounts have images in common.
    """
    told = []
    for names, runs in _by_images(panels).items():
        accounts = [run.account for run in runs if run.account]
        before = [took for account in accounts for took in account.superseded]
        firsts = [took for account in accounts for took in account.before]
        whole = total([*before, *firsts, *(account.spending for account in accounts)])
        if whole.spendings:
            superseded = " (with what superseded attempts may have released)" if before else ""
            told.append(f"{names}, all runs published together{superseded}: {whole}.")
    return [*told, ALONE] if told else []


def _by_images(panels: Sequence[Panel]) -> dict[str, list[RunRecord]]:
    """Runs by the names of their data sets; those with images in common are put together."""
    groups: list[tuple[set[str], list[str], list[RunRecord]]] = []
    for panel in panels:
        for run in panel.runs:
            marks, names, runs = {panel.dataset}, [panel.dataset], [run]
            if run.account:
                marks |= {run.account.id or panel.dataset, *run.account.overlaps}
            apart = []
            for group in groups:
                if group[0].isdisjoint(marks):
                    apart.append(group)
                else:
                    marks |= group[0]
                    names, runs = group[1] + names, group[2] + runs
            groups = [*apart, (marks, names, runs)]
    return {" and ".join(dict.fromkeys(names)): runs for _, names, runs in groups}
