from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest

from dpmi.base.errors import UserError
from dpmi.data.decoding.settings import BadImageError
from dpmi.data.pixel_cache import ImageList, cached_pixels


class Drawn:
    """Images that are their number, of which some are bad; counts what is decoded."""

    def __init__(
        self, bad: frozenset[int] = frozenset(), log: Path | None = None, pause: float = 0
    ) -> None:
        self.bad, self.log, self.pause = bad, log, pause
        self.decoded = 0

    def fetch(self, path: str) -> bytes:
        return path.encode()

    def load(self, path: str, resize: int) -> np.ndarray:
        time.sleep(self.pause)
        self.decoded += 1
        if self.log:
            with self.log.open("a") as stream:
                stream.write(f"{path}\n")
        if int(path) in self.bad:
            raise BadImageError("it is bad")
        pixels = np.full((resize, resize, 3), int(path) % 256, dtype=np.uint8)
        pixels[..., 2] ^= 255  # in colour
        return pixels


def images(source: Drawn, count: int = 40, size: int = 32) -> ImageList:
    paths = [str(number) for number in range(count)]
    return ImageList(source, paths, [f"digest of {path}" for path in paths], size, 3)


def folders(cache_dir: Path) -> list[Path]:
    return [path for path in (cache_dir / "images").iterdir() if path.is_dir()]


def test_a_second_call_decodes_nothing_and_maps_the_same_pixels(tmp_path: Path) -> None:
    first = cached_pixels(images(Drawn()), tmp_path, skip_bad=False)
    source = Drawn()
    second = cached_pixels(images(source), tmp_path, skip_bad=False)
    assert source.decoded == 0
    assert isinstance(second.pixels, np.memmap)
    assert not second.pixels.flags.writeable
    assert first.pixels.shape == (40, 3, 32, 32)
    assert np.array_equal(first.pixels, second.pixels)
    assert np.array_equal(second.pixels[:, 0, 0, 0], np.arange(40))


def test_the_key_follows_contents_order_and_size_but_not_places() -> None:
    one = images(Drawn())
    moved = ImageList(Drawn(), [f"moved/{p}" for p in one.paths], one.digests, 32, 3)
    turned = ImageList(Drawn(), one.paths, one.digests[::-1], 32, 3)
    gray = ImageList(Drawn(), one.paths, one.digests, 32, 1)
    assert moved.key == one.key
    assert len({one.key, turned.key, gray.key, images(Drawn(), size=64).key}) == 4


def test_bad_images_are_left_out_when_requested(tmp_path: Path) -> None:
    for source in (Drawn(frozenset({0, 7, 39})), Drawn()):  # decoded, then from the cache
        cached = cached_pixels(images(source), tmp_path, skip_bad=True)
        assert cached.bad == dict.fromkeys((0, 7, 39), "it is bad")
        kept = [number for number in range(40) if number not in cached.bad]
        assert cached.pixels[:, 0, 0, 0].tolist() == kept


def test_the_first_bad_image_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    for _ in range(3):
        with pytest.raises(UserError, match=r"^7: .*it is bad.*data.on_corrupt=skip"):
            cached_pixels(images(Drawn(frozenset({7, 8, 30}))), tmp_path, skip_bad=False)
    assert folders(tmp_path) == []


def test_bad_images_are_an_error_even_if_an_earlier_run_skipped_them(tmp_path: Path) -> None:
    bad = frozenset({7})
    cached_pixels(images(Drawn(bad)), tmp_path, skip_bad=True)
    with pytest.raises(UserError, match=r"^7: "):
        cached_pixels(images(Drawn(bad)), tmp_path, skip_bad=False)


@pytest.mark.parametrize("damage", ["pixels.npy", "images.json"])
def test_a_truncated_cache_is_reported_and_made_anew(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    whole = np.array(cached_pixels(images(Drawn()), tmp_path, skip_bad=False).pixels)
    (home,) = folders(tmp_path)
    size = (home / damage).stat().st_size
    for length in (0, 5, size // 2, size - 1):
        os.truncate(home / damage, length)
        caplog.clear()
        assert np.array_equal(
            cached_pixels(images(Drawn()), tmp_path, skip_bad=False).pixels, whole
        )
        assert len(caplog.records) == caplog.text.count(f"{home}: damaged") == 1
        source = Drawn()
        cached_pixels(images(source), tmp_path, skip_bad=False)
        assert source.decoded == 0  # whole again


def test_no_flipped_bit_of_a_cache_goes_unseen(tmp_path: Path) -> None:
    bad = frozenset({3})
    known = cached_pixels(images(Drawn(bad), count=5), tmp_path, skip_bad=True)
    whole, reasons = np.array(known.pixels), known.bad
    (home,) = folders(tmp_path)
    seen = 0
    for name in ("pixels.npy", "images.json"):
        content = (home / name).read_bytes()
        # All of the header, and pixels here and there.
        for at in [*range(min(len(content), 160)), *range(160, len(content), 997)]:
            flipped = content[:at] + bytes([content[at] ^ 1 << at % 8]) + content[at + 1 :]
            (home / name).write_bytes(flipped)
            source = Drawn(bad)
            again = cached_pixels(images(source, count=5), tmp_path, skip_bad=True)
            assert np.array_equal(again.pixels, whole)
            assert again.bad == reasons
            seen += source.decoded == 5
            (home / name).write_bytes(content)
    assert seen > 150


def test_a_run_that_reads_damaged_pixels_is_not_harmed_by_the_one_that_makes_them_anew(
    tmp_path: Path,
) -> None:
    reader = cached_pixels(images(Drawn()), tmp_path, skip_bad=False)
    whole = np.array(reader.pixels)
    (home,) = folders(tmp_path)
    (home / "images.json").write_text("{")
    cached_pixels(images(Drawn()), tmp_path, skip_bad=False)
    assert np.array_equal(reader.pixels, whole)  # mapped before, and still there


def _prepare(
    cache_dir: Path, log: Path, pause: float, start: threading.Barrier | None, answer: object
) -> None:
    if start is not None:
        start.wait()
    cached = cached_pixels(images(Drawn(log=log, pause=pause)), cache_dir, skip_bad=False)
    answer.put(int(cached.pixels.sum()))  # type: ignore[attr-defined]


def test_seven_processes_at_the_same_moment_decode_once_and_see_the_same(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    start, answer = context.Barrier(7), context.Queue()
    log = tmp_path / "decoded.txt"
    processes = [
        context.Process(target=_prepare, args=(tmp_path / "cache", log, 0.01, start, answer))
        for _ in range(7)
    ]
    for process in processes:
        process.start()
    sums = [answer.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    assert len(set(sums)) == 1
    assert sorted(log.read_text().split(), key=int) == [str(number) for number in range(40)]


def _prepare_and_damage(cache_dir: Path, seed: int, answer: object) -> None:
    """Ask many times, and damage the shared cache now and then."""
    rng = np.random.default_rng(seed)
    home = cache_dir / "images" / images(Drawn()).key
    right = 0
    for _ in range(25):
        cached = cached_pixels(images(Drawn()), cache_dir, skip_bad=False)
        right += np.array_equal(cached.pixels[:, 0, 0, 0], np.arange(40))
        if rng.random() < 0.3:
            with contextlib.suppress(OSError):  # another process may have it in hand
                (home / "images.json").write_text("damaged")
    answer.put(int(right))  # type: ignore[attr-defined]


def test_processes_that_share_a_cache_see_whole_pixels_while_it_is_damaged_and_mended(
    tmp_path: Path,
) -> None:
    context = multiprocessing.get_context("spawn")
    answer = context.Queue()
    processes = [
        context.Process(target=_prepare_and_damage, args=(tmp_path, seed, answer))
        for seed in range(3)
    ]
    for process in processes:
        process.start()
    right = [answer.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    assert right == [25, 25, 25]


def test_a_killed_run_leaves_nothing_that_misleads_the_next(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    log, answer = tmp_path / "decoded.txt", context.Queue()
    process = context.Process(target=_prepare, args=(tmp_path / "cache", log, 0.05, None, answer))
    process.start()
    deadline = time.monotonic() + 30
    while not log.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join()
    assert [folder.suffix for folder in folders(tmp_path / "cache")] == [".partial"]

    # A run that decodes other images tidies up; one that decodes the same ones is not misled.
    cached_pixels(images(Drawn(), count=3), tmp_path / "cache", skip_bad=False)
    assert [folder.suffix for folder in folders(tmp_path / "cache")] == [""]
    cached = cached_pixels(images(Drawn()), tmp_path / "cache", skip_bad=False)
    assert np.array_equal(cached.pixels[:, 0, 0, 0], np.arange(40))


def test_the_folder_of_a_run_at_work_is_not_tidied_away(tmp_path: Path) -> None:
    slow = threading.Thread(
        target=lambda: cached_pixels(images(Drawn(pause=0.02)), tmp_path, skip_bad=False)
    )
    slow.start()
    time.sleep(0.1)
    cached_pixels(images(Drawn(), count=3), tmp_path, skip_bad=False)
    slow.join()
    assert len(folders(tmp_path)) == 2


def test_a_full_disk_is_one_clear_error_and_leaves_nothing(
    tmp_path: Path, disk: Callable[..., AbstractContextManager[Path]]
) -> None:
    with disk(tmp_path / "small", "size=64k") as cache_dir:
        with pytest.raises(UserError, match=r"cache_dir=.*0 MB.*No space left on device"):
            cached_pixels(images(Drawn()), cache_dir, skip_bad=False)
        assert folders(cache_dir) == []


def test_a_read_only_disk_is_one_clear_error(
    tmp_path: Path, disk: Callable[..., AbstractContextManager[Path]]
) -> None:
    with (
        disk(tmp_path / "fixed", "ro") as cache_dir,
        pytest.raises(UserError, match=r"cache_dir=.*Read-only file system"),
    ):
        cached_pixels(images(Drawn()), cache_dir, skip_bad=False)


def test_a_cache_below_a_file_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(UserError, match=r"cache_dir=.*Not a directory"):
        cached_pixels(images(Drawn()), tmp_path / "file" / "cache", skip_bad=False)


def test_a_cache_says_what_it_left_out_in_plain_json(tmp_path: Path) -> None:
    cached_pixels(images(Drawn(frozenset({3}))), tmp_path, skip_bad=True)
    (home,) = folders(tmp_path)
    written = json.loads((home / "images.json").read_text())
    assert written["bad"] == {"3": "it is bad"}
