"""Make a card from a run's public record, its weights and its account."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from dpmi.base.errors import UserError
from dpmi.base.places import cache_folder
from dpmi.cards.rendering import write
from dpmi.cards.schema import Card, Others, WeightsFile
from dpmi.cards.wording import INTENDED_USE, LIMITS, described, shares
from dpmi.privacy.account import Accounts, total_of
from dpmi.run.first_weights import WEIGHTS_FILE
from dpmi.run.left import public_record, read_kept
from dpmi.run.records.leaving import public_execution
from dpmi.run.records.public import PUBLIC_FILE
from dpmi.run.records.reading import read_record
from dpmi.run.records.record import RECORD_FILE


@dataclass(frozen=True)
class Wishes:
    """What the command line may ask for.

    Attributes:
        with_ledger: let plan and ledger of a user's own data leave.
        intended_use: replaces the default text.
        cache_dir: where the accounts are; None for the run's own, or the default.
    """

    with_ledger: bool = False
    intended_use: str | None = None
    cache_dir: Path | None = None


def make_card(run: Path, out: Path, wishes: Wishes) -> Card:
    """Write the card of the run in a folder.

    Args:
        run: the folder of one job.
        out: where the three files go.
        wishes: what was asked for.

    Raises:
        UserError: no run that completed is there, or not all of it, or of another version.
        OSError: it cannot be written.
    """
    record, weights = public_record(run), run / WEIGHTS_FILE
    if record.status != "completed" or record.guarantee is None:
        raise UserError(
            f"{run}: the run {record.status}, so it has no checkpoint to make a card of; the same "
            "command goes on with it (python -m dpmi.train ...)"
        )
    if record.guarantee.epsilon is not None and not record.risk:
        raise UserError(
            f"{run / PUBLIC_FILE}: of an older version of dpmi, which did not bound what an "
            "attacker can do; run it again with rerun=true"
        )
    _, provenance = read_kept(weights)
    private = read_record(run / RECORD_FILE) if (run / RECORD_FILE).is_file() else None
    by_choice = False
    if wishes.with_ledger and not record.executed:
        if private is None:
            raise UserError(
                f"{run}: --with-ledger takes plan and ledger from {RECORD_FILE}, which is not "
                "there; make the card where the record is, or leave the option out"
            )
        chosen = {**private.config, "logger": {**private.config["logger"], "nonprivate": True}}
        executed = public_execution(private.mechanism, chosen)
        record = record.model_copy(update={"executed": executed})
        by_choice = bool(executed)
    cache_dir = wishes.cache_dir or cache_folder(private.config["cache_dir"] if private else None)
    its = described(record)
    card = Card(
        made=_now(),
        trust=its.trust,
        mechanism=its.mechanism,
        sensitivity=its.sensitivity,
        record=record,
        ledger_by_choice=by_choice,
        weights=weights_file(weights),
        others=_others(cache_dir, provenance.taken[-1].account if provenance.taken else None),
        shares=shares(record),
        intended_use=" ".join((wishes.intended_use or INTENDED_USE).split()),
        limits=LIMITS,
    ).sealed()
    write(card, out)
    return card


def weights_file(path: Path) -> WeightsFile:
    """Name, size and SHA-256 of a file."""
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return WeightsFile(name=path.name, size=path.stat().st_size, sha256=digest)


def _others(cache_dir: Path, account: str | None) -> Others | None:
    """The account's total, those of overlapping sets with it; None where it is not at hand."""
    accounts = Accounts(cache_dir).read()
    own = next((one for one in accounts if one.id == account), None)
    if own is None:
        return None
    images = own.images
    near = [a for a in accounts if a is not own and (images is None or a.overlaps(images))]
    total = total_of([own, *near])
    holds = bool(total.models or total.releases) and not total.without_epsilon
    return Others(
        account=own.id,
        at=_now(),
        runs=len(total.spendings),
        says=tuple(total.lines),
        epsilon=total.unit_epsilon if holds else None,
        delta=total.delta,
        unit=total.unit,
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
