"""What a run keeps in its folder until it is complete, so that it can be resumed."""

from __future__ import annotations

import hashlib
import os
import platform
import secrets
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from rich.console import Console

from dpmi.base.errors import UserError
from dpmi.config.identity import config_digest
from dpmi.config.schema import Config
from dpmi.privacy.account import Accounts
from dpmi.privacy.journal import (
    Journal,
    Reservation,
    read_journal,
    reserved_entries,
    sync_folder,
)
from dpmi.privacy.randomness import NoiseSource, new_key
from dpmi.privacy.spending import LedgerEntry
from dpmi.run.durability.checkpoint import FOLDER, newest_checkpoint
from dpmi.run.records.code import code_digest
from dpmi.run.records.entry_file import (
    ENTRY_FILE,
    JOURNAL_FILE,
    STATE_FILE,
    EntryFile,
    may_have_spent,
)
from dpmi.run.records.kinds import Secret
from dpmi.run.records.record import SUPERSEDED
from dpmi.run.screen.status import STATUS_FILE

LOCK_FILE = ".lock"
SEED_FILE = ".noise_seed"
# When a job's folder is cleared for a new run of the same config.
_STAY = {"train.log", "config.yaml", STATUS_FILE, SUPERSEDED}


class RunState(Secret):
    """Written before training, removed when the run is complete; readable by its owner alone.

    Attributes:
        noise_key: of the noise source, in hexadecimal: a secret.
        data: fingerprint of the data set.
        place: what the arithmetic depends on to the last bit.
        attempt: how often the run was resumed where its steps could not be repeated to the bit.
        reserved: releases that attempts before this one may have made.
        restarts: how often the run was resumed at all.
        release: id of the noised images that local DP trains on; None before, and without them.
        tracker_id: of the run where its metrics are tracked.
        picked: what the run picked where its config leaves it open; None before.
    """

    noise_key: str
    data: str
    place: dict[str, str]
    attempt: int = 0
    reserved: int = 0
    restarts: int = 0
    release: str | None = None
    tracker_id: str
    picked: dict[str, Any] | None = None

    def write(self, folder: Path) -> None:
        """Write whole or not at all, and flush: the key must outlive what is drawn with it."""
        path = folder / STATE_FILE
        part = path.with_suffix(".part")
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(self.model_dump_json(indent=1))
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
        sync_folder(folder)


class Resumption:
    """Where a run begins: at its start, or where a process before this one was killed.

    Args:
        folder: the job's folder, locked by this process.
        config: of the run.
        data: fingerprint of the data set as it is now.
        device: what will train: "cpu", or the name of a GPU.
        weights: digest of the weights that training starts from; "drawn" where there are none.
        console: where it is said that a run resumes, and what was damaged.
        processes: how many will train, one a device.

    Attributes:
        state: on disk.
        noise: the source of the run's randomness.
        journal: where its releases are written ahead.
        checkpoint: to start from; None for the first step.
        step: steps that the checkpoint has.
        reservations: of releases, that processes before this one made.
        released: releases that processes before this one may have made.
        piece: images in one pass, where earlier releases were made in such pieces; else None.

    Raises:
        UserError: the state in the folder cannot be read.
    """

    def __init__(
        self,
        folder: Path,
        config: Config,
        data: str,
        device: str,
        weights: str,
        console: Console,
        processes: int = 1,
    ) -> None:
        place, noise_seed = _place(device, processes, weights), config.noise_seed
        cache_dir = Path(config.cache_dir)
        state = _read(folder)
        if state is not None and state.data != data:
            console.print(f"the data have changed since {folder} was begun: starting over")
            supersede(folder, cache_dir)
            state = None
        self.checkpoint: Path | None = None
        self.step = 0
        self.piece: int | None = None
        self.released = 0
        self.reservations: list[Reservation] = []
        if state is None:
            if (folder / JOURNAL_FILE).exists() or (folder / FOLDER).exists():
                console.print(f"{folder}: what is left of a run has lost its key: starting over")
                supersede(folder, cache_dir)
            state = RunState(
                noise_key=_noise_key(config, data, place).hex(),
                data=data,
                place=place,
                tracker_id=secrets.token_hex(4),
            )
        else:
            if found := newest_checkpoint(folder / FOLDER, console):
                self.checkpoint, self.step = found
            self.reservations = reservations = read_journal(folder / JOURNAL_FILE)
            self.released = max((r.last for r in reservations), default=0)
            self.piece = reservations[-1].physical_batch_size if reservations else None
            state = _next_attempt(state, place, reservations)
            console.print(f"resumed after {self.step} steps")
        state.write(folder)
        self.state, self._folder = state, folder
        self.noise = NoiseSource(noise_seed, bytes.fromhex(state.noise_key), state.attempt)
        self.journal = Journal(folder / JOURNAL_FILE)

    def keep_release(self, release: str | None) -> None:
        """Remember what the run trains on, before it does.

        Args:
            release: id of the noised images, or of what else runs share; None where noise can be
                repeated, so that nothing is shared.

        Raises:
            UserError: an attempt before this one trained on others.
        """
        if self.state.release not in (None, release):
            raise UserError(
                f"{self._folder}: the noised images that this run began with are gone from "
                "cache_dir, and going on with others would spend their ε as well; bring them back, "
                "or give rerun=true to begin anew with those that are there"
            )
        self.state = self.state.model_copy(update={"release": release})
        self.state.write(self._folder)

    def keep_picked(self, picked: dict[str, Any]) -> None:
        """Remember what was picked, before anything is released: who resumes the run picks it."""
        self.state = self.state.model_copy(update={"picked": picked})
        self.state.write(self._folder)

    @property
    def lost(self) -> list[LedgerEntry]:
        """Releases that earlier attempts may have made and that are not repeated to the bit."""
        return reserved_entries(self.reservations, 0, self.state.reserved)

    def complete(self) -> None:
        """Remove what only a run that is not complete needs; the record has the rest."""
        clear(self._folder)


def _noise_key(config: Config, data: str, place: dict[str, str]) -> bytes:
    """256 bits: of the operating system, or of ``noise_seed`` and all of the run.

    Two runs with the same noise on the same images would give them away: whoever has both results
    solves two equations for two unknowns. So a ``noise_seed`` repeats the noise of the same run
    alone, and two cells of a sweep with it have nothing in common.
    """
    if config.noise_seed is None:
        return new_key()
    told = f"{config.noise_seed} {config_digest(config)} {data} {place['code']} {place['weights']}"
    return hashlib.sha256(told.encode()).digest()


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


def _next_attempt(
    state: RunState, place: dict[str, str], reservations: list[Reservation]
) -> RunState:
    """Decide whether the steps that were lost can be repeated to the bit.

    On a CPU, in the same place, they can: the same batches and noise give the same releases, and
    what was released before is released again. Elsewhere a rounding could differ, and two releases
    that differ in it with the same noise would reveal the difference. So the noise is drawn anew,
    and all that may have been released before is counted beside it.
    """
    state = state.model_copy(update={"restarts": state.restarts + 1})
    one_size = len({r.physical_batch_size for r in reservations}) <= 1  # memory never ran out
    if place == state.place and place["device"] == "cpu" and one_size:
        return state
    reserved = max((r.last for r in reservations), default=0)
    return state.model_copy(
        update={
            "attempt": state.attempt + 1,
            "reserved": max(reserved, state.reserved),
            "place": place,
        }
    )


def _place(device: str, processes: int, weights: str) -> dict[str, str]:
    return {
        "device": device,
        "processes": str(processes),
        "weights": weights,
        "code": code_digest(),
        "torch": torch.__version__,
        "numpy": version("numpy"),
        "opacus": version("opacus"),
        "threads": str(torch.get_num_threads()),
        "processor": f"{_processor()} {torch.backends.cpu.get_cpu_capability()}",
    }


def _processor() -> str:
    """Its model: kernels are chosen by it, and round otherwise on another."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def _read(folder: Path) -> RunState | None:
    path = folder / STATE_FILE
    if not path.is_file():
        return None
    try:
        return RunState.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValidationError, ValueError) as error:
        raise UserError(
            f"{path}: damaged, so the run cannot be resumed and what it spent is not known; "
            "give rerun=true to start over"
        ) from error
