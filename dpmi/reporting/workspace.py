"""The W&B dashboard of a project, as plain values, and as a workspace made of them.

The values can be written where no server is in reach, and be applied where one is.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from dpmi.base.errors import UserError
from dpmi.models.names import TRAIN_METRICS

if TYPE_CHECKING:
    from wandb_workspaces.workspaces import Workspace

SCHEMA = "dpmi.dashboard"
_RANGE: Literal["minmax"] = "minmax"  # the band of a group: from its least to its most run


class _Values(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Panel(_Values):
    """One panel.

    Attributes:
        kind: scatter (a point a run), lines (over steps), bars (a bar a group), images, or runs
            (the configs side by side).
        title: over it.
        x: key of the horizontal axis of a scatter, in the runs' summary.
        y: keys of what is drawn: of the summary for scatter and bars, of the history for lines, of
            media for images.
        log_x: whether the horizontal axis is logarithmic.
    """

    kind: Literal["scatter", "lines", "bars", "images", "runs"]
    title: str
    x: str | None = None
    y: list[str] = []
    log_x: bool = False


class Section(_Values):
    """Panels under one heading."""

    name: str
    panels: list[Panel]


class Dashboard(_Values):
    """A workspace: its sections, and how its table of runs is grouped and what it shows."""

    schema_name: Literal["dpmi.dashboard"] = "dpmi.dashboard"
    version: Literal[1] = 1
    name: str
    group_by: list[str]
    columns: list[str]
    sections: list[Section]


def dashboard() -> Dashboard:
    """Trade-off, learning curves, ε over steps, sample images, the table."""
    of = "ε (LDP: of a pixel; DP-SGD: of an image)"
    tests = {"accuracy": "accuracy", "auroc": "AUROC", "kappa": "weighted κ"}
    epsilon = "guarantee.epsilon"
    return Dashboard(
        name="dpmi: what privacy costs",
        group_by=["data.name", "mechanism.name", "beta"],
        columns=[
            *("config:data.name", "config:mechanism.name", "config:beta", "config:seed"),
            *("summary:test/accuracy", "summary:test/auroc", f"summary:{TRAIN_METRICS}/accuracy"),
            *("summary:guarantee.epsilon", "summary:guarantee.delta", "summary:guarantee.unit"),
        ],
        sections=[
            Section(
                name="Trade-off",
                panels=[
                    Panel(kind="scatter", title=f"Test {title} against {of}", x=epsilon,
                          y=[f"test/{metric}"], log_x=True)
                    for metric, title in tests.items()
                ]
                + [Panel(kind="bars", title="Test accuracy, last epoch", y=["test/accuracy"])],
            ),
            Section(
                name="Learning curves",
                panels=[
                    Panel(kind="lines", title="Validation accuracy", y=["val/accuracy"]),
                    Panel(kind="lines", title="Train accuracy at the step (not private)",
                          y=["nonprivate/accuracy"]),
                    Panel(kind="lines", title="Train loss (not private)", y=["nonprivate/loss"]),
                ],
            ),
            Section(
                name="Privacy spent",
                panels=[Panel(kind="lines", title="ε over steps (DP-SGD)", y=["epsilon"])],
            ),
            Section(
                name="Images before and after noise",
                panels=[Panel(kind="images", title="Training images (LDP)", y=["samples"])],
            ),
            Section(
                name="Runs",
                panels=[
                    Panel(kind="runs", title="Configs side by side"),
                    Panel(kind="lines", title="Seconds a step", y=["nonprivate/step_time"]),
                ],
            ),
        ],
    )  # fmt: skip


def read_dashboard(path: Path) -> Dashboard:
    """Read a specification that was written for later.

    Raises:
        UserError: not readable, or not one.
    """
    try:
        return Dashboard.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        first = str(error.errors()[0]["msg"]) if isinstance(error, ValidationError) else str(error)
        raise UserError(f"{path}: not a {SCHEMA} of version 1 ({first})") from error


def to_workspace(spec: Dashboard, entity: str, project: str) -> Workspace:
    """Make the workspace, not yet saved; asks no server.

    Args:
        spec: what it shows.
        entity: the team or user whose project it is.
        project: whose runs it shows.
    """
    import wandb_workspaces.workspaces as ws

    return ws.Workspace(
        entity=entity,
        project=project,
        name=spec.name,
        auto_generate_panels=False,
        sections=[
            ws.Section(name=section.name, is_open=True, panels=[_panel(p) for p in section.panels])
            for section in spec.sections
        ],
        runset_settings=ws.RunsetSettings(
            groupby=[ws.Config(key) for key in spec.group_by], pinned_columns=list(spec.columns)
        ),
    )


def _panel(panel: Panel) -> Any:
    import wandb_workspaces.reports.v2 as wr

    title = panel.title
    if panel.kind == "scatter":
        return wr.ScatterPlot(
            title=title,
            x=wr.SummaryMetric(panel.x or ""),
            y=wr.SummaryMetric(panel.y[0]),
            log_x=panel.log_x,
        )
    if panel.kind == "lines":
        return wr.LinePlot(title=title, y=list(panel.y), groupby_rangefunc=_RANGE)
    if panel.kind == "bars":
        return wr.BarPlot(
            title=title, metrics=list(panel.y), groupby_aggfunc="mean", groupby_rangefunc=_RANGE
        )
    if panel.kind == "images":
        return wr.MediaBrowser(title=title, media_keys=panel.y)
    return wr.RunComparer(diff_only="split")
