"""What ``python -m dpmi.audit`` does, and what it says."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

from hydra import compose, initialize_config_dir
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from dpmi.auditing.dpsgd import audit_dpsgd
from dpmi.auditing.releases import audit_releases
from dpmi.auditing.result import Audit, rounded_down
from dpmi.config import Config, load_config
from dpmi.errors import UserError
from dpmi.privacy.guarantee import printed_delta, printed_epsilon
from dpmi.run.job import prepared_data
from dpmi.run.record import RECORD_FILE, SUPERSEDED, RunRecord, read_record
from dpmi.train import config_dir


def audit_default(seconds: float) -> Audit | None:
    """Audit the run of the default config; None where the replica failed."""
    with initialize_config_dir(config_dir(), version_base="1.3"):
        config = load_config(compose("config"))
    console = Console()
    n = len(prepared_data(config).splits["train"].labels)
    return _audited("the default config", config, n, None, seconds, console)


def audit_folders(folders: list[Path], seconds: float) -> list[Audit | None]:
    """Audit every run below some folders that states an ε, and write it into its record.

    Raises:
        UserError: there is none, or a record cannot be read.
    """
    console = Console()
    found: list[Audit | None] = []
    for path in [p for folder in folders for p in sorted(folder.rglob(RECORD_FILE))]:
        if SUPERSEDED in path.parts:
            continue
        record = read_record(path)
        if reason := _nothing_to_audit(record):
            console.print(f"{record.run}: {reason}", markup=False)
            continue
        assert record.guarantee is not None
        assert record.data is not None
        config = Config.model_validate(record.config)
        n = record.data["counts"]["train"]
        audit = _audited(record.run, config, n, record.guarantee.epsilon, seconds, console)
        found.append(audit)
        if audit is not None:
            record.model_copy(update={"audit": audit.to_dict()}).write(path.parent)
    if not found:
        places = ", ".join(map(str, folders))
        raise UserError(f"{places}: no run here states an ε; give a folder of runs, or none at all")
    return found


def _nothing_to_audit(record: RunRecord) -> str | None:
    if record.status != "completed":
        return f"{record.status}, so there is nothing to audit"
    if record.guarantee is None or record.guarantee.epsilon is None:
        return "claims no ε, so there is nothing to audit"
    return None


def _audited(
    name: str,
    config: Config,
    n: int,
    claimed: float | None,
    seconds: float,
    console: Console,
) -> Audit | None:
    warnings.simplefilter("ignore")  # what libraries advise is no matter of the auditor's
    logging.disable(logging.WARNING)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(f"auditing {name}", total=seconds)
        audit_of = audit_releases if config.mechanism.name == "ldp" else audit_dpsgd
        try:
            audit = audit_of(
                config,
                n,
                seconds=seconds,
                claimed=claimed,
                progress=lambda runs, passed: bar.update(
                    task, completed=passed, description=f"auditing {name}, run {runs + 1}"
                ),
            )
        except UserError as error:
            console.print(f"{name}: {error}", style="red", markup=False)
            return None
    claimed_epsilon = printed_epsilon(audit.claimed)
    claim = f"claimed ε = {claimed_epsilon}, δ = {printed_delta(audit.delta)} per {audit.unit}"
    bounds = ", ".join(f"{way} {bound.epsilon:.3f}" for way, bound in audit.bounds.items())
    console.print(
        f"[bold]{name}[/]: {claim}; {audit} by {audit.method}; {bounds}; {audit.canaries} canaries "
        f"in {audit.runs} run{'s' * (audit.runs > 1)}, {audit.seconds:.0f} s",
        highlight=False,
    )
    if audit.refuted:
        console.print(
            f"error: {name}: the claim is refuted: ε is at least {rounded_down(audit.epsilon)} "
            f"with {100 * audit.confidence:g} % confidence, and {claimed_epsilon} is claimed; "
            "publish nothing of this run, and report how it was made",
            style="red",
            markup=False,
        )
    return audit
