"""Steps that may have been released, on disk before they are: ε is never under-counted."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from dpmi.privacy.spending import LedgerEntry

AHEAD = 8  # steps reserved at once: a disk's flush takes some of a step's time


@dataclass(frozen=True)
class Reservation:
    """Releases ``first`` to ``last`` - 1 of a run, which may have been executed.

    Attributes:
        first, last: number of the releases on the ledger before and after them.
        noise_multiplier, sample_rate: of each.
        physical_batch_size: images in one pass, on which the rounding of a release depends.
    """

    first: int
    last: int
    noise_multiplier: float
    sample_rate: float
    physical_batch_size: int


class Journal:
    """An append-only file of reservations, each flushed to the disk before it is used.

    Contract: a process that dies at any moment, by a power cut too, has executed no release that
    is not reserved here. It may have reserved up to ``AHEAD`` that it did not execute.

    Args:
        path: of the file; made when the first reservation is.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._last: Reservation | None = None

    def cover(
        self,
        release: int,
        noise_multiplier: float,
        sample_rate: float,
        physical_batch_size: int,
        ahead: int = AHEAD,
    ) -> None:
        """Return only when the ``release``-th release (counted from 0) is on the disk.

        Args:
            release: number of the release on the ledger.
            noise_multiplier: of it.
            sample_rate: of it.
            physical_batch_size: of it.
            ahead: how many of the kind are reserved at once.

        Raises:
            OSError: it cannot be written; nothing may be released then.
        """
        last = self._last
        same = last and (last.noise_multiplier, last.sample_rate, last.physical_batch_size) == (
            noise_multiplier, sample_rate, physical_batch_size,
        )  # fmt: skip
        if same and last and last.first <= release < last.last:
            return
        self._append(
            Reservation(
                release, release + ahead, noise_multiplier, sample_rate, physical_batch_size
            )
        )

    def cover_after_steps(
        self, release: int, noise_multiplier: float, sample_rate: float, physical_batch_size: int
    ) -> None:
        """The same of one release after the last step, under a number that no step has reserved.

        Steps are reserved ahead, so that its own number may be one that a step was to have. Lost,
        it would be taken for that step, which may have less noise and yet cost less, by sampling.
        """
        made = read_journal(self._path)
        kind = (noise_multiplier, sample_rate, physical_batch_size)
        for one in made:  # by a process before this one, which this one repeats
            same = (one.noise_multiplier, one.sample_rate, one.physical_batch_size) == kind
            if same and one.first >= release:
                return
        number = max([release, *(one.last for one in made)])
        self._append(Reservation(number, number + 1, *kind))

    def _append(self, reservation: Reservation) -> None:
        line = json.dumps(asdict(reservation)) + "\n"
        # A line that a full disk cut short is closed by the line break that the next begins with.
        is_new = not self._path.exists()
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            whole = ("\n" + line).encode()
            if os.write(descriptor, whole) != len(whole):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if is_new:
            sync_folder(self._path.parent)
        self._last = reservation


def sync_folder(folder: Path) -> None:
    """Flush the names in a folder to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_journal(path: Path) -> list[Reservation]:
    """Reservations in the order they were made; none where there is no file.

    A last line cut short is left out: what it was to reserve was not executed.
    """
    if not path.is_file():
        return []
    reservations = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            reservations.append(Reservation(**json.loads(line)))
        except (ValueError, TypeError):
            continue
    return reservations


def reserved_entries(
    reservations: Sequence[Reservation], first: int, last: int
) -> list[LedgerEntry]:
    """What the releases ``first`` to ``last`` - 1 of a run may have been, by the reservations.

    Where several speak of one release, the one with the least noise counts.

    Raises:
        ValueError: no reservation speaks of one of them.
    """
    entries: list[LedgerEntry] = []
    for release in range(first, last):
        kinds = [r for r in reservations if r.first <= release < r.last]
        if not kinds:
            raise ValueError(f"release {release} is not on the journal")
        worst = min(kinds, key=lambda kind: kind.noise_multiplier)
        entry = LedgerEntry(worst.noise_multiplier, worst.sample_rate, 1)
        if entries and replace(entries[-1], steps=1) == entry:
            entry = replace(entry, steps=entries.pop().steps + 1)
        entries.append(entry)
    return entries
