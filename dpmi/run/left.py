"""What a run left in its folder, for those who use it later."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from torch import Tensor

from dpmi.base.errors import UserError
from dpmi.base.places import cache_folder
from dpmi.models.weights import read_weights
from dpmi.run.first_weights import WEIGHTS_FILE, Provenance
from dpmi.run.records.public import PUBLIC_FILE, PublicRecord
from dpmi.run.records.reading import read_public_record, read_record
from dpmi.run.records.record import RECORD_FILE, RunRecord


@dataclass(frozen=True)
class Left:
    """A completed run: what may leave the house, and the private record where it is.

    Attributes:
        folder: of the run.
        record: what may be published.
        state: the weights.
        provenance: of the weights.
    """

    folder: Path
    record: PublicRecord
    state: dict[str, Tensor]
    provenance: Provenance

    @cached_property
    def private(self) -> RunRecord | None:
        """The private record; None where it was left in the house."""
        path = self.folder / RECORD_FILE
        return read_record(path) if path.is_file() else None

    @property
    def config(self) -> dict[str, Any]:
        """All keys where the private record is, else those that may leave."""
        return self.private.config if self.private else self.record.config

    @property
    def cache_dir(self) -> Path:
        """The run's own, where its private record is; else the default."""
        return cache_folder(self.config.get("cache_dir"))


def public_record(run: Path) -> PublicRecord:
    """The public record in a run's folder.

    Raises:
        UserError: there is none, or of another version.
    """
    if not run.is_dir():
        raise UserError(f"{run}: no such folder; give that of a run, with {PUBLIC_FILE} in it")
    if not (run / PUBLIC_FILE).is_file():
        below = sorted(path.parent for path in run.rglob(PUBLIC_FILE))
        hint = f"; there is one in {below[0]}, and {len(below) - 1} more" if below else ""
        raise UserError(f"{run}: no {PUBLIC_FILE}, so it is no run's folder{hint}")
    return read_public_record(run / PUBLIC_FILE)


def read_kept(weights: Path) -> tuple[dict[str, Tensor], Provenance]:
    """Weights that a run kept, and what they tell of their own training.

    Raises:
        UserError: no file, damaged, of another version, or no run's.
    """
    if not weights.is_file():
        raise UserError(f"{weights}: no such file; a run leaves its weights as {WEIGHTS_FILE}")
    state, metadata = read_weights(weights)
    try:
        return state, Provenance.model_validate_json(metadata or "{}")
    except ValidationError as error:
        raise UserError(
            f"{weights}: does not tell what it was trained with, as {WEIGHTS_FILE} of a run of "
            "this version does; train it again"
        ) from error


def read_left(run: Path) -> Left:
    """Read what a completed run left, from its public record and its weights.

    Raises:
        UserError: no run, one that did not complete, no weights, or weights of another run.
    """
    record, weights = public_record(run), run / WEIGHTS_FILE
    if record.status != "completed" or record.guarantee is None:
        raise UserError(
            f"{run}: the run {record.status}, so it has no trained model; the same command goes on "
            "with it (python -m dpmi.train ...)"
        )
    state, provenance = read_kept(weights)
    if provenance.guarantee != record.guarantee.to_dict():
        raise UserError(
            f"{weights}: states another guarantee than {PUBLIC_FILE} beside it; put the two files "
            "of one run together"
        )
    if not provenance.classes:
        raise UserError(
            f"{weights}: of an older version of dpmi, which did not name its classes; run it again "
            "with rerun=true"
        )
    return Left(run, record, state, provenance)
