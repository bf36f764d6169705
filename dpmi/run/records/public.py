"""What may be published of a run, made of its private record by one function."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, Field

from dpmi.models.groups import Subgroup, Worst, worst_groups
from dpmi.privacy.guarantee import Guarantee
from dpmi.privacy.risk import Risk
from dpmi.run.records.kinds import Public
from dpmi.run.records.leaving import (
    public_audit,
    public_config,
    public_execution,
    public_groups,
    public_guarantee,
    public_metrics,
    public_risk,
    public_test_images,
)
from dpmi.run.records.record import Metric, RunRecord

PUBLIC_FILE = "public.json"
PUBLIC_SCHEMA, PUBLIC_VERSION = "dpmi.public-record", 1


class PublicRecord(Public):
    """What may be published of a run, in ``public.json`` beside its record.

    It holds what the guarantee covers, and what is not about the training images. Metrics on test
    images are named as what they are: statistics of those images. Nothing is reported of validation
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
        test_images: how many they are, where no reliability diagram counts them (of findings).
        groups, worst_groups: as in the record; of public data only (``dpmi.run.records.leaving``).
        audit: the empirical lower bound on ε, where the run was audited.
        environment: as in the record.
    """

    model_config = ConfigDict(ser_json_inf_nan="strings")

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
    reliability: list[tuple[float, float, int]] = Field(default_factory=list)
    test_images: int | None = None
    groups: list[Subgroup] = Field(default_factory=list)
    worst_groups: dict[str, Worst] = Field(default_factory=dict)
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
        test_images=public_test_images(record.data, record.reliability),
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
