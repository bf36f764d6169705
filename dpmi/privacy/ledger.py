"""What was executed, as opposed to what was planned. ε is computed from this and nothing else."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import dp_accounting

from dpmi.privacy.plan import step_event
from dpmi.privacy.spending import LedgerEntry


class Ledger:
    """An append-only account of the noised releases that left the mechanism.

    Attributes:
        lost_entries: releases that are counted and not part of the training that led to the
            weights: those of an attempt that was killed, which could not be repeated to the bit.
    """

    def __init__(self) -> None:
        self.lost_entries: list[LedgerEntry] = []
        self._entries: list[LedgerEntry] = []

    @property
    def entries(self) -> tuple[LedgerEntry, ...]:
        """What ran, in order, equal steps in a row merged."""
        return tuple(self._entries)

    @property
    def steps(self) -> int:
        """Noised releases so far."""
        return sum(entry.steps for entry in self._entries)

    @property
    def lost(self) -> int:
        """Releases that are lost, so far."""
        return sum(entry.steps for entry in self.lost_entries)

    def record(self, noise_multiplier: float, sample_rate: float, steps: int = 1) -> None:
        """Add releases. Called before a noised sum is made, and thus handed out."""
        if self._entries:
            last = self._entries[-1]
            if (last.noise_multiplier, last.sample_rate) == (noise_multiplier, sample_rate):
                self._entries.pop()
                steps += last.steps
        self._entries.append(LedgerEntry(noise_multiplier, sample_rate, steps))

    def record_lost(self, entry: LedgerEntry) -> None:
        """Add releases that may have been executed, by an attempt of which nothing is left."""
        self.record(entry.noise_multiplier, entry.sample_rate, entry.steps)
        self.lost_entries.append(entry)

    def state_dict(self) -> dict[str, Any]:
        """Plain values to restore it from."""
        return {"entries": self.to_dict(), "lost": [asdict(entry) for entry in self.lost_entries]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what an earlier process executed; only into an empty ledger.

        Raises:
            ValueError: something is on it already.
        """
        if self._entries:
            raise ValueError("a ledger in use takes no other's entries")
        self._entries = [LedgerEntry(**entry) for entry in state["entries"]]
        self.lost_entries = [LedgerEntry(**entry) for entry in state["lost"]]

    def event(self) -> dp_accounting.DpEvent:
        """Describe what ran, in dp-accounting's terms."""
        return dp_accounting.ComposedDpEvent(
            [step_event(e.noise_multiplier, e.sample_rate, e.steps) for e in self._entries]
        )

    def to_dict(self) -> list[dict[str, float | int]]:
        """Plain values for the record."""
        return [asdict(entry) for entry in self._entries]
