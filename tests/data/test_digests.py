from __future__ import annotations

import hashlib
import multiprocessing
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from dpmi.data.decoding.settings import Decoding
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
    digests = content_digests(FileSource(tmp_path / "data", Decoding(1)), paths, tmp_path / "cache")
    assert digests == [sha256(bytes([n])) for n in range(50)]


def test_files_that_did_not_change_are_not_read_again(tmp_path: Path) -> None:
    root = tmp_path / "data"
    paths = write(root, {"a": b"1", "b": b"2", "c": b"3"})
    for reads in (3, 0):
        source = Counting(root, Decoding(1))
        content_digests(source, paths, tmp_path / "cache")
        assert source.reads == reads
    write(root, {"b": b"4"}, changed=OLD + 1)
    source = Counting(root, Decoding(1))
    assert content_digests(source, paths, tmp_path / "cache")[1] == sha256(b"4")
    assert source.reads == 1


def test_a_file_that_has_just_changed_is_read_again_whatever_its_time(tmp_path: Path) -> None:
    root = tmp_path / "data"
    (root / "sub").mkdir(parents=True)
    (root / "sub" / "a").write_bytes(b"1")
    stamp = (root / "sub" / "a").stat().st_mtime_ns
    source = FileSource(root, Decoding(1))
    assert content_digests(source, ("sub/a",), tmp_path / "cache") == [sha256(b"1")]
    (root / "sub" / "a").write_bytes(b"2")
    os.utime(root / "sub" / "a", ns=(stamp, stamp))
    assert content_digests(source, ("sub/a",), tmp_path / "cache") == [sha256(b"2")]


def test_a_damaged_memory_is_reported_and_costs_time_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    paths = write(tmp_path / "data", {"a": b"1", "b": b"2"})
    source = Counting(tmp_path / "data", Decoding(1))
    whole = content_digests(source, paths, tmp_path / "cache")
    (memo,) = (tmp_path / "cache" / "digests").iterdir()
    content = memo.read_bytes()
    flips = [
        content[:at] + bytes([content[at] ^ 1 << at % 8]) + content[at + 1 :]
        for at in range(len(content))
    ]
    for damaged in [*flips, b"", b"[1, 2]", content[: len(content) // 2], content + b" "]:
        memo.write_bytes(damaged)
        source.reads = 0
        caplog.clear()
        assert content_digests(source, paths, tmp_path / "cache") == whole
        assert source.reads == 2
        assert [str(memo) in record.getMessage() for record in caplog.records] == [True]


def test_a_disk_that_takes_no_memory_costs_time_only(
    tmp_path: Path, disk: Callable[..., AbstractContextManager[Path]]
) -> None:
    many = {f"{number}.png": b"1" for number in range(500)}
    paths = write(tmp_path / "data", many)
    source = FileSource(tmp_path / "data", Decoding(1))
    with disk(tmp_path / "fixed", "ro") as cache_dir:
        assert content_digests(source, paths, cache_dir) == [sha256(b"1")] * 500
    with disk(tmp_path / "small", "size=16k") as cache_dir:
        assert content_digests(source, paths, cache_dir) == [sha256(b"1")] * 500
        assert list((cache_dir / "digests").iterdir()) == []


def _remember(root: Path, cache_dir: Path, first: int, answer: object) -> None:
    paths = tuple(f"{number}.png" for number in range(first, first + 20))
    found = [content_digests(FileSource(root, Decoding(1)), paths, cache_dir) for _ in range(20)]
    answer.put(found == [[sha256(path.encode()) for path in paths]] * 20)  # type: ignore[attr-defined]


def test_processes_that_share_a_memory_leave_it_whole(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root, cache_dir = tmp_path / "data", tmp_path / "cache"
    paths = write(root, {f"{n}.png": f"{n}.png".encode() for n in range(50)})
    context = multiprocessing.get_context("spawn")
    answer = context.Queue()
    processes = [
        context.Process(target=_remember, args=(root, cache_dir, 10 * number, answer))
        for number in range(4)
    ]
    for process in processes:
        process.start()
    assert [answer.get(timeout=60) for _ in processes] == [True] * 4
    for process in processes:
        process.join()
    assert content_digests(FileSource(root, Decoding(1)), paths, cache_dir)[7] == sha256(b"7.png")
    assert "damaged" not in caplog.text
    assert len(list((cache_dir / "digests").iterdir())) == 1
