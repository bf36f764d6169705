from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from dpmi.data.digests import content_digests
from dpmi.data.files import FileSource

OLD = 1_000_000_000  # a time of last change, in seconds, long past


class Counting(FileSource):
    """Files, and how many of them were read."""

    reads = 0

    def fetch(self, path: str) -> bytes:
        self.reads += 1
        return super().fetch(path)


def write(root: Path, contents: dict[str, bytes], changed: int = OLD) -> tuple[str, ...]:
    for name, content in contents.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
        os.utime(root / name, (changed, changed))
    return tuple(contents)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_digests_are_those_of_the_contents_in_order(tmp_path: Path) -> None:
    paths = write(tmp_path / "data", {f"{n}.png": bytes([n]) for n in range(50)})
    digests = content_digests(FileSource(tmp_path / "data", 1), paths, tmp_path / "cache")
    assert digests == [sha256(bytes([n])) for n in range(50)]


def test_files_that_did_not_change_are_not_read_again(tmp_path: Path) -> None:
    root = tmp_path / "data"
    paths = write(root, {"a": b"1", "b": b"2", "c": b"3"})
    for reads in (3, 0):
        source = Counting(root, 1)
        content_digests(source, paths, tmp_path / "cache")
        assert source.reads == reads
    write(root, {"b": b"4"}, changed=OLD + 1)
    source = Counting(root, 1)
    assert content_digests(source, paths, tmp_path / "cache")[1] == sha256(b"4")
    assert source.reads == 1


def test_a_file_that_has_just_changed_is_read_again_whatever_its_time(tmp_path: Path) -> None:
    root = tmp_path / "data"
    (root / "sub").mkdir(parents=True)
    (root / "sub" / "a").write_bytes(b"1")
    stamp = (root / "sub" / "a").stat().st_mtime_ns
    source = FileSource(root, 1)
    assert content_digests(source, ("sub/a",), tmp_path / "cache") == [sha256(b"1")]
    (root / "sub" / "a").write_bytes(b"2")
    os.utime(root / "sub" / "a", ns=(stamp, stamp))
    assert content_digests(source, ("sub/a",), tmp_path / "cache") == [sha256(b"2")]


def test_a_damaged_memory_or_a_disk_that_takes_none_costs_time_only(
    tmp_path: Path, disk: Callable[..., AbstractContextManager[Path]]
) -> None:
    paths = write(tmp_path / "data", {"a": b"1"})
    source = FileSource(tmp_path / "data", 1)
    content_digests(source, paths, tmp_path / "cache")
    (memo,) = (tmp_path / "cache" / "digests").iterdir()
    for damage in ("", "[1, 2]", '{"a": 3}', '{"a": [1, 2]}'):
        memo.write_text(damage)
        assert content_digests(source, paths, tmp_path / "cache") == [sha256(b"1")]
    with disk(tmp_path / "fixed", "ro") as cache_dir:
        assert content_digests(source, paths, cache_dir) == [sha256(b"1")]
