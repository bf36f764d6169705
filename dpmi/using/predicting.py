"""What ``python -m dpmi.predict`` does: from names of images to a table of decisions."""

from __future__ import annotations

import contextlib
import csv
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

from rich.console import Console

from dpmi.base.errors import UserError
from dpmi.data.files import class_files
from dpmi.data.tables import read_table, refuse_workbook
from dpmi.run.left import read_left
from dpmi.using.loading import backbone_of, built, device_of
from dpmi.using.progress import progress


def predict(run: Path, words: Sequence[str], output: Path | None, backbone: Path | None) -> int:
    """Write a row for each image: path, a probability for each class (or finding), decision, error.

    Args:
        run: the folder of a run.
        words: images, folders of images, and CSV files with a column path.
        output: a file, written whole or not at all; None: standard output, row by row.
        backbone: of a head, the file of the network that it reads.

    Returns:
        How many images could not be read.

    Raises:
        UserError: the run cannot be used, or a word names no images, or the file cannot be written.
    """
    console = Console(stderr=True)
    paths = named_images(words)
    left = read_left(run)
    model = built(left, backbone_of(left, backbone)).to(device_of(left))
    console.print(f"{model.run}: {model.guarantee}", markup=False, soft_wrap=True)
    unreadable = 0
    with _table(output) as stream, progress(console, "predicting", len(paths)) as advance:
        table = csv.writer(stream)
        names = [f"probability_{name}" for name in model.classes]
        table.writerow(["path", *names, "decision", "error"])
        for done in model.predictions(paths):
            values = done.probabilities.values() if done.probabilities else ()
            cells = [f"{value:.7g}" for value in values] or [""] * len(names)
            table.writerow([done.path, *cells, done.decision or "", done.error or ""])
            if done.error:
                unreadable += 1
                console.print(f"{done.path}: {done.error}", markup=False, soft_wrap=True)
            advance(1)
    if unreadable:
        console.print(f"{unreadable} of {len(paths)} images cannot be read", style="red")
    return unreadable


def named_images(words: Sequence[str]) -> list[str]:
    """Paths of the images that words name, in their order; a folder's sorted, at any depth.

    Raises:
        UserError: a word names nothing, no images, or a workbook in place of a CSV file.
    """
    found: list[str] = []
    for word in words:
        path = Path(word).expanduser()
        if path.is_dir():
            files = [str(path / name) for name in class_files(path)[0]]
            if not files:
                raise UserError(f"{word}: no images in this folder, nor in those below it")
            found += files
        elif not path.is_file():
            raise UserError(f"{word}: no such file or folder; give images, folders, or CSV files")
        elif path.suffix.lower() == ".csv":
            rows = read_table(path, ["path"]).rows
            # As elsewhere on a disk, or beside the table.
            found += [str(path.parent / row.values["path"].replace("\\", "/")) for row in rows]
        else:
            refuse_workbook(path)
            found.append(str(path))
    return found


@contextlib.contextmanager
def _table(output: Path | None) -> Iterator[TextIO]:
    """Where rows go."""
    if output is None:
        yield sys.stdout
        sys.stdout.flush()
        return
    part = output.with_name(f"{output.name}.part")
    try:
        with part.open("w", encoding="utf-8", newline="") as stream:
            yield stream
        os.replace(part, output)
    except OSError as error:
        raise UserError(f"{output}: cannot be written ({error.strerror or error})") from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
