"""What the report says of one panel: its charts and the numbers under them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dpmi.reporting.cells import Panel
from dpmi.reporting.charts.curves import authors_chart, curves_chart
from dpmi.reporting.charts.figure4 import figure4_chart
from dpmi.reporting.charts.price import price_chart
from dpmi.reporting.charts.reliability import reliability_chart
from dpmi.reporting.charts.risk import risk_chart
from dpmi.reporting.charts.style import Chart
from dpmi.reporting.charts.tradeoff import tradeoff_chart
from dpmi.reporting.charts.who_pays import who_pays_chart
from dpmi.reporting.cost import Cost, cost_chart, costs
from dpmi.reporting.figure2 import Figure2, figure2, figure2_chart
from dpmi.reporting.findings import FindingTable, finding_table
from dpmi.reporting.gap import Gap, gap_chart, gaps
from dpmi.reporting.risk import CellRisk, cell_risks
from dpmi.reporting.who_pays import Group, Payer, groups_of, payers


@dataclass(frozen=True)
class Sections:
    """One panel's part of the report; a chart is None where the records have nothing for it."""

    number: int
    panel: Panel
    figure4: Chart
    tradeoff: Chart | None
    risk: Chart | None
    risks: list[CellRisk]
    reliability: Chart | None
    findings: FindingTable | None
    curves: Chart | None
    authors: Chart | None
    gap: Chart | None
    gaps: list[Gap]
    figure2: Figure2 | None
    samples: Chart | None
    cost: Chart | None
    costs: list[Cost]
    who_pays: list[Chart]  # one a column that test images are grouped by
    payers: list[Payer]
    groups: list[Group]

    def charts(self) -> Iterator[Chart]:
        """Those that there are."""
        every = (self.figure4, self.tradeoff, self.risk, self.reliability, self.curves)
        others = (self.gap, self.samples, self.cost)
        found = (*every, self.authors, *self.who_pays, *others)
        yield from (chart for chart in found if chart is not None)


def prices(panels: Sequence[Panel]) -> list[Chart]:
    """A chart of all set-ups for each data set with an ε, and each choice of its test images."""
    tested = list(dict.fromkeys((panel.dataset, panel.tested_on) for panel in panels))
    charts = [
        price_chart([p for p in panels if (p.dataset, p.tested_on) == on], f"price-{number}")
        for number, on in enumerate(tested, 1)
    ]
    return [chart for chart in charts if chart is not None]


def sections(panels: Sequence[Panel]) -> list[Sections]:
    """Draw and count everything, panel by panel."""
    made, seen = [], set()
    for number, panel in enumerate(panels, 1):
        found, cost, shown = gaps(panel), costs(panel), figure2(panel)
        groups = groups_of(panel)
        by_column = {g.column: [x for x in groups if x.column == g.column] for g in groups}
        risks = cell_risks(panel)
        own = None if panel.dataset in seen else authors_chart(panel.dataset, f"authors-{number}")
        seen.add(panel.dataset)
        made.append(
            Sections(
                number=number,
                panel=panel,
                figure4=figure4_chart([panel], f"figure4-{number}"),
                tradeoff=tradeoff_chart(panel, f"tradeoff-{number}"),
                risk=risk_chart(panel, risks, f"risk-{number}"),
                risks=risks,
                reliability=reliability_chart(panel, f"reliability-{number}"),
                findings=finding_table(panel),
                curves=curves_chart(panel, f"curves-{number}"),
                authors=own,
                gap=gap_chart(panel, found, f"gap-{number}"),
                gaps=found,
                figure2=shown,
                samples=figure2_chart(shown, f"figure2-{number}") if shown else None,
                cost=cost_chart(panel, cost, f"cost-{number}"),
                costs=cost,
                who_pays=[
                    who_pays_chart(panel, column, its, f"who-pays-{number}-{place}")
                    for place, (column, its) in enumerate(by_column.items(), 1)
                ],
                payers=payers(panel, groups),
                groups=groups,
            )
        )
    return made
