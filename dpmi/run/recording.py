"""What is known of a run so far, and the record that is made of it, however the run ended."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from dpmi.base.errors import UserError
from dpmi.base.redaction import redacted
from dpmi.config.identity import cell_name
from dpmi.config.schema import plain_values
from dpmi.data.prepare import PreparedData
from dpmi.mechanisms import Mechanism, PlannedMechanism
from dpmi.mechanisms.risks import patient_risk_of, risks_of
from dpmi.models.groups import worst_groups
from dpmi.privacy.journal import reserved_entries
from dpmi.run.durability.resume import Resumption
from dpmi.run.records.entry import RunEntry
from dpmi.run.records.entry_file import account_left
from dpmi.run.records.environment import environment
from dpmi.run.records.record import ImageSample, RunAccount, RunRecord
from dpmi.run.records.writing import write_record
from dpmi.run.stages.context import Context
from dpmi.run.stages.evaluating import Measured
from dpmi.run.stages.training import Training

Status = Literal["completed", "failed", "interrupted"]


@dataclass
class Known:
    """What the stages of a run have given; None where it did not come to one.

    Attributes:
        keyed: digests under the key of the house, by what they are of.
        data: all images.
        network: its name, and how it is shown images; None where it is given.
        begun: where the run starts.
        entry: in the account.
        mechanism: with its plan and its ledger.
        sample: an image before and after, where it may be shown.
        training: under way, or done.
        measured: of the weights.
    """

    keyed: dict[str, str] = field(default_factory=dict)
    data: PreparedData | None = None
    network: dict[str, Any] | None = None
    begun: Resumption | None = None
    entry: RunEntry | None = None
    mechanism: Mechanism | None = None
    sample: ImageSample | None = None
    training: Training | None = None
    measured: Measured = field(default_factory=Measured)


def record(
    context: Context, known: Known, digest: str, status: Status, reason: str | None
) -> RunRecord:
    """Settle the account and write down what is known; the first process writes.

    Args:
        context: of the run.
        known: so far.
        digest: of the config, before anything was picked that it leaves open.
        status: how the run ended.
        reason: why it did not complete.

    Raises:
        UserError: the record cannot be written.
    """
    if status != "completed":
        _count_what_was_not_repeated(known)
    made = _record(context, known, digest, status, reason)
    if not context.ranks.is_first:
        return made
    try:
        write_record(made, context.folder)
    except OSError as error:
        ended = f"{status}: {reason}" if reason else status
        raise UserError(
            f"{context.folder}: the record cannot be written ({error.strerror}); make room, the "
            f"same command continues; the run {ended}"
        ) from error
    return made


def _record(
    context: Context, known: Known, digest: str, status: Status, reason: str | None
) -> RunRecord:
    config, mechanism, measured = context.config, known.mechanism, known.measured
    training = known.training
    return RunRecord(
        run=cell_name(config),
        config_digest=digest,
        keyed_config=known.keyed.get("config"),
        keyed_data=known.keyed.get("data"),
        status=status,
        reason=redacted(reason) if reason else None,
        stopped=training.privacy.stopped if training and training.privacy else None,
        restarts=known.begun.state.restarts if known.begun else 0,
        config=plain_values(config),
        picked=context.picked,
        data=asdict(known.data.fingerprint) if known.data else None,
        guarantee=mechanism.guarantee() if mechanism else None,
        risk=risks_of(mechanism) if mechanism else (),
        patient_risk=patient_risk_of(mechanism) if mechanism else None,
        mechanism=mechanism.describe() if mechanism else {},
        network=known.network,
        account=_settled(context, known, status),
        metrics=measured.metrics,
        reliability=measured.reliability,
        groups=measured.groups,
        worst_groups=worst_groups(measured.groups),
        curves=training.curves.values if training else {},
        sample=known.sample,
        timings=context.clock.so_far(),
        peak_memory_mb=context.memory.mb(),
        environment=environment(context.device),
    )


def _count_what_was_not_repeated(known: Known) -> None:
    """Releases of processes before this one, up to which a run that ended early did not come.

    Resumed, it would have made them again, to the bit, and counted them then.
    """
    begun = known.begun
    if isinstance(known.mechanism, PlannedMechanism) and begun:
        ledger = known.mechanism.ledger
        for entry in reserved_entries(begun.reservations, ledger.steps, begun.released):
            ledger.record_lost(entry)


def _settled(context: Context, known: Known, status: Status) -> RunAccount | None:
    """Tell the account what was spent, and return what the record says of it."""
    if not context.ranks.is_first:
        return None
    if known.entry is None or known.mechanism is None:
        return account_left(context.folder)
    begun, training = known.begun, known.training
    resumed = bool(begun and begun.state.restarts)
    trained = resumed or bool(training and training.trainer.global_step)
    known.entry.settle(known.mechanism, status, trained)
    return known.entry.run_account() or account_left(context.folder)
