"""A folder whose run is complete, or gives way to a new one: what is destroyed, what is kept."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from dpmi.config.schema import Config
from dpmi.privacy.account import Accounts
from dpmi.run.durability.checkpoint import FOLDER
from dpmi.run.records.entry_file import (
    ENTRY_FILE,
    JOURNAL_FILE,
    STATE_FILE,
    EntryFile,
    may_have_spent,
)
from dpmi.run.records.record import SUPERSEDED
from dpmi.run.screen.status import STATUS_FILE

LOCK_FILE = ".lock"
SEED_FILE = ".noise_seed"
# When a job's folder is cleared for a new run of the same config.
_STAY = {"train.log", "config.yaml", STATUS_FILE, SUPERSEDED}


def clear(folder: Path) -> None:
    """Remove a completed run's key, checkpoints and what else only a run needs, the key first."""
    _destroy_key_and_checkpoints(folder)
    for name in (JOURNAL_FILE, ENTRY_FILE):
        (folder / name).unlink(missing_ok=True)


def supersede(folder: Path, cache_dir: Path) -> None:
    """Move what a run left in a job's folder out of the way of a new one.

    What it may have released is entered in the account; its key and checkpoints are destroyed,
    which nobody can need and an attacker could: weights before and after each step, and the noise.

    Raises:
        OSError: the account cannot be written; nothing is moved.
    """
    if not _left(folder):
        return
    if took := may_have_spent(folder):
        EntryFile(status="superseded", spending=took).write(folder)
        Accounts(cache_dir).settle(took, "superseded")
    _destroy_key_and_checkpoints(folder)
    shelf = folder / SUPERSEDED
    place = shelf / str(1 + sum(1 for _ in shelf.iterdir()) if shelf.is_dir() else 1)
    place.mkdir(parents=True)
    for path in sorted(_left(folder), key=lambda path: path.name == ENTRY_FILE):  # that one last
        path.rename(place / path.name)


def _left(folder: Path) -> list[Path]:
    return [
        path
        for path in folder.iterdir()
        if path.name not in _STAY and not path.name.startswith(LOCK_FILE)
    ]


def _destroy_key_and_checkpoints(folder: Path) -> None:
    """The key first, overwritten: where a disk keeps what is removed, it is not there."""
    for path in (folder / STATE_FILE, (folder / STATE_FILE).with_suffix(".part")):
        if path.is_file():
            with path.open("r+b") as file:
                file.write(bytes(path.stat().st_size))
                file.flush()
                os.fsync(file.fileno())
            path.unlink()
    shutil.rmtree(folder / FOLDER, ignore_errors=True)


def other_noise_seed(folder: Path, config: Config) -> bool:
    """Whether what is in a job's folder has the noise of another ``noise_seed``.

    Nothing else distinguishes them: no digest and no name holds the seed.
    """
    path = folder / SEED_FILE
    return path.is_file() and path.read_text() != str(config.noise_seed)


def keep_noise_seed(folder: Path, config: Config) -> None:
    """Write down whose noise a folder has, readable by its owner alone; nothing without a seed."""
    if config.noise_seed is None:
        return
    path = folder / SEED_FILE
    path.touch(mode=0o600)
    path.write_text(str(config.noise_seed))
