"""What a run leaves: a private record, and a public one made of it by one function.

Tables, plots and dashboards read records, and nothing else.
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainSerializer, ValidationError

from dpmi.base.errors import UserError
from dpmi.base.redaction import redacted
from dpmi.config.identity import cell_name, config_digest
from dpmi.config.schema import Config, plain_values
from dpmi.models.groups import Subgroup, Worst, worst_groups
from dpmi.privacy.guarantee import Guarantee
from dpmi.privacy.risk import Risk
from dpmi.privacy.spending import Spending
from dpmi.run.records.environment import environment
from dpmi.run.records.leaving import (
    public_audit,
    public_config,
    public_execution,
    public_groups,
    public_guarantee,
    public_metrics,
    public_risk,
)

RECORD_FILE, PUBLIC_FILE = "record.json", "public.json"
SUPERSEDED = "superseded"  # folder of what earlier runs of the same cell left
SCHEMA, VERSION = "dpmi.run-record", 4
PUBLIC_SCHEMA, PUBLIC_VERSION = "dpmi.public-record", 1

# Where a metric is not defined it is NaN here, and null in the file.
Metric = Annotated[
    float,
    BeforeValidator(lambda value: math.nan if value is None else value),
    PlainSerializer(lambda value: None if math.isnan(value) else value, when_used="json"),
]


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


class RunAccount(BaseModel):
    """What the account of the training images says of a run.

    Attributes:
        id: name of the account, random; None where the run could not tell it.
        overlaps: names of accounts that have some of the same training images.
        spending: what the run took.
        superseded: what earlier attempts, in whose place the run is, may have taken.
        before: what was taken from the same images by those whose weights the run started from.
            The guarantee is of them, too.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str | None = None
    overlaps: tuple[str, ...] = ()
    spending: Spending
    superseded: tuple[Spending, ...]
    before: tuple[Spending, ...] = ()


class RunRecord(BaseModel):
    """All that is known of a run, private, in ``record.json`` in its job folder.

    Attributes:
        private: that it is, for who opens the file.
        schema_name, version: what this file is; a reader refuses any other.
        run: name of the cell, dataset-mechanism-β-seed.
        config_digest: equal for runs that compute the same.
        keyed_config, keyed_data: digests of the config's digest and of the data fingerprint under
            the key of the house, which may leave it; None where the run did not come to it.
        status: how it ended; ``reason`` says why, where it did not complete.
        stopped: why a run that completed has fewer steps than planned, where it has.
        restarts: how often it was resumed after its process was killed.
        config: the composed config; of ``noise_seed`` only whether one was given.
        data: the data fingerprint; None where the run failed before it had any.
        guarantee: of what was executed.
        risk: what an attacker can do, by that guarantee; empty where there is none.
        mechanism: the plan and the ledger, where there is one.
        network: which, and how it is shown images; None where none was read or made.
        account: what it took from its training images, and attempts before it; None where nothing.
        metrics: flat names; those under ``nonprivate/`` no ε covers, those under
            ``selected_on_test/`` were picked by looking at the test images. NaN, in the file null,
            where not defined of the images: the recall of a class that none is of.
        groups: metrics of the test images apart for each group (``data.groups``).
        worst_groups: metric to the group that fares worst by it.
        reliability: mean confidence, accuracy and number of the test images in each bin of the
            calibration error, by confidence.
        curves: metric to one value for each epoch that ended.
        sample: an image before and after, where it may be shown.
        timings: seconds.
        peak_memory_mb: most memory while training and evaluating, in MB: on a CPU resident, less
            what the process had before the run; on a GPU allocated; None where not measured. Where
            several processes trained, of the first.
        environment: package versions, Python, device, git commit.
        audit: the empirical lower bound on ε, where the run was audited.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="strings")

    private: Literal[
        "facts about the training images that no ε covers: keep this file where the images are"
    ] = "facts about the training images that no ε covers: keep this file where the images are"
    schema_name: Literal["dpmi.run-record"] = "dpmi.run-record"
    version: Literal[4] = 4
    run: str
    config_digest: str
    keyed_config: str | None
    keyed_data: str | None
    status: Literal["completed", "failed", "interrupted"]
    reason: str | None
    stopped: str | None
    restarts: int
    config: dict[str, Any]
    data: dict[str, Any] | None
    guarantee: Guarantee | None
    risk: tuple[Risk, ...] = ()
    mechanism: dict[str, Any]
    network: dict[str, Any] | None = None
    account: RunAccount | None = None
    metrics: dict[str, Metric]
    reliability: list[tuple[float, float, int]] = []
    groups: list[Subgroup] = []
    worst_groups: dict[str, Worst] = {}
    curves: dict[str, list[Metric]]
    sample: ImageSample | None
    timings: dict[str, float]
    peak_memory_mb: float | None
    environment: dict[str, Any]
    audit: dict[str, Any] | None = None

    def write(self, folder: Path) -> Path:
        """Write ``record.json``, and ``public.json`` beside it, whole or not at all.

        ``record.json`` comes last: where it is, both are.

        Returns:
            The path of ``record.json``.
        """
        texts = {PUBLIC_FILE: publishable(self), RECORD_FILE: self}
        parts = {name: folder / f"{name}.part" for name in texts}
        try:
            for name, content in texts.items():
                text = redacted(content.model_dump_json(indent=2))
                parts[name].write_text(text, encoding="utf-8")
            for name, part in parts.items():
                os.replace(part, folder / name)
        finally:
            for part in parts.values():
                part.unlink(missing_ok=True)
        return folder / RECORD_FILE


class PublicRecord(BaseModel):
    """What may be published of a run, in ``public.json`` beside its record.

    It holds what the guarantee covers, and what is not about the training images. Metrics on test
    images are named as what they are: statistics of those images. Nothing is told of validation
    images. Of a user's own data it tells neither places nor batches (``dpmi.run.records.leaving``).

    Attributes:
        public: what covers the rest, in a sentence.
        schema_name, version: what this file is.
        run: name of the cell.
        cell: equal for runs of one house that compute the same; a keyed digest.
        data: equal for runs of one house on the same images; a keyed digest.
        status: how it ended; the reason may hold paths, and stays in the record.
        stopped: whether a budget of ε ended it before its last step.
        config: the keys that may leave.
        guarantee: of what was executed; None of a run that executed nothing.
        risk: what an attacker can do, by that guarantee.
        executed: the plan and the ledger, from which anybody can compute ε; of public data only,
            for they tell the batch size.
        metrics: flat names under ``test_images/`` and ``selected_on_test_images/``.
        reliability: of the test images, as in the record.
        groups, worst_groups: as in the record; of public data only (``dpmi.run.records.leaving``).
        audit: the empirical lower bound on ε, where the run was audited.
        environment: as in the record.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="strings")

    public: str
    schema_name: Literal["dpmi.public-record"] = "dpmi.public-record"
    version: Literal[1] = 1
    run: str
    cell: str | None
    data: str | None
    status: Literal["completed", "failed", "interrupted"]
    stopped: bool
    config: dict[str, Any]
    guarantee: Guarantee | None
    risk: tuple[Risk, ...] = ()
    executed: dict[str, Any]
    metrics: dict[str, Metric]
    reliability: list[tuple[float, float, int]] = []
    groups: list[Subgroup] = []
    worst_groups: dict[str, Worst] = {}
    audit: dict[str, Any] | None
    environment: dict[str, Any]


def publishable(record: RunRecord) -> PublicRecord:
    """What may be published of a private record: the only door between the two."""
    guarantee = record.guarantee
    return PublicRecord(
        public=_covered(guarantee),
        run=record.run,
        cell=record.keyed_config,
        data=record.keyed_data,
        status=record.status,
        stopped=record.stopped is not None,
        config=public_config(record.config),
        guarantee=None if guarantee is None else public_guarantee(guarantee),
        risk=public_risk(record.risk),
        executed=public_execution(record.mechanism, record.config),
        metrics=public_metrics(record.metrics),
        reliability=record.reliability,
        groups=public_groups(record.groups, record.config),
        worst_groups=worst_groups(public_groups(record.groups, record.config)),
        audit=public_audit(record.audit),
        environment=record.environment,
    )


def _covered(guarantee: Guarantee | None) -> str:
    """What covers the weights and the metrics of a run."""
    if guarantee is None:
        return "this run executed nothing"
    others = "test_images/ are statistics of the test images, which no ε covers"
    if guarantee.epsilon is None:
        return (
            "no ε covers the training images: neither the weights nor the test metrics of this "
            f"run, which depend on them; {others}"
        )
    return f"the guarantee covers the training images: the weights, and what follows; {others}"


def record_of_no_run(
    config: Config,
    status: Any,
    reason: str,
    restarts: int = 0,
    account: RunAccount | None = None,
) -> RunRecord:
    """The record of a run that could write none itself: it did not begin, or it was killed.

    It states no guarantee, but what the run may have taken, as its folder tells it (``account``).
    """
    return RunRecord(
        run=cell_name(config),
        config_digest=config_digest(config),
        keyed_config=None,
        keyed_data=None,
        status=status,
        reason=redacted(reason),
        stopped=None,
        restarts=restarts,
        config=plain_values(config),
        data=None,
        guarantee=None,
        mechanism={},
        account=account,
        metrics={},
        curves={},
        sample=None,
        timings={},
        peak_memory_mb=None,
        environment=environment(None),
    )


def read_record(path: Path) -> RunRecord:
    """Read one private record.

    Raises:
        UserError: not JSON, not a run record, or of another version.
    """
    return _read(path, RunRecord, SCHEMA, VERSION)


def config_of(record: RunRecord, path: Path) -> Config:
    """The config of a run that is to be made again.

    Raises:
        UserError: it is of another version's.
    """
    try:
        return Config.model_validate(record.config)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise UserError(
            f"{path}: its config is of another version of dpmi ({key}: {first['msg']}); run it "
            "again, or take the version that it was run with"
        ) from error


def read_public_record(path: Path) -> PublicRecord:
    """Read one public record.

    Raises:
        UserError: not JSON, not a public record, or of another version.
    """
    return _read(path, PublicRecord, PUBLIC_SCHEMA, PUBLIC_VERSION)


Kind = TypeVar("Kind", RunRecord, PublicRecord)


def _read(path: Path, kind: type[Kind], schema: str, version: int) -> Kind:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not a readable run record ({error})") from error
    found = (
        (content.get("schema_name"), content.get("version")) if isinstance(content, dict) else ()
    )
    if found != (schema, version):
        raise UserError(
            f"{path}: schema and version are {found}; this dpmi reads {schema} version {version}"
        )
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{path}: {where}: {first['msg']}") from error


def read_records(folder: Path) -> list[RunRecord]:
    """Every record below a folder, of a job, a sweep or several, by name of the job's folder.

    Those that a new run of the same cell superseded are left out.
    """
    return [read_record(path) for path in _below(folder, RECORD_FILE)]


def read_public_records(folder: Path) -> list[PublicRecord]:
    """The same of public records."""
    return [read_public_record(path) for path in _below(folder, PUBLIC_FILE)]


def _below(folder: Path, name: str) -> list[Path]:
    return [p for p in sorted(folder.rglob(name)) if SUPERSEDED not in p.relative_to(folder).parts]
