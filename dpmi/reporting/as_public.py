"""A report that may be published: made of public records, and nothing else."""

from __future__ import annotations

from dpmi.run.records.leaving import tested_metrics
from dpmi.run.records.public import PublicRecord
from dpmi.run.records.record import RunRecord

MADE_OF = {
    False: "Made of private records (record.json), which hold facts about the training images that "
    "no ε covers: where the images are not public, this report stays in the house.",
    True: "Made of public records (public.json) alone: of the guarantees, of what they cover, and "
    "of statistics of the test images, which no ε covers.",
}
UNTOLD = "the reason is in record.json, which stays in the house"


def as_far_as_public(public: PublicRecord) -> RunRecord:
    """The record of a run with what its public record has; all else is empty."""
    return RunRecord(
        run=public.run,
        config_digest=(public.cell or public.run)[:12],
        keyed_config=public.cell,
        keyed_data=public.data,
        status=public.status,
        reason=None if public.status == "completed" else UNTOLD,
        stopped="a budget of ε was reached before the last step" if public.stopped else None,
        restarts=0,
        config=public.config,
        data=None,
        guarantee=public.guarantee,
        risk=public.risk,
        mechanism=public.executed,
        metrics=tested_metrics(public.metrics),
        reliability=public.reliability,
        groups=public.groups,
        worst_groups=public.worst_groups,
        curves={},
        sample=None,
        timings={},
        peak_memory_mb=None,
        environment=public.environment,
        audit=public.audit,
    )
