import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from dpmi.privacy.journal import AHEAD, Journal, Reservation, read_journal, reserved_entries
from dpmi.privacy.spending import LedgerEntry


def test_a_release_is_on_the_disk_before_cover_returns(tmp_path):
    path = tmp_path / "journal.jsonl"
    journal = Journal(path)
    assert read_journal(path) == []
    for release in range(3 * AHEAD):
        journal.cover(release, 1.5, 0.1, 64)
        assert any(r.first <= release < r.last for r in read_journal(path))
    assert read_journal(path) == [
        Reservation(first, first + AHEAD, 1.5, 0.1, 64) for first in range(0, 3 * AHEAD, AHEAD)
    ]


def test_a_reservation_is_flushed_before_cover_returns(tmp_path, monkeypatch):
    flushed = []
    fsync = os.fsync

    def flush(descriptor):
        flushed.append((os.readlink(f"/proc/self/fd/{descriptor}"), os.fstat(descriptor).st_size))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", flush)
    path = tmp_path / "journal.jsonl"
    Journal(path).cover(0, 1.5, 0.1, 64)
    assert flushed == [(str(path), path.stat().st_size), (str(tmp_path), tmp_path.stat().st_size)]


def test_other_noise_or_other_pieces_are_reserved_apart(tmp_path):
    journal = Journal(tmp_path / "j")
    for settings in ((1.5, 0.1, 64), (1.5, 0.1, 32), (2.0, 0.1, 32)):
        journal.cover(3, *settings)
    assert [(r.noise_multiplier, r.physical_batch_size) for r in read_journal(tmp_path / "j")] == [
        *((1.5, 64), (1.5, 32), (2.0, 32))
    ]


@pytest.mark.parametrize("steps", range(1, 2 * AHEAD))
def test_a_release_after_the_steps_is_never_taken_for_a_step_that_was_reserved_ahead(
    tmp_path, steps
):
    """Also where a process before this one made it, and this one repeats it to the bit."""
    path, last = tmp_path / "j", LedgerEntry(50.0, 1.0, 1)
    for _ in range(2):
        journal = Journal(path)
        for step in range(steps):
            journal.cover(step, 1.0, 0.01, 64)
        journal.cover_after_steps(steps, 50.0, 1.0, 64)
        made = read_journal(path)
        lost = reserved_entries(made, 0, max(r.last for r in made))
        assert [entry for entry in lost if entry.noise_multiplier == 50.0] == [last]
        assert steps <= sum(e.steps for e in lost if e.noise_multiplier == 1.0) < steps + AHEAD


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_a_line_cut_short_hides_neither_those_before_nor_those_after_it(tmp_path, cut):
    path = tmp_path / "j"
    Journal(path).cover(0, 1.5, 0.1, 64)
    Journal(path).cover(AHEAD, 1.5, 0.1, 64)
    path.write_bytes(path.read_bytes()[:-cut])
    Journal(path).cover(AHEAD, 1.5, 0.1, 64)
    assert {r.first for r in read_journal(path)} == {0, AHEAD}


def test_a_process_that_is_killed_has_released_nothing_that_is_not_reserved(tmp_path):
    """Steps write their number after they were covered; the process is killed at any of them."""
    script = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from dpmi.privacy.journal import Journal\n"
        "journal = Journal(Path('journal'))\n"
        "for step in range(10**9):\n"
        "    journal.cover(step, 1.0, 0.1, 4)\n"
        "    os.write(1, b'%d\\n' % step)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    for number, lines in enumerate((1, 7, 8, 9, 100)):
        folder = tmp_path / str(number)
        folder.mkdir()
        process = subprocess.Popen(
            [sys.executable, "-c", script], cwd=folder, env=environment, stdout=subprocess.PIPE
        )
        for _ in range(lines):
            process.stdout.readline()
        process.kill()
        released = lines + len(process.communicate()[0].splitlines())
        assert released <= max(r.last for r in read_journal(folder / "journal"))


def test_what_cannot_be_reserved_is_not_released(tmp_path):
    """A limit on the size of files, as a full disk: the error comes before the release."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    journal = Journal(tmp_path / "j")
    journal.cover(0, 1.5, 0.1, 64)
    size = (tmp_path / "j").stat().st_size
    import signal

    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, hard))
    try:
        with pytest.raises(OSError, match="j"):
            journal.cover(AHEAD, 1.5, 0.1, 64)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert [r.first for r in read_journal(tmp_path / "j")] == [0]
    assert json.loads((tmp_path / "j").read_text().splitlines()[1])["first"] == 0
