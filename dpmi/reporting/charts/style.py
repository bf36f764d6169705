"""How charts look, and how one becomes a file or a part of the page."""

from __future__ import annotations

import io
import math
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from html import escape
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import matplotlib as mpl
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK, MUTED, GRID, RULE = "#1b2026", "#5a6572", "#e1e5ea", "#8a94a0"
BAD = "#b3261e"
# Told apart by every kind of colour vision (after Okabe and Ito), and by shape too.
COLOURS = {
    "none": "#3d4650",
    "ldp": "#b84a00",
    "ldp_features": "#a0508c",
    "dpsgd": "#0064a8",
    "class_means": "#2f7d4f",
    "ldp_published": "#8a6534",
    "dpsgd_published": "#43749a",
}
MARKERS = {
    "none": "D", "ldp": "o", "ldp_features": "v", "dpsgd": "s", "class_means": "^",
    "ldp_published": "P", "dpsgd_published": "X",
}  # fmt: skip
LineStyle = str | tuple[float, Sequence[float]]
# Of the first β, the second, ...; the last two: long dashes, and dash dot dot.
LINES: tuple[LineStyle, ...] = ("-", "--", ":", "-.", (0, (9, 3)), (0, (4, 1.5, 1, 1.5, 1, 1.5)))
# On the page each colour is a variable of the style sheet, so that it follows light and dark.
_VARIABLES = {
    INK: "ink",
    MUTED: "muted",
    GRID: "grid",
    RULE: "rule",
    BAD: "bad",
    "#ffffff": "paper",
}
_VARIABLES |= {colour: f"c-{name.replace('_', '-')}" for name, colour in COLOURS.items()}
_ENTRY, _LETTER = 0.42, 0.058  # inches that a mark and a letter take in a legend
_LETTER_OF_HEADLINE = 0.098
_LEGEND: dict[str, Any] = {
    "fontsize": "small",
    "frameon": False,
    "handletextpad": 0.4,
    "columnspacing": 1.3,
}
_BESIDE = 0.55  # inches of a panel that its axis takes
_RC: dict[Any, Any] = {
    "svg.fonttype": "none",  # words stay words: to be found, read aloud, and small
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9.5,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": RULE,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": GRID,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "figure.facecolor": "#ffffff",
    "axes.facecolor": "#ffffff",
}


Share = bool | Literal["none", "all", "row", "col"]


@dataclass
class Chart:
    """A figure, and what it says to those who do not see it.

    Attributes:
        name: of its files, and of its marks on the page.
        title, description: its alternative text.
        figure: to draw on.
        tips: what is shown when a marked point is pointed at.
    """

    name: str
    title: str
    description: str
    figure: Figure
    tips: list[str] = field(default_factory=list)

    def tell(self, artist: Artist, tip: str) -> None:
        """Give an artist a tip, shown when it is pointed at on the page."""
        artist.set_gid(f"tip-{len(self.tips)}")
        self.tips.append(tip)

    @cached_property
    def svg(self) -> str:
        """What its file holds, and the page in its own colours: drawn once, when it is whole."""
        out = io.StringIO()
        with mpl.rc_context(_RC | {"svg.hashsalt": self.name}):
            self.figure.savefig(out, format="svg", metadata={"Date": None, "Title": self.title})
        self.figure.set_layout_engine("none")  # the PNG has everything in the same place
        return out.getvalue()


def new_figure(
    rows: int, columns: int, width: float, height: float, *, share_x: Share = False,
    share_y: Share = False,
) -> tuple[Figure, list[list[Axes]]]:  # fmt: skip
    """An empty figure of ``width`` x ``height`` inches and its axes, by row."""
    with mpl.rc_context(_RC):
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False, sharex=share_x, sharey=share_y)
    return figure, [list(row) for row in axes]


def save(chart: Chart, path: Path) -> None:
    """Write it, as SVG or, by any other suffix, as pixels."""
    if path.suffix == ".svg":
        path.write_text(chart.svg, encoding="utf-8")
        return
    with mpl.rc_context(_RC):
        chart.figure.savefig(path, dpi=160)


def inline_svg(chart: Chart) -> str:
    """It as SVG for the page: with text for every reader, in the page's own colours."""
    svg = chart.svg[chart.svg.index("<svg") :]
    svg = re.sub(
        r"<!--.*?-->|<title>.*?</title>|<metadata>.*?</metadata>", "", svg, flags=re.DOTALL
    )
    # No ground of its own: the page's shows, with the shadow that says there is more to the right.
    svg = re.sub(r'(<g id="patch_\d+">\s*<path [^>]*fill: )#ffffff', r"\1none", svg)
    for colour, name in _VARIABLES.items():
        svg = svg.replace(colour, f"var(--{name})")
    svg = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font: \1px var(--sans)", svg)
    # Names must differ between the charts of a page.
    svg = re.sub(r'(\sid="|xlink:href="#|url\(#)', rf"\g<1>{chart.name}-", svg)
    for number, tip in enumerate(chart.tips):
        escaped = escape(tip, quote=True)
        svg = svg.replace(
            f'id="{chart.name}-tip-{number}"',
            f'id="{chart.name}-tip-{number}" class="mark" tabindex="0" role="img" '
            f'aria-label="{escaped}" data-tip="{escaped}"',
        )
    # A group where its marks can be reached one by one, else one image.
    role = "group" if chart.tips else "img"
    named = f'role="{role}" aria-labelledby="{chart.name}-t {chart.name}-d"'
    words = (
        f'<title id="{chart.name}-t">{escape(chart.title)}</title>'
        f'<desc id="{chart.name}-d">{escape(chart.description)}</desc>'
    )
    svg = re.sub(r"<svg ", f"<svg {named} ", svg, count=1)
    return re.sub(r"(<svg [^>]*>)", lambda found: found[1] + words, svg, count=1)


def headline(axes: Axes, text: str, colour: str = INK, above: float = 6) -> None:
    """Name of a panel; ``above`` points over it, more where a legend stands between."""
    text = textwrap.fill(text, int(_inches(axes) / _LETTER_OF_HEADLINE))
    axes.set_title(text, loc="left", weight="bold", fontsize=10.5, color=colour, pad=above)


def legend_above(axes: Axes, handles: Sequence[Artist]) -> float:
    """The legend over the panel, where no point can be, in as many lines as it needs.

    Returns:
        Its height, in points: a headline stands above it.
    """
    columns = _columns(handles, _inches(axes))
    axes.legend(
        handles=handles, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2, borderpad=0.2,
        ncols=columns, **_LEGEND,
    )  # fmt: skip
    return 7 + 13.5 * math.ceil(len(handles) / columns)


def legend_on_top(figure: Figure, handles: Sequence[Artist]) -> None:
    """One legend for all panels, over them."""
    columns = _columns(handles, figure.get_size_inches()[0])
    figure.legend(handles=handles, loc="outside upper left", ncols=columns, **_LEGEND)


def _inches(axes: Axes) -> float:
    """Width of a panel, about: what its axis takes is known when it is drawn."""
    grid, figure = axes.get_gridspec(), axes.get_figure(root=True)
    assert grid
    assert figure
    return float(figure.get_size_inches()[0] / grid.ncols - _BESIDE)


def _columns(handles: Sequence[Artist], width: float) -> int:
    """Most columns of a legend of ``width`` inches, which is filled column by column."""
    entries = [_ENTRY + _LETTER * len(str(handle.get_label())) for handle in handles]
    for columns in range(len(entries), 1, -1):
        fewer, longer = divmod(len(entries), columns)  # so many columns have one entry more
        ends = [fewer * k + min(k, longer) for k in range(columns + 1)]
        if sum(max(entries[a:b]) for a, b in pairwise(ends)) <= width:
            return columns
    return 1
