"""What a run shows: its config, what it skipped, how it ended."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock, Timeout
from rich.console import Console
from rich.markup import escape

from dpmi.base.errors import UserError
from dpmi.config.identity import cell_name, config_digest
from dpmi.config.schema import Config
from dpmi.models.names import TRAIN_METRICS, in_one_number
from dpmi.privacy.total import total
from dpmi.run.durability.job_folder import (
    LOCK_FILE,
    clear,
    keep_noise_seed,
    other_noise_seed,
    supersede,
)
from dpmi.run.job import Run
from dpmi.run.parts import prepared_data
from dpmi.run.processes.ddp import run_on_devices
from dpmi.run.records.code import code_digest
from dpmi.run.records.reading import read_record
from dpmi.run.records.record import RECORD_FILE, RunAccount, RunRecord
from dpmi.run.screen.config_tree import show_config

BUSY = "busy"


def run_job(config: Config, folder: Path, overrides: Sequence[str] = ()) -> str:
    """Run one job in ``folder``, unless the very same one is done there.

    Args:
        config: the checked config.
        folder: existing.
        overrides: of the command line, which tell a cell of a sweep from the others.

    Returns:
        The status of its record; "busy" where another process is at work in the folder.

    Raises:
        KeyboardInterrupt: interrupted by the user.
        StoppedByRequest: SIGTERM came.
    """
    console = Console()
    lock = FileLock(folder / LOCK_FILE, blocking=False)
    try:
        lock.acquire()
    except Timeout:
        console.print(
            f"{folder}: another process is running {cell_name(config)}; skipped here, repeat the "
            "command to see how it ended",
            style="yellow",
            markup=False,
        )
        return BUSY
    with lock:
        if config.rerun:
            supersede(folder, Path(config.cache_dir))
        elif other_noise_seed(folder, config):
            console.print(f"another noise_seed was used in {escape(str(folder))}: starting over")
            supersede(folder, Path(config.cache_dir))
        elif done := _completed(folder, config, console):
            clear(folder)  # a process may have been killed when all but this was done
            console.print(
                f"[bold]{done.run}[/] is complete in {escape(str(folder))}, not run again"
            )
            return done.status
        keep_noise_seed(folder, config)
        show_config(config, overrides, console)
        try:
            if config.trainer.devices > 1:
                record = run_on_devices(config, folder, console)
            else:
                record = Run(config, folder, console).execute()
        except UserError as error:
            console.print(str(error), style="red", markup=False)
            return "failed"
        _tell(record, folder, console)
        return record.status


def _completed(folder: Path, config: Config, console: Console) -> RunRecord | None:
    """Record of the same run on the same data by the same code, completed."""
    path = folder / RECORD_FILE
    if not path.is_file():
        return None
    record = read_record(path)
    if record.status != "completed" or record.config_digest != config_digest(config):
        return None
    if record.environment.get("code") != code_digest():
        console.print(f"the code has changed since {escape(str(folder))} was run: starting over")
        supersede(folder, Path(config.cache_dir))
        return None
    try:
        found = prepared_data(config).fingerprint
    except UserError as error:
        console.print(f"cannot check whether the data are unchanged: {error}", markup=False)
        return record
    if record.data and (record.data["sha256"], record.data.get("groups")) == (
        found.sha256,
        found.groups,
    ):
        return record
    console.print(f"the data have changed since {escape(str(folder))} was run: starting over")
    supersede(folder, Path(config.cache_dir))
    return None


def _tell(record: RunRecord, folder: Path, console: Console) -> None:
    if record.status != "completed":
        console.print(f"{record.run} {record.status}: {record.reason}", style="red", markup=False)
        return
    if record.stopped:
        console.print(record.stopped, style="yellow", markup=False)
    if record.account and total(record.account.superseded).spendings:
        console.print(_superseded(record.account), style="yellow", markup=False)
    test, train = (in_one_number(record.metrics, of) for of in ("test", TRAIN_METRICS))
    console.print(
        f"[bold]{record.run}[/]  test {test}, train {train} (not "
        f"private); {record.guarantee}; {record.timings['total']:.0f} s; "
        f"{escape(str(folder / RECORD_FILE))}"
    )


def _superseded(account: RunAccount) -> str:
    """What attempts before a run may have released, and what they and the run take together."""
    before, whole = total(account.superseded), total([*account.superseded, account.spending])
    released = []
    if gradients := sum(entry.steps for took in before.models for entry in took.ledger):
        released.append(f"{gradients} noised gradients")
    if before.releases:
        released.append("noised images")
    if before.without_epsilon:
        released.append("weights without any ε")
    return (
        f"an attempt that this run supersedes may have released {', '.join(released)} before it; "
        f"both together: {whole}"
    )
