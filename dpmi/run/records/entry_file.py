"""The copy of a run's account entry in its job folder."""

from __future__ import annotations

import os
import secrets
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Literal

from dpmi.privacy.journal import read_journal, sync_folder
from dpmi.privacy.spending import RESERVED, LedgerEntry, Spending
from dpmi.run.records.kinds import Private
from dpmi.run.records.reading import read_record
from dpmi.run.records.record import RECORD_FILE, SUPERSEDED, RunAccount

ENTRY_FILE, STATE_FILE, JOURNAL_FILE = "entry.json", "resume.json", "journal.jsonl"


class EntryFile(Private):
    """The account's entry of the run in a folder; ``entry.json`` until it is complete.

    It is no secret, and apart from the key, so that a run that lost its key is still known.

    Attributes:
        status: how the run ended; "reserved" while it may still take something.
        spending: what it took; at most, by its plan, while it is reserved.
    """

    status: Literal["reserved", "completed", "interrupted", "failed", "superseded"]
    spending: Spending

    def write(self, folder: Path) -> None:
        """Write whole or not at all, and flush."""
        path = folder / ENTRY_FILE
        part = path.with_suffix(".part")
        with part.open("w", encoding="utf-8") as file:
            file.write(self.model_dump_json(indent=1))
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
        sync_folder(folder)


def may_have_spent(folder: Path) -> Spending | None:
    """What the run in a folder may have taken, if it goes on no further.

    Where the run was killed, the journal knows it better than its plan, which was reserved.
    None where nothing was reserved, and so nothing released.
    """
    written = read_entry(folder)
    journal = folder / JOURNAL_FILE
    if written is None:
        if journal.is_file():
            name = secrets.token_hex(8)
            return Spending(name, folder.name, ledger=_releases(journal), unit=None)
        record = folder / RECORD_FILE
        account = read_record(record).account if record.is_file() else None
        return account.spending if account else None
    took = written.spending
    if written.status != RESERVED or not took.ledger:
        return took
    # The journal begins with the first release, in the folder of the key.
    if journal.is_file() or (folder / STATE_FILE).is_file():
        return replace(took, ledger=_releases(journal))
    return took


def superseded_spendings(folder: Path) -> tuple[Spending, ...]:
    """What earlier attempts, in whose place the run in a folder is, may have taken."""
    shelves = sorted((folder / SUPERSEDED).glob("*/"), key=lambda path: path.name)
    spendings = [entry.spending for shelf in shelves if (entry := read_entry(shelf))]
    return tuple({spending.entry: spending for spending in spendings}.values())


def account_left(folder: Path) -> RunAccount | None:
    """For the record of a run that cannot write it itself; None where nothing was released."""
    took, before = may_have_spent(folder), superseded_spendings(folder)
    if took is None and not before:
        return None
    return RunAccount(spending=took or Spending("", folder.name), superseded=before)


def read_entry(folder: Path) -> EntryFile | None:
    """The entry of the run in a folder; None where there is none, or it is damaged."""
    try:
        return EntryFile.model_validate_json((folder / ENTRY_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _releases(journal: Path) -> tuple[LedgerEntry, ...]:
    """What a journal says may have been released: each number once for each kind of noise."""
    numbers: dict[tuple[float, float], set[int]] = defaultdict(set)
    for one in read_journal(journal):
        numbers[one.noise_multiplier, one.sample_rate].update(range(one.first, one.last))
    return tuple(LedgerEntry(*kind, len(made)) for kind, made in numbers.items())
