"""What is known of a run, which is private: the record that tables, plots and reports read.

What may be published of it is ``dpmi.run.records.public``.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, PlainSerializer

from dpmi.base.redaction import redacted
from dpmi.config.identity import cell_name, config_digest
from dpmi.config.schema import Config, plain_values
from dpmi.models.groups import Subgroup, Worst
from dpmi.privacy.guarantee import Guarantee
from dpmi.privacy.risk import Risk
from dpmi.privacy.spending import Spending
from dpmi.run.records.environment import environment
from dpmi.run.records.kinds import Private

RECORD_FILE = "record.json"
SUPERSEDED = "superseded"  # folder of what earlier runs of the same cell left
SCHEMA, VERSION = "dpmi.run-record", 4

# Where a metric is not defined it is NaN here, and null in the file.
Metric = Annotated[
    float,
    BeforeValidator(lambda value: math.nan if value is None else value),
    PlainSerializer(lambda value: None if math.isnan(value) else value, when_used="json"),
]


class ImageSample(Private):
    """One training image before and after the mechanism; of public images only, unless requested.

    Attributes:
        label: its class.
        side: of the image as the mechanism saw it, in pixels.
        every: each ``every``-th pixel of it is kept here, in both directions.
        before, after: PNG in base64; ``after`` is None where the mechanism leaves images alone.
    """

    label: str
    side: int
    every: int
    before: str
    after: str | None


class RunAccount(Private):
    """What the account of the training images says of a run.

    Attributes:
        id: name of the account, random; None where the run did not know it.
        overlaps: names of accounts that have some of the same training images.
        spending: what the run took.
        superseded: what earlier attempts, in whose place the run is, may have taken.
        before: what was taken from the same images by those whose weights the run started from.
            The guarantee is of them, too.
    """

    id: str | None = None
    overlaps: tuple[str, ...] = ()
    spending: Spending
    superseded: tuple[Spending, ...]
    before: tuple[Spending, ...] = ()


class RunRecord(Private):
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
        config: the composed config, with what was picked in place of what it left open; of
            ``noise_seed`` only whether one was given.
        picked: which keys it left open, what was picked for them, and the seconds of a step by
            which; None where it left none open.
        data: the data fingerprint; None where the run failed before it had any.
        guarantee: of what was executed.
        risk: what an attacker can do, by that guarantee; empty where there is none.
        patient_risk: the same about the patient with the most training images, where an image is
            the unit: how many they are is a fact about the images, so it stays here.
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

    model_config = ConfigDict(ser_json_inf_nan="strings")

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
    picked: dict[str, Any] | None = None
    data: dict[str, Any] | None
    guarantee: Guarantee | None
    risk: tuple[Risk, ...] = ()
    patient_risk: Risk | None = None
    mechanism: dict[str, Any]
    network: dict[str, Any] | None = None
    account: RunAccount | None = None
    metrics: dict[str, Metric]
    reliability: list[tuple[float, float, int]] = Field(default_factory=list)
    groups: list[Subgroup] = Field(default_factory=list)
    worst_groups: dict[str, Worst] = Field(default_factory=dict)
    curves: dict[str, list[Metric]]
    sample: ImageSample | None
    timings: dict[str, float]
    peak_memory_mb: float | None
    environment: dict[str, Any]
    audit: dict[str, Any] | None = None


def record_of_no_run(
    config: Config,
    status: Any,
    reason: str,
    restarts: int = 0,
    account: RunAccount | None = None,
) -> RunRecord:
    """The record of a run that could write none itself: it did not begin, or it was killed.

    It states no guarantee, but what the run may have taken, according to its folder (``account``).
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
