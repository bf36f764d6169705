"""The status of a sweep's jobs: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import TracebackType

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.live import Live
from rich.table import Table

from dpmi.launch.jobs import Ending, Job
from dpmi.models.names import in_one_number
from dpmi.privacy.guarantee import printed_epsilon
from dpmi.run.records.record import RunRecord
from dpmi.run.screen.status import RunStatus, read_status

_STYLES = {"running": "bold", "completed": "green", "failed": "red", "interrupted": "yellow"}
_FRAME_LINES = 5  # title, head and rule of the table, and the lines of the prompt and the cursor


@dataclass(frozen=True)
class Row:
    """One job as the board shows it.

    Attributes:
        label: what distinguishes it from the others.
        state: waiting or running; when it has ended, the status of its record, or what it returned.
        device: where it runs.
        status: its last status.
        record: what it left.
    """

    label: str
    state: str = "waiting"
    device: str = ""
    status: RunStatus | None = None
    record: RunRecord | None = None


class Board:
    """Shows the jobs of a sweep while it is entered.

    Args:
        jobs: in order.
        console: a terminal gets a table, another file gets lines.
    """

    def __init__(self, jobs: Sequence[Job], console: Console) -> None:
        self._jobs = {job.number: job for job in jobs}
        self.rows = {job.number: Row(job.label) for job in jobs}
        self._console = console
        self._title = str(jobs[0].config.hydra.sweep.dir) if jobs else ""
        self._live = Live(
            console=console, auto_refresh=False, get_renderable=self._table, redirect_stderr=False
        )
        self._shows_table = console.is_terminal

    def __enter__(self) -> Board:
        """Show the first picture."""
        if self._shows_table:
            self._live.start(refresh=True)
        else:
            self._say(f"{len(self.rows)} jobs in {self._title}")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Leave the last picture on the screen."""
        if self._shows_table:
            self._live.stop()

    def started(self, job: Job, device: str | None) -> None:
        """A job has a process."""
        self.rows[job.number] = Row(job.label, "running", device or "")
        self._say(f"{job.label}  started" + (f" on {device}" if device else ""))

    def ended(self, job: Job, ending: Ending, record: RunRecord | None) -> None:
        """A job has none any more."""
        state = record.status if record else ending.result or "interrupted"
        row = replace(self.rows[job.number], state=state, record=record)
        self.rows[job.number] = row
        self._say(f"{job.label}  {state}{_result(record)}")

    def refresh(self) -> None:
        """Read the status of the running jobs, and show it."""
        for number, row in self.rows.items():
            if row.state == "running" and (status := read_status(self._jobs[number].folder)):
                if status.epochs_done > (row.status.epochs_done if row.status else 0):
                    self._say(f"{row.label}  {_line(status)}")
                device = row.device or _where(status)
                self.rows[number] = replace(row, status=status, device=device)
        if self._shows_table:
            self._live.refresh()

    def note(self, line: str) -> None:
        """Show a line, above the table where there is one."""
        self._console.print(line, style="yellow", markup=False, highlight=False, soft_wrap=True)

    def _say(self, line: str) -> None:
        if not self._shows_table:
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _table(self) -> Table:
        states = [row.state for row in self.rows.values()]
        counts = ", ".join(
            f"{states.count(state)} {state}" for state in dict.fromkeys(sorted(states, key=_order))
        )
        table = Table(
            title=f"{self._title}: {counts}",
            title_justify="left",
            box=SIMPLE_HEAD,
            show_edge=False,
            padding=(0, 1, 0, 0),
        )
        table.add_column("cell", overflow="fold", min_width=12)
        table.add_column("device", no_wrap=True)
        for name in ("epoch", "accuracy", "ε", "left"):
            table.add_column(name, justify="right", no_wrap=True)
        for row in self._that_fit():
            table.add_row(*_cells(row), style=_STYLES.get(row.state, "dim"))
        return table

    def _that_fit(self) -> list[Row]:
        """All rows in order; where the screen is too low, those that matter most."""
        rows, room = list(self.rows.values()), max(1, self._console.height - _FRAME_LINES)
        if len(rows) <= room:
            return rows
        kept = sorted(range(len(rows)), key=lambda i: (_order(rows[i].state), i))[:room]
        return [rows[i] for i in sorted(kept)]


def _order(state: str) -> int:
    known = ("running", "failed", "interrupted", "busy", "waiting", "completed")
    return known.index(state) if state in known else len(known)


def _cells(row: Row) -> tuple[str, ...]:
    status, record = row.status, row.record
    if row.state != "running":
        done = _short(in_one_number(record.metrics, "test"), "test") if record else ""
        promise = record.guarantee if record else None  # spent, also where the run was interrupted
        epsilon = _epsilon(promise.epsilon, promise.unit) if promise else ""
        return (row.label, row.device, row.state, done, epsilon, "")
    if status is None or status.epoch is None:
        return (row.label, row.device, "preparing", "", "", "")
    latest = _short(_latest(status), str(status.of))
    if status.phase == "evaluating":
        return (row.label, row.device, "evaluating", "", "", "")
    return (
        row.label,
        row.device,
        f"{status.epoch}/{status.epochs}",
        latest,
        _epsilon(status.epsilon, status.unit) if latest else "",
        "" if status.seconds_left is None else _duration(status.seconds_left),
    )


def _latest(status: RunStatus) -> str | None:
    if status.latest is None:
        return None
    return in_one_number({f"{status.of}/{status.metric}": status.latest}, str(status.of))


def _short(number: str | None, of: str) -> str:
    """As "81.2% val", in a column that says accuracy; or "AUROC 0.812 val"."""
    return f"{number.removeprefix('accuracy ')} {of}" if number else ""


def _epsilon(epsilon: float | None, unit: str | None) -> str:
    if epsilon is None:
        return "none"
    return f"{printed_epsilon(epsilon)} per {unit}" if unit else printed_epsilon(epsilon)


def _line(status: RunStatus) -> str:
    """One plain line of how far a run is."""
    words = [f"epoch {status.epochs_done}/{status.epochs}"]
    if latest := _latest(status):
        words.append(f"{status.of} {latest}")
        promise = _epsilon(status.epsilon, status.unit)
        words.append("no ε" if promise == "none" else f"ε {promise}")
    if status.seconds_left is not None:
        words.append(f"{_duration(status.seconds_left)} left")
    return "  ".join(words)


def _result(record: RunRecord | None) -> str:
    if record is None:
        return ""
    if record.status != "completed":
        return f": {record.reason}"
    test = in_one_number(record.metrics, "test")
    return f": test {test}; {record.guarantee}; {record.timings['total']:.0f} s"


def _where(status: RunStatus) -> str:
    """The device, with its machine where that is another than this."""
    here = status.host == platform.node()
    device = status.device or ""
    return device if here else f"{status.host} {device}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
