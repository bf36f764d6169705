"""What a trial of a file is: how it is made, how it is read, and its row in docs/tried-files.md."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dpmi.base.errors import UserError
from dpmi.config.composing import composed
from dpmi.data.prepare import PreparedData, prepare

Make = Callable[[Path], None]
Fact = Callable[[PreparedData], str]

SIDE = 64  # pixels


def shades(data: PreparedData) -> str:
    """How many levels of gray all images have together, or that they are in colour."""
    if data.channels == 3:
        return "in colour"
    levels = {int(v) for split in data.splits.values() for v in np.unique(split.pixels)}
    return f"{len(levels)} levels of gray"


def count(data: PreparedData) -> str:
    """How many images there are, of each class or finding, and of how many patients if known."""
    splits = data.splits.values()
    labels = np.concatenate([split.labels for split in splits])
    shown = labels == 1 if data.multilabel else labels[:, None] == np.arange(len(data.classes))
    each = [f"{n} {name}" for n, name in zip(shown.sum(0), data.classes, strict=True)]
    of = ", ".join(each) if len(each) < 10 else f"{len(each)} classes"
    patients = {patient for split in splits for patient in split.patients if patient}
    return f"{len(labels)} images: {of}" + (f"; {len(patients)} patients" if patients else "")


@dataclass(frozen=True)
class Trial:
    """One file, folder or table, and whether it can be used.

    Attributes:
        what: the row's first column.
        make: writes the files below a folder.
        reads: whether they are read; else they are refused.
        words: of the command, beside data.root; csv where a table is tried.
        fact: what is found of images that are read.
    """

    what: str
    make: Make
    reads: bool = True
    words: tuple[str, ...] = ()
    fact: Fact = shades

    @property
    def title(self) -> str:
        """The first column of the row, with the keys that were given."""
        keys = [word for word in self.words if word != "data=csv"]
        return " ".join([self.what, *(f"`{key}`" for key in keys)])

    def command(self, root: Path) -> list[str]:
        """KEY=VALUE for ``dpmi.train``."""
        chosen = () if "data=csv" in self.words else ("data=folder",)
        return [*chosen, *self.words, f"data.root={root}", f"data.image_size={SIDE}"]

    def outcome(self, folder: Path) -> tuple[bool, str]:
        """Whether the files were read, and what is found or the message; their place is PATH."""
        root = folder / "PATH"
        root.mkdir()
        self.make(root)
        try:
            config = composed(self.command(root))
            data = prepare(config.data, folder / "cache")
        except UserError as error:
            return False, self._without_place(str(error), root)
        notes = [self._without_place(note, root) for note in data.notes]
        return True, "<br>".join([self.fact(data), *notes])

    def _without_place(self, text: str, root: Path) -> str:
        return text.replace(str(root), "PATH")

    def row(self, read: bool, found: str) -> str:
        """Of the table, with an outcome."""
        kind = "read" if read else "refused"
        return f"| {_cell(self.title)} | {kind} | {_cell(found)} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def lines(groups: dict[str, list[Trial]]) -> Iterator[str]:
    """The tables of a page, line by line."""
    logging.disable(logging.WARNING)  # what is logged is in the rows
    for title, trials in groups.items():
        yield from ("", f"## {title}", "")
        yield from ("| tried | | what is found, or the message |", "|---|---|---|")
        for trial in trials:
            with tempfile.TemporaryDirectory() as folder:
                yield trial.row(*trial.outcome(Path(folder)))
    logging.disable(logging.NOTSET)
