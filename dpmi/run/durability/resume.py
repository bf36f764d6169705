"""Where a run begins: at its start, or where a process before this one was killed."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

from rich.console import Console

from dpmi.base.errors import UserError
from dpmi.config.schema import Config
from dpmi.privacy.journal import Journal, Reservation, read_journal, reserved_entries
from dpmi.privacy.randomness import NoiseSource
from dpmi.privacy.spending import LedgerEntry
from dpmi.run.durability.checkpoint import FOLDER, newest_checkpoint
from dpmi.run.durability.job_folder import clear, supersede
from dpmi.run.durability.state import RunState, noise_key, place_of, read_state
from dpmi.run.records.entry_file import JOURNAL_FILE


class Resumption:
    """Where a run begins: at its start, or where a process before this one was killed.

    Args:
        folder: the job's folder, locked by this process.
        config: of the run.
        data: fingerprint of the data set as it is now.
        device: what will train: "cpu", or the name of a GPU.
        weights: digest of the weights that training starts from; "drawn" where there are none.
        console: shows that a run resumes, and what was damaged.
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
        place, noise_seed = place_of(device, processes, weights), config.noise_seed
        cache_dir = Path(config.cache_dir)
        state = read_state(folder)
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
                noise_key=noise_key(config, data, place).hex(),
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
