"""The report as one HTML page: no network, no file beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from dpmi.models.names import in_one_number
from dpmi.privacy.guarantee import printed_delta, printed_epsilon
from dpmi.reporting import attacks
from dpmi.reporting.as_public import MADE_OF
from dpmi.reporting.as_published import why_no_epsilon
from dpmi.reporting.attacks import Tried
from dpmi.reporting.charts.figure4 import tip
from dpmi.reporting.charts.style import Chart, inline_svg
from dpmi.reporting.figure2 import DRAWS
from dpmi.reporting.findings import EXPLANATION as OF_FINDINGS
from dpmi.reporting.gap import EXPLANATION
from dpmi.reporting.risk import EXPLANATION as WHAT_RISK_IS
from dpmi.reporting.risk import bound, of_most
from dpmi.reporting.sections import Sections
from dpmi.reporting.table import absent
from dpmi.reporting.together import ALONE, together
from dpmi.reporting.who_pays import EXPLANATION as WHO_PAYS
from dpmi.reporting.who_pays import INTERVALS
from dpmi.run.records.record import RunRecord

_TEMPLATES = "templates"


def page(
    sections: Sequence[Sections],
    prices: Sequence[Chart],
    runs: Sequence[RunRecord],
    repeated: int,
    *,
    public: bool = False,
    tried: Tried | None = None,
    cards: Mapping[str, str] | None = None,
) -> str:
    """The whole page.

    Args:
        sections: of each panel.
        prices: of each data set, all its mechanisms on one axis.
        runs: all records that were read, each once.
        repeated: records that were left out because another of the same digest stands for them.
        public: they come from public records; sections that need more are left out.
        tried: attacks on them, where there were any.
        cards: pages of runs' cards, by ``keyed_config``.
    """
    environment = Environment(
        loader=PackageLoader("dpmi.reporting", _TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters: dict[str, Callable[..., object]] = {
        "percent": lambda value: "–" if value is None else f"{100 * value:.1f}",
        "three": lambda value: "–" if value is None else f"{value:.3f}",
        "whole": lambda value: "–" if value is None else f"{value:.0f}",
        "ratio": lambda value: "–" if value is None else f"× {value:.2f}",
        "epsilon": lambda value: "–" if value is None else printed_epsilon(value),
        "delta": printed_delta,
        "bound": bound,
        "svg": lambda chart: Markup(inline_svg(chart)),
    }
    environment.filters |= filters
    tests = [cells["test"] for its in sections for cells in its.panel.columns.values()]
    completed = [run for run in runs if run.status == "completed"]
    return environment.get_template("report.html.j2").render(
        sections=sections,
        prices=prices,
        posters=any(cell.poster for cell in tests),
        looked=any(cell.best_on_test is not None for cell in tests),
        runs=runs,
        cards=cards or {},
        completed=completed,
        repeated=repeated,
        public=public,
        made_of=MADE_OF[public],
        draws=DRAWS,
        explanation=EXPLANATION,
        who_pays_words=(WHO_PAYS, INTERVALS),
        absent=absent([its.panel for its in sections]),
        finding_words=OF_FINDINGS,
        one_number=in_one_number,
        what_risk_is=WHAT_RISK_IS,
        of_most=of_most,
        tried=tried,
        attacks_explanation=attacks.EXPLANATION,
        promised_at=attacks.promised_at,
        setting=attacks.setting,
        parts=attacks.PARTS,
        alone=ALONE,
        together=together([its.panel for its in sections]),
        why_no_epsilon=why_no_epsilon([its.panel for its in sections]),
        tip=tip,
        versions=_versions(completed),
        style=Markup(_text("report.css")),
        script=Markup(_text("report.js")),
    )


def _text(name: str) -> str:
    return files("dpmi.reporting").joinpath(_TEMPLATES, name).read_text(encoding="utf-8")


def _versions(runs: Sequence[RunRecord]) -> list[str]:
    """What the runs ran on, each kind once."""
    lines = []
    for run in runs:
        its = run.environment
        packages = its.get("packages") or {}
        lines.append(
            f"dpmi {packages.get('dpmi')}, torch {packages.get('torch')}, Python "
            f"{its.get('python')}, {its.get('cpus')} CPUs, {its.get('device')}"
        )
    return sorted(set(lines))
