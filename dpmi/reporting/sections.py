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
from dpmi.reporting.cost import Cost, cost_chart, costs
from dpmi.reporting.figure2 import Figure2, figure2, figure2_chart
from dpmi.reporting.gap import Gap, gap_chart, gaps
from dpmi.reporting.risk import CellRisk, cell_risks


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
    curves: Chart | None
    authors: Chart | None
    gap: Chart | None
    gaps: list[Gap]
    figure2: Figure2 | None
    samples: Chart | None
    cost: Chart | None
    costs: list[Cost]

    def charts(self) -> Iterator[Chart]:
        """Those that there are."""
        every = (self.figure4, self.tradeoff, self.risk, self.reliability, self.curves)
        others = (self.authors, self.gap, self.samples, self.cost)
        yield from (chart for chart in (*every, *others) if chart is not None)


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
    made, told = [], set()
    for number, panel in enumerate(panels, 1):
        found, cost, shown = gaps(panel), costs(panel), figure2(panel)
        risks = cell_risks(panel)
        own = None if panel.dataset in told else authors_chart(panel.dataset, f"authors-{number}")
        told.add(panel.dataset)
        made.append(
            Sections(
                number=number,
                panel=panel,
                figure4=figure4_chart([panel], f"figure4-{number}"),
                tradeoff=tradeoff_chart(panel, f"tradeoff-{number}"),
                risk=risk_chart(panel, risks, f"risk-{number}"),
                risks=risks,
                reliability=reliability_chart(panel, f"reliability-{number}"),
                curves=curves_chart(panel, f"curves-{number}"),
                authors=own,
                gap=gap_chart(panel, found, f"gap-{number}"),
                gaps=found,
                figure2=shown,
                samples=figure2_chart(shown, f"figure2-{number}") if shown else None,
                cost=cost_chart(panel, cost, f"cost-{number}"),
                costs=cost,
            )
        )
    return made
