"""Images that a table lists: from what it says to a path below the root."""

from __future__ import annotations

import os
import posixpath
from pathlib import Path, PurePosixPath, PureWindowsPath

from dpmi.base.errors import UserError
from dpmi.data.files import image_files


class ListedPaths:
    """Turns a table's paths into those of a catalogue: relative to the root, and below it.

    Where a path has no extension it stands for the one image of that name.

    Args:
        root: folder of the images.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._homes = {os.path.abspath(root), os.path.realpath(root)}
        self._by_stem: dict[str, dict[str, list[str]]] = {}  # of folders that were looked into
        self._completed = self._absolute = 0

    def resolve(self, given: str, where: str) -> str:
        """Return the path, posix, normalised, of an image that is there.

        Symbolic links are not followed: ``dpmi.data.files.first_outside`` looks at all of them.

        Args:
            given: as a table has it; back-slashes separate, too.
            where: the table and the line, for messages.

        Raises:
            UserError: it leads out of the root, there is no such image, or there are several.
        """
        path = posixpath.normpath(given.replace("\\", "/"))
        if posixpath.isabs(path):
            path = self._from_root(path, given, where)
        drive = PureWindowsPath(path).drive
        if "\0" in path or drive or path.split("/")[0] == "..":
            raise leads_out(given, self._root, where)
        if os.path.isfile(os.path.join(self._root, path)):
            return path
        matches = self._of_stem(path)
        if len(matches) > 1:
            raise UserError(
                f"{where}: path {given!r} stands for several images: {', '.join(matches)}. Write "
                "the extension of the one that is meant."
            )
        if not matches:
            raise UserError(
                f"{where}: there is no image {self._root / path}. Paths are relative to "
                "data.root: put the image there, correct the path, or remove the line."
            )
        self._completed += 1
        return matches[0]

    def notes(self, table: Path) -> tuple[str, ...]:
        """What was done with paths that are not as documented, a line each."""
        notes = []
        if self._completed:
            notes.append(
                f"{table}: paths without an extension ({self._completed}) were each read as the "
                "one image of that name."
            )
        if self._absolute:
            notes.append(
                f"{table}: absolute paths below data.root ({self._absolute}) were read from there."
            )
        return tuple(notes)

    def _from_root(self, path: str, given: str, where: str) -> str:
        for home in self._homes:
            if path.startswith(os.path.join(home, "")):
                self._absolute += 1
                return posixpath.relpath(path, home)
        raise UserError(
            f"{where}: path {given!r} is absolute and leads out of data.root={self._root}. Set "
            "data.root to a folder above all images, or write paths relative to it."
        )

    def _of_stem(self, path: str) -> list[str]:
        """Paths of the images that have this name with an extension."""
        folder, name = posixpath.split(path)
        if folder not in self._by_stem:
            stems = self._by_stem[folder] = {}
            for file in image_files(self._root / folder):
                stems.setdefault(PurePosixPath(file).stem, []).append(posixpath.join(folder, file))
        return self._by_stem[folder].get(name, [])


def leads_out(given: str, root: Path, where: str) -> UserError:
    """Say that a table's path is not below the root."""
    return UserError(
        f"{where}: path {given!r} leads out of data.root={root}, as written or by a symbolic "
        "link. Paths are relative to data.root: correct it, copy the image to where the link is, "
        "or set data.root to a folder above all images."
    )
