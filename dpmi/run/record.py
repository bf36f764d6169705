"""The one record of a run. Tables, plots and dashboards read records, and nothing else.

It is private: it holds facts about the training images that no ε covers.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from dpmi.config import Config, plain_values
from dpmi.errors import UserError
from dpmi.identity import cell_name, config_digest
from dpmi.privacy.guarantee import Guarantee
from dpmi.redaction import redacted
from dpmi.run.code import code_digest

RECORD_FILE = "record.json"
SUPERSEDED = "superseded"  # folder of what earlier runs of the same cell left
SCHEMA = "dpmi.run-record"
VERSION = 4

_PACKAGES = (
    "dpmi", "torch", "torchvision", "pytorch-lightning", "opacus", "dp-accounting", "torchmetrics",
    "hydra-core", "omegaconf", "wandb", "numpy", "scikit-learn", "medmnist", "pillow",
)  # fmt: skip


class ImageSample(BaseModel):
    """One training image before and after the mechanism; of public images only, unless asked.

    Attributes:
        label: its class.
        side: of the image as the mechanism saw it, in pixels.
        every: each ``every``-th pixel of it is kept here, in both directions.
        before, after: PNG in base64; ``after`` is None where the mechanism leaves images alone.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    label: str
    side: int
    every: int
    before: str
    after: str | None


class RunRecord(BaseModel):
    """What a run leaves, whole, in ``record.json`` in its job folder.

    Attributes:
        private: that it is, for who opens the file.
        schema_name, version: what this file is; a reader refuses any other.
        run: name of the cell, dataset-mechanism-β-seed.
        config_digest: equal for runs that compute the same.
        status: how it ended; ``reason`` says why, where it did not complete.
        stopped: why a run that completed has fewer steps than planned, where it has.
        restarts: how often it was resumed after its process was killed.
        config: the composed config; of ``noise_seed`` only whether one was given.
        data: the data fingerprint; None where the run failed before it had any.
        guarantee: of what was executed.
        mechanism: the plan and the ledger, where there is one.
        metrics: flat names; those under ``nonprivate/`` no ε covers, those under
            ``selected_on_test/`` were picked by looking at the test images.
        curves: metric to one value for each epoch that ended.
        sample: an image before and after, where it may be shown.
        timings: seconds.
        peak_memory_mb: most memory while training and evaluating, in MB: on a CPU resident, less
            what the process had before the run; on a GPU allocated; None where not measured. Where
            several processes trained, of the first.
        environment: package versions, Python, device, git commit.
        audit: the empirical lower bound on ε, where the run was audited.
    """

    # JSON knows no NaN: a metric that is not a number is written, and read again, as "NaN".
    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="strings")

    private: Literal[
        "facts about the training images that no ε covers: keep this file where the images are"
    ] = "facts about the training images that no ε covers: keep this file where the images are"
    schema_name: Literal["dpmi.run-record"] = "dpmi.run-record"
    version: Literal[4] = 4
    run: str
    config_digest: str
    status: Literal["completed", "failed", "interrupted"]
    reason: str | None
    stopped: str | None
    restarts: int
    config: dict[str, Any]
    data: dict[str, Any] | None
    guarantee: Guarantee | None
    mechanism: dict[str, Any]
    metrics: dict[str, float]
    curves: dict[str, list[float]]
    sample: ImageSample | None
    timings: dict[str, float]
    peak_memory_mb: float | None
    environment: dict[str, Any]
    audit: dict[str, Any] | None = None

    def write(self, folder: Path) -> Path:
        """Write ``record.json`` whole or not at all; return its path."""
        path = folder / RECORD_FILE
        part = path.with_suffix(".json.part")
        try:
            part.write_text(redacted(self.model_dump_json(indent=2)), encoding="utf-8")
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)
        return path


def record_of_no_run(config: Config, status: Any, reason: str, restarts: int = 0) -> RunRecord:
    """The record of a run that could write none itself: it did not begin, or it was killed.

    What it had executed is in its folder, not in this record: it states no guarantee.
    """
    return RunRecord(
        run=cell_name(config),
        config_digest=config_digest(config),
        status=status,
        reason=redacted(reason),
        stopped=None,
        restarts=restarts,
        config=plain_values(config),
        data=None,
        guarantee=None,
        mechanism={},
        metrics={},
        curves={},
        sample=None,
        timings={},
        peak_memory_mb=None,
        environment=environment(None),
    )


def read_record(path: Path) -> RunRecord:
    """Read one record.

    Raises:
        UserError: not JSON, not a run record, or of another version.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not a readable run record ({error})") from error
    found = (
        (content.get("schema_name"), content.get("version")) if isinstance(content, dict) else ()
    )
    if found != (SCHEMA, VERSION):
        raise UserError(
            f"{path}: schema and version are {found}; this dpmi reads {SCHEMA} version {VERSION}"
        )
    try:
        return RunRecord.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{path}: {where}: {first['msg']}") from error


def read_records(folder: Path) -> list[RunRecord]:
    """Every record below a folder, of a job, a sweep or several, by name of the job's folder.

    Those that a new run of the same cell superseded are left out.
    """
    paths = sorted(folder.rglob(RECORD_FILE))
    return [read_record(p) for p in paths if SUPERSEDED not in p.relative_to(folder).parts]


def environment(device: str | None) -> dict[str, Any]:
    """What the run ran on, without names of hosts or paths."""
    return {
        "packages": {name: _version(name) for name in _PACKAGES},
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpus": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "device": device,
        "git_commit": _git_commit(),
        "code": code_digest(),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git_commit() -> str | None:
    """Commit of the checkout that this code runs from, "+dirty" where it was changed since."""
    source = Path(__file__).resolve().parents[2]
    if not (source / ".git").exists():  # installed elsewhere: some outer repository is not ours
        return None
    try:
        head = _git(source, "rev-parse", "HEAD")
        return head + ("+dirty" if _git(source, "status", "--porcelain") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *words: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=10, check=True
    )
    return done.stdout.strip()
