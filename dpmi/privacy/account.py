"""The account of a data set: everything that runs have spent of its training images, on disk.

``FOLDER`` in the cache holds a folder for each set of training images, under a random name:
``images``, the SHA-256 digests of the images' contents, and ``entries.jsonl``, a line for each
thing that happened. Which images a run was trained on decides its account; labels, preprocessing
and where files lie do not. Sets that overlap have accounts of their own, and what one holds counts
in full for the other: an upper bound for each image.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock

from dpmi.base.errors import UserError
from dpmi.privacy.guarantee import printed_epsilon
from dpmi.privacy.journal import sync_folder
from dpmi.privacy.spending import RESERVED, Spending
from dpmi.privacy.total import Total, total

FOLDER = "accounts"
_IMAGES, _ENTRIES, _LOCK = "images", "entries.jsonl", ".lock"
_DIGEST_BYTES = 32


@dataclass(frozen=True)
class Entry:
    """What an account knows of one run, or of one release that several runs share.

    Attributes:
        spending: taken; of one that is "reserved": at most, by its plan.
        status: "reserved", "completed", "interrupted", "failed" or "superseded".
        at: when this was written, in UTC.
    """

    spending: Spending
    status: str
    at: str


@dataclass(frozen=True)
class Account:
    """One set of training images and what was taken from it.

    Attributes:
        id: random: it says nothing about the images, and may be published.
        images: digests of their contents; None where they cannot be read.
        entries: by name of the spending; the last line of each counts.
        damage: what of the account cannot be read; then no total is known.
    """

    id: str
    images: frozenset[bytes] | None
    entries: dict[str, Entry] = field(default_factory=dict)
    damage: tuple[str, ...] = ()

    def overlaps(self, images: frozenset[bytes]) -> bool:
        """Whether one of these images is among its own; taken to be so where it is not known."""
        return self.images is None or not self.images.isdisjoint(images)


class Accounts:
    """All accounts of a cache, safe with several processes.

    Contract: :meth:`reserve` returns only when what a run is going to take is on the disk. So a
    process that dies at any moment, by a power cut too, has taken no more than its account says.

    Args:
        cache_dir: of the run.
    """

    def __init__(self, cache_dir: Path) -> None:
        self._folder = cache_dir / FOLDER

    def reserve(
        self, images: Iterable[str], spending: Spending, budget: float | None = None
    ) -> str:
        """Enter what a run is going to take at most, before it takes anything.

        Args:
            images: SHA-256 digests of the training images' contents, in hexadecimal.
            spending: by the plan; replaces what the same entry said before.
            budget: most that all runs on these images may take together: for a release of noised
                images that hides values the ε of a channel value, else that of an image, or of a
                patient where this one and all others hide patients.

        Returns:
            Name of the account.

        Raises:
            UserError: the budget would be passed, or what was taken is not known; nothing is
                entered.
            OSError: it cannot be written; nothing may be released then.
        """
        contents = _as_bytes(images)
        self._folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self._folder / _LOCK):
            overlapping = [account for account in self.read() if account.overlaps(contents)]
            if budget is not None:
                _check_budget(overlapping, spending, budget)
            same = (account for account in overlapping if account.images == contents)
            account = next(same, None) or self._open(contents)
            known = account.entries.get(spending.entry)
            if known is None or known.spending != spending:
                self._append(account.id, spending, RESERVED)
        return account.id

    def settle(self, spending: Spending, status: str) -> None:
        """Enter what was really taken, wherever an account knows it by name.

        Args:
            spending: replaces what was reserved.
            status: how the run ended; a release of noised images is complete once it is made.

        Raises:
            OSError: it cannot be written; what was reserved remains.
        """
        status = status if spending.value_epsilon is None else "completed"
        if not self._folder.is_dir():
            return
        with FileLock(self._folder / _LOCK):
            for account in self.read():
                known = account.entries.get(spending.entry)
                if known and (known.status == RESERVED or known.spending != spending):
                    self._append(account.id, spending, status)

    def read(self) -> list[Account]:
        """Every account, as it is on the disk."""
        if not self._folder.is_dir():
            return []
        homes = sorted(path.parent for path in self._folder.glob(f"*/{_IMAGES}"))
        return [_read(home) for home in homes]

    def overlapping(self, images: Iterable[str]) -> list[Account]:
        """Those that have one of these images, or may have: digests in hexadecimal."""
        contents = _as_bytes(images)
        return [account for account in self.read() if account.overlaps(contents)]

    def _open(self, images: frozenset[bytes]) -> Account:
        account = Account(secrets.token_hex(8), images)
        home = self._folder / account.id
        home.mkdir()
        content = b"".join(sorted(images))
        part = home / f"{_IMAGES}.part"
        with part.open("wb") as file:
            file.write(hashlib.sha256(content).digest() + content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, home / _IMAGES)
        sync_folder(home)
        sync_folder(self._folder)
        return account

    def _append(self, account: str, spending: Spending, status: str) -> None:
        """Add a line and flush it; a line that a power cut or a full disk cut short goes first."""
        at = datetime.now(UTC).isoformat(timespec="seconds")
        values = {"at": at, "status": status, "spending": spending.to_dict()}
        line = (json.dumps(values | {"crc32": _crc(values)}) + "\n").encode()
        path = self._folder / account / _ENTRIES
        is_new = not path.exists()
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            content = os.pread(descriptor, os.fstat(descriptor).st_size, 0)
            end = content.rfind(b"\n") + 1
            os.ftruncate(descriptor, end)
            if os.pwrite(descriptor, line, end) != len(line):
                os.ftruncate(descriptor, end)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if is_new:
            sync_folder(path.parent)


def total_of(accounts: Sequence[Account], planned: Spending | None = None) -> Total:
    """What all entries of accounts take together, one of them replaced by what it plans now.

    Raises:
        UserError: an account is damaged.
    """
    for account in accounts:
        if account.damage:
            raise UserError(
                f"{account.damage[0]}: damaged, so what these images have spent is not known; get "
                "the file back from a backup, or move the account's folder away: what it held is "
                "then counted nowhere"
            )
    entered = [entry.spending for account in accounts for entry in account.entries.values()]
    return total([*entered, *([planned] if planned else [])])


def _check_budget(accounts: Sequence[Account], planned: Spending, budget: float) -> None:
    named = f"privacy.max_total_epsilon={budget:g}"
    ahead = total_of(accounts, planned)
    if without := ahead.without_epsilon:
        raise UserError(
            f"{named}: no ε holds for these images: {without[0].run} has none "
            f"({without[0].reason}); python -m dpmi.account shows all of their runs"
        )
    if planned.value_epsilon is not None and not planned.hides_images:
        unit, would_be = "channel value", ahead.value_epsilon
    else:
        unit, would_be = ahead.unit, ahead.unit_epsilon
        if planned.unit == "patient" and unit != "patient":
            raise UserError(
                f"{named}: other runs on these images protect images alone, so the total of a "
                "patient is not known; allowed is null, or privacy.unit=image, whose "
                "total is an image's"
            )
    if would_be <= budget:
        return
    noised = ", for noised images of local DP were released" if ahead.releases else ""
    spent = f"ε = {printed_epsilon(would_be)} per {unit}{'' if unit == 'channel value' else noised}"
    raise UserError(
        f"{named}: with this run, all runs on these images together would spend {spent}; allow "
        "more, raise beta, or run less; python -m dpmi.account shows what was spent"
    )


def _read(home: Path) -> Account:
    damage: list[str] = []
    content = (home / _IMAGES).read_bytes()
    seal, digests = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
    images: frozenset[bytes] | None = None
    if hashlib.sha256(digests).digest() == seal:
        cut = range(0, len(digests), _DIGEST_BYTES)
        images = frozenset(digests[at : at + _DIGEST_BYTES] for at in cut)
    else:
        damage.append(str(home / _IMAGES))
    entries: dict[str, Entry] = {}
    path = home / _ENTRIES
    text = path.read_bytes() if path.is_file() else b""
    # What follows the last line break was cut short: nobody relied on its being on the disk.
    for number, line in enumerate(text.split(b"\n")[:-1], 1):
        if (entry := _parsed(line)) is None:
            damage.append(f"{path}, line {number}")
            continue
        entries.pop(entry.spending.entry, None)  # in the order of the last line of each
        entries[entry.spending.entry] = entry
    return Account(home.name, images, entries, tuple(damage))


def _parsed(line: bytes) -> Entry | None:
    try:
        values: dict[str, Any] = json.loads(line)
        if values.pop("crc32") != _crc(values):
            return None
        return Entry(Spending.from_dict(values["spending"]), values["status"], values["at"])
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def _crc(values: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(values, sort_keys=True).encode())


def _as_bytes(images: Iterable[str]) -> frozenset[bytes]:
    return frozenset(bytes.fromhex(digest) for digest in images)
