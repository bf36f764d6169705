"""The total ε of all runs of a table on the images they share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dpmi.privacy.total import total
from dpmi.reporting.cells import Panel
from dpmi.run.records.record import RunRecord

ALONE = "A single run has its own ε, above; no ε covers choosing it by its results."


@dataclass(frozen=True)
class Together:
    """The exact total of the runs on one set of images, were all of them published.

    Attributes:
        title: which runs.
        lines: ε by unit, and what has none.
    """

    title: str
    lines: tuple[str, ...]


def together(panels: Sequence[Panel]) -> list[Together]:
    """A total for each set of images; none where nothing was released.

    Runs that failed or were stopped are among them, what attempts that were superseded may have
    released, and those whose weights others started from. Runs share images where the data set has
    the same name, or where their accounts have images in common.
    """
    found = []
    for names, runs in _by_images(panels).items():
        accounts = [run.account for run in runs if run.account]
        before = [took for account in accounts for took in account.superseded]
        firsts = [took for account in accounts for took in account.before]
        whole = total([*before, *firsts, *(account.spending for account in accounts)])
        if whole.spendings:
            superseded = ", and what superseded attempts may have released" if before else ""
            title = f"All runs on {names} published together{superseded}"
            found.append(Together(title, tuple(whole.lines)))
    return found


def as_text(panels: Sequence[Panel]) -> str:
    """For a terminal and for Markdown, which both know lists; "" where there is no total."""
    found = [
        f"{its.title}:\n\n" + "\n".join(f"- {x}" for x in its.lines) for its in together(panels)
    ]
    return "\n\n".join([*found, ALONE]) if found else ""


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
