"""One release for each data set and β, whoever asks for it."""

import multiprocessing
import os
import signal
import time

import numpy as np
import pytest

from dpmi.mechanisms import LocalDP, ldp_release
from dpmi.mechanisms.ldp_release import shared_release
from dpmi.privacy.randomness import NoiseSource

IMAGES = np.random.default_rng(0).integers(0, 256, (30, 1, 32, 32), dtype=np.uint8)


def release(cache_dir, pixels=IMAGES, beta=1.0, pool=1):
    return shared_release(pixels, beta, pool, cache_dir)


def homes(cache_dir):
    return [path for path in (cache_dir / "releases").iterdir() if path.is_dir()]


def test_who_asks_again_gets_the_same_release(tmp_path):
    first, second = release(tmp_path), release(tmp_path)
    assert (first.made, second.made) == (True, False)
    assert first.id == second.id
    np.testing.assert_array_equal(first.pixels, second.pixels)
    assert (first.pixels != IMAGES).mean() > 0.9
    assert not second.pixels.flags.writeable


def test_other_noise_and_other_pixels_are_other_releases(tmp_path):
    changed = IMAGES.copy()
    changed[3, 0, 5, 5] ^= 1
    releases = [
        release(tmp_path), release(tmp_path, beta=2.0), release(tmp_path, changed),
        release(tmp_path, IMAGES[:-1]), release(tmp_path, IMAGES[::-1]), release(tmp_path, pool=2),
    ]  # fmt: skip
    assert all(one.made for one in releases)
    assert len({one.id for one in releases}) == 6
    noise = [one.pixels[:20].astype(int) - IMAGES[:20] for one in (releases[0], releases[2])]
    assert (noise[0] == noise[1]).mean() < 0.5  # saturated alike, no more


def test_every_run_on_the_same_images_has_the_same_release_however_it_evaluates(tmp_path, stripes):
    seen = {}
    for matched in (False, True):
        mechanism = LocalDP(1.0, 1, matched, 1, NoiseSource(None), tmp_path)
        released = mechanism.release_data(stripes())
        seen[matched] = mechanism.release_id, released.splits["train"].pixels
        found = {"release": mechanism.release_id, "release_made_by_this_run": not matched}
        assert mechanism.describe() == found
    assert seen[False][0] == seen[True][0]
    np.testing.assert_array_equal(seen[False][1], seen[True][1])
    assert len(homes(tmp_path)) == 1  # train's alone


def test_noise_that_can_be_repeated_is_shared_with_nobody(tmp_path, stripes):
    mechanism = LocalDP(1.0, 1, True, 3, NoiseSource(3), tmp_path)
    mechanism.release_data(stripes())
    assert mechanism.release_id is None
    assert mechanism.describe() == {}
    assert not (tmp_path / "releases").exists()


def test_the_key_of_a_release_is_new_for_each_and_on_no_disk(tmp_path, monkeypatch):
    keys = []

    class Overheard(NoiseSource):
        def __init__(self, noise_seed):
            super().__init__(noise_seed)
            keys.append((noise_seed, self.key))

    monkeypatch.setattr(ldp_release, "NoiseSource", Overheard)
    release(tmp_path)
    release(tmp_path, beta=2.0)
    assert [seed for seed, _ in keys] == [None, None]
    assert keys[0] != keys[1]
    for _, key in keys:
        for path in tmp_path.rglob("*"):
            content = path.read_bytes() if path.is_file() else path.name.encode()
            assert key not in content
            assert key.hex().encode() not in content


@pytest.mark.parametrize("damage", ["pixels.npy", "images.json"])
def test_a_damaged_release_is_reported_and_the_next_is_another(tmp_path, damage, caplog):
    first = release(tmp_path)
    before = np.array(first.pixels)
    (home,) = homes(tmp_path)
    content = (home / damage).read_bytes()
    at = content.index(b'"id"') + 8 if damage == "images.json" else len(content) // 2
    (home / damage).write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
    second = release(tmp_path)
    assert second.made
    assert second.id != first.id
    assert (second.pixels != before).mean() > 0.5
    assert "damaged" in caplog.text
    assert "second release" in caplog.text


def ask(cache_dir, start, answer):
    start.wait()
    one = release(cache_dir)
    answer.put((one.id, one.made, int(one.pixels.sum())))


def test_processes_that_ask_at_the_same_moment_make_one_release(tmp_path):
    context = multiprocessing.get_context("fork")
    start, answer = context.Barrier(4), context.Queue()
    processes = [context.Process(target=ask, args=(tmp_path, start, answer)) for _ in range(4)]
    for process in processes:
        process.start()
    answers = [answer.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    assert len({(name, total) for name, _, total in answers}) == 1
    assert sum(made for _, made, _ in answers) == 1


def make_slowly(cache_dir, begun):
    whole = ldp_release.noised

    def slowly(*args):
        for piece in whole(*args):
            yield piece[:10]
            begun.set()
            time.sleep(60)

    ldp_release.noised = slowly
    release(cache_dir)


def test_of_a_release_that_is_killed_in_the_making_nothing_is_left(tmp_path):
    context = multiprocessing.get_context("fork")
    begun = context.Event()
    process = context.Process(target=make_slowly, args=(tmp_path, begun))
    process.start()
    assert begun.wait(60)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert [home.suffix for home in homes(tmp_path)] == [".partial"]  # which nobody reads
    one = release(tmp_path)
    assert one.made
    assert [home.suffix for home in homes(tmp_path)] == [""]
    assert one.pixels.shape == IMAGES.shape


class RefusedError(Exception):
    pass


def test_a_release_is_announced_before_any_noise_is_drawn_and_may_be_refused(tmp_path, monkeypatch):
    drawn, found = [], []
    whole = ldp_release.noised
    monkeypatch.setattr(ldp_release, "noised", lambda *args: drawn.append(1) or whole(*args))

    def refuse(name):
        assert not drawn
        raise RefusedError

    with pytest.raises(RefusedError):
        ldp_release.shared_release(IMAGES, 1.0, 1, tmp_path, refuse)
    assert homes(tmp_path) == []
    one = ldp_release.shared_release(IMAGES, 1.0, 1, tmp_path, found.append)
    again = ldp_release.shared_release(IMAGES, 1.0, 1, tmp_path, found.append)
    assert found == [one.id, again.id] == [one.id] * 2
    with pytest.raises(RefusedError):
        ldp_release.shared_release(IMAGES, 1.0, 1, tmp_path, lambda name: refuse(drawn.clear()))
