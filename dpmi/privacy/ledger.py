"""What was executed, as opposed to what was planned. ε is computed from this and nothing else."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import dp_accounting

from dpmi.privacy.plan import step_event


@dataclass(frozen=True)
class LedgerEntry:
    """``steps`` noised releases in a row with the same noise and the same sampling."""

    noise_multiplier: float
    sample_rate: float
    steps: int


class Ledger:
    """An append-only account of the noised gradients that left the mechanism."""

    def __init__(self) -> None:
        self._entries: list[LedgerEntry] = []

    @property
    def entries(self) -> tuple[LedgerEntry, ...]:
        """What ran, in order, equal steps in a row merged."""
        return tuple(self._entries)

    @property
    def steps(self) -> int:
        """Noised releases so far."""
        return sum(entry.steps for entry in self._entries)

    def record(self, noise_multiplier: float, sample_rate: float) -> None:
        """Add one release. Called before the noised gradient is handed out."""
        steps = 1
        if self._entries:
            last = self._entries[-1]
            if (last.noise_multiplier, last.sample_rate) == (noise_multiplier, sample_rate):
                self._entries.pop()
                steps += last.steps
        self._entries.append(LedgerEntry(noise_multiplier, sample_rate, steps))

    def event(self) -> dp_accounting.DpEvent:
        """Describe what ran, in dp-accounting's terms."""
        return dp_accounting.ComposedDpEvent(
            [step_event(e.noise_multiplier, e.sample_rate, e.steps) for e in self._entries]
        )

    def to_dict(self) -> list[dict[str, float | int]]:
        """Plain values for the record."""
        return [asdict(entry) for entry in self._entries]
