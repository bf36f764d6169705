"""The work of ``python -m dpmi.audit``, and its output."""

from __future__ import annotations

import functools
import logging
import math
import warnings
from collections.abc import Callable
from pathlib import Path

from hydra import compose, initialize_config_dir
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from dpmi.auditing.black_box import RealRun
from dpmi.auditing.class_means import audit_class_means
from dpmi.auditing.dpsgd import audit_dpsgd
from dpmi.auditing.releases import audit_releases
from dpmi.auditing.result import Audit, rounded_down
from dpmi.base.errors import UserError
from dpmi.config.folder import config_dir
from dpmi.config.schema import Config, load_config
from dpmi.privacy.guarantee import printed_delta, printed_epsilon
from dpmi.run.before import refuse_on_this_machine
from dpmi.run.parts import prepared_data
from dpmi.run.records.reading import config_of, read_record
from dpmi.run.records.record import RECORD_FILE, SUPERSEDED, RunRecord
from dpmi.run.records.writing import write_record

_ONE_BIT = "answers of one bit are not audited: no canary of the auditor's gives one"
_MOMENTS = "second moments are not audited; the same run with mechanism.moment_scale=null can be"


def audit_default(seconds: float) -> Audit | None:
    """Audit the run of the default config; None where the replica failed."""
    with initialize_config_dir(config_dir(), version_base="1.3"):
        config = load_config(compose("config"))
    refuse_on_this_machine(config)
    console = Console()
    n = len(prepared_data(config).splits["train"].labels)  # drawn images, which have no patients
    return _audited("the default config", _protecting(config, "image"), n, None, seconds, console)


def audit_folders(folders: list[Path], seconds: float) -> list[Audit | None]:
    """Audit every run below some folders that states an ε, and write it into its record.

    Raises:
        UserError: there is none, or a record cannot be read, or is of another version's config, or
            one of the runs cannot be repeated on this machine.
    """
    console = Console()
    found: list[Audit | None] = []
    runs: list[tuple[Path, RunRecord, Config]] = []
    for path in [p for folder in folders for p in sorted(folder.rglob(RECORD_FILE))]:
        if SUPERSEDED in path.parts:
            continue
        record = read_record(path)
        if reason := _nothing_to_audit(record):
            console.print(f"{record.run}: {reason}", markup=False)
            continue
        assert record.guarantee is not None
        config = _protecting(config_of(record, path), record.guarantee.unit)
        refuse_on_this_machine(config)
        runs.append((path, record, config))
    for path, record, config in runs:
        assert record.guarantee is not None
        assert record.data is not None
        # A plan knows its patients; of local DP the number of images does not matter.
        n = record.mechanism.get("plan", {}).get("n", record.data["counts"]["train"])
        claimed = record.guarantee.epsilon
        real = _real(record, config, n, seconds, console)
        audit = _audited(record.run, config, n, claimed, seconds, console, real)
        found.append(audit)
        if audit is not None:
            write_record(record.model_copy(update={"audit": audit.to_dict()}), path.parent)
    if not found:
        places = ", ".join(map(str, folders))
        raise UserError(
            f"{places}: no run here states an ε that an audit can bound; give a folder of runs, or "
            "none at all"
        )
    return found


def _protecting(config: Config, unit: str | None) -> Config:
    """The config with what the run protected: a replica has patients where its canaries are."""
    protected = "patient" if unit == "patient" else "image"
    privacy = config.privacy.model_copy(update={"unit": protected})
    return config.model_copy(update={"privacy": privacy})


def _nothing_to_audit(record: RunRecord) -> str | None:
    if record.status != "completed":
        return f"{record.status}, so there is nothing to audit"
    if record.guarantee is None or record.guarantee.epsilon is None:
        return "claims no ε, so there is nothing to audit"
    if record.mechanism.get("moment_scale") is not None:
        return _MOMENTS
    return _ONE_BIT if record.guarantee.mechanism == "ldp_features" else None


def _real(
    record: RunRecord, config: Config, n: int, seconds: float, console: Console
) -> RealRun | None:
    """What a run was given, where there is time to train its network once more."""
    guarantee, took = record.guarantee, record.timings["train"]
    if config.mechanism.name != "dpsgd" or config.model.train != "all":
        return None
    if took > seconds / 2:
        console.print(
            f"{record.run}: its final weights alone are not attacked: it trained for {took:.0f} s, "
            f"so that takes --seconds {2 * math.ceil(took)}",
            markup=False,
        )
        return None
    assert record.data is not None
    assert guarantee is not None
    assert guarantee.replace_one_epsilon is not None
    assert guarantee.delta is not None
    return RealRun(
        n=n,
        channels=record.data["channels"],
        side=record.data["image_side"],
        replace_one_epsilon=guarantee.replace_one_epsilon,
        delta=guarantee.delta,
    )


def _audited(
    name: str,
    config: Config,
    n: int,
    claimed: float | None,
    seconds: float,
    console: Console,
    real: RealRun | None = None,
) -> Audit | None:
    warnings.simplefilter("ignore")  # what libraries advise is no matter of the auditor's
    logging.disable(logging.WARNING)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(f"auditing {name}", total=seconds)
        audits: dict[str, Callable[..., Audit]] = {
            "ldp": audit_releases,
            "class_means": audit_class_means,
            "dpsgd": functools.partial(audit_dpsgd, real=real),
        }
        try:
            audit = audits[config.mechanism.name](
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
    bounds = ", ".join(f"{way} {rounded_down(one.epsilon)}" for way, one in audit.bounds.items())
    console.print(
        f"[bold]{name}[/]: {claim}; {audit} by {audit.method}; {bounds}; {audit.canaries} canaries "
        f"in {audit.runs} run{'s' * (audit.runs > 1)}, {audit.seconds:.0f} s",
        highlight=False,
    )
    for way in audit.refuted_by:
        bound = audit.bounds[way]
        replaced = "" if bound.claimed is None else f" of one {audit.unit} replaced by another"
        console.print(
            f"error: {name}: the claim is refuted by {way}: ε{replaced} is at least "
            f"{rounded_down(bound.epsilon)} with {100 * audit.confidence:g} % confidence, and "
            f"{printed_epsilon(audit.claim_of(way))} is claimed; publish nothing of this run, and "
            "report how it was made",
            style="red",
            markup=False,
        )
    return audit
