"""What is in each image file: SHA-256 digests, remembered between runs."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import tempfile
import time
from pathlib import Path
from typing import Protocol, runtime_checkable

from dpmi.data.catalogue import Source
from dpmi.data.parallel import in_threads

log = logging.getLogger(__name__)

# A file changed this shortly before it was read may change again within the same time stamp.
_SETTLED_NS = 2_000_000_000

_Entry = list[int | str]  # size in bytes, time of last change in ns, digest


@runtime_checkable
class StampedSource(Protocol):
    """A source that can tell, without reading an image, whether it has changed."""

    @property
    def place(self) -> str:
        """Where the images lie, for instance an absolute path."""
        ...

    def stamp(self, path: str) -> tuple[int, int]:
        """Size in bytes and time of the last change in nanoseconds."""
        ...


def content_digests(source: Source, paths: tuple[str, ...], cache_dir: Path) -> list[str]:
    """Return the SHA-256 hex digest of each image's content, in the order of ``paths``.

    Files whose path, size and time of last change are known from an earlier run are not read
    again. What is remembered is verified: if it is damaged, this is logged, and all files are read.
    """
    if not isinstance(source, StampedSource):
        return list(in_threads(lambda path: _digest(source.fetch(path)), paths))

    stamped = source
    memo_file = cache_dir / "digests" / f"{_digest(source.place.encode())[:16]}.memo"
    memo = _read_memo(memo_file)

    def entry(path: str) -> _Entry:
        size, changed_ns = stamped.stamp(path)
        known = memo.get(path)
        if known is not None and known[:2] == [size, changed_ns]:
            return known
        settled = changed_ns < time.time_ns() - _SETTLED_NS
        return [size, changed_ns if settled else 0, _digest(source.fetch(path))]

    entries = dict(zip(paths, in_threads(entry, paths), strict=True))
    if any(memo.get(path) != entry for path, entry in entries.items()):
        _write_memo(memo_file, memo | entries)
    return [str(entries[path][2]) for path in paths]


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _read_memo(file: Path) -> dict[str, _Entry]:
    """A line with the digest of the rest, and the rest: entries by path, as JSON."""
    try:
        digest, _, content = file.read_bytes().partition(b"\n")
    except OSError:
        return {}
    if digest != _digest(content).encode():
        log.warning("%s: damaged; the images' digests are computed again.", file)
        return {}
    memo: dict[str, _Entry] = json.loads(content)
    return memo


def _write_memo(file: Path, memo: dict[str, _Entry]) -> None:
    # The memo only saves time. On a disk that takes no writing the run goes on, and fails only
    # where it must write: at the images.
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=file.parent, suffix=".partial")
        try:
            with os.fdopen(descriptor, "wb") as stream:
                content = json.dumps(memo).encode()
                stream.write(_digest(content).encode() + b"\n" + content)
            os.replace(name, file)
        except BaseException:
            os.unlink(name)
            raise
