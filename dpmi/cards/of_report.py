"""The cards of a report: one of each run that completed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import track

from dpmi.base.errors import UserError
from dpmi.cards.making import Wishes, make_card
from dpmi.cards.schema import FILES
from dpmi.run.records.public import PUBLIC_FILE
from dpmi.run.records.reading import files_below, read_public_record

FOLDER = "cards"


def cards_of(folders: Sequence[Path], out: Path, console: Console) -> dict[str, str]:
    """Write the cards of all runs below the folders into ``out/cards/``, a folder each.

    A run that completed and of which no card can be made is named on the console.

    Returns:
        Where the page of each card is, from ``out``, by ``PublicRecord.cell``.

    Raises:
        UserError: a public record is unreadable, or of another version.
        OSError: a card cannot be written.
    """
    files = [path for folder in folders for path in files_below(folder, PUBLIC_FILE)]
    records = {path.parent: read_public_record(path) for path in files}
    completed = {run: its for run, its in records.items() if its.status == "completed" and its.cell}
    pages: dict[str, str] = {}
    for run, its in track(
        completed.items(), "cards", console=console, disable=not console.is_terminal
    ):
        assert its.cell is not None
        if its.cell in pages:  # the same run, in another of the folders
            continue
        name = f"{its.run}-{its.cell[:6]}"
        try:
            make_card(run, out / FOLDER / name, Wishes())
        except UserError as error:
            console.print(f"no card: {error}", markup=False, soft_wrap=True)
            continue
        pages[its.cell] = f"{FOLDER}/{name}/{FILES['html']}"
    return pages
