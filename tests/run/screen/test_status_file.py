import io
import os

import pytest
from rich.console import Console

from dpmi.run.job import Run
from dpmi.run.screen import status_file
from dpmi.run.screen.status import STATUS_FILE, RunStatus, read_status
from dpmi.run.screen.status_file import StatusFile

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def watched(composed, tiny, tmp_path, monkeypatch):
    """Run with some overrides; return the statuses that it wrote, and the record."""
    written = []
    write = RunStatus.write

    def keep(status, folder):
        write(status, folder)
        written.append(read_status(folder))

    monkeypatch.setattr(RunStatus, "write", keep)

    def run(*words):
        config = composed(*tiny, "trainer.max_epochs=2", *words, f"cache_dir={tmp_path / 'cache'}")
        record = Run(config, tmp_path, Console(file=io.StringIO())).execute()
        return written, record

    return run


def test_a_run_shows_how_far_it_is_and_what_it_spent(watched, tmp_path, monkeypatch):
    monkeypatch.setattr(status_file, "INTERVAL_SECONDS", 0.0)
    statuses, record = watched("mechanism=dpsgd", "mechanism.accountant=rdp")
    phases = [status.phase for status in statuses]
    assert phases == sorted(phases, key=("preparing", "training", "evaluating").index)
    assert set(phases) == {"preparing", "training", "evaluating"}
    assert {(status.pid, status.device) for status in statuses[1:]} == {(os.getpid(), "cpu")}
    training = [status for status in statuses if status.phase == "training"]
    assert [s.epoch for s in training] == sorted(s.epoch for s in training)
    assert (training[-1].epoch, training[-1].epochs, training[-1].epochs_done) == (2, 2, 2)
    spent = [s.epsilon for s in training if s.epsilon is not None]
    assert spent == sorted(spent)
    assert spent[-1] == pytest.approx(record.guarantee.epsilon, rel=1e-3)
    assert training[-1].unit == "image"
    left = [s.seconds_left for s in training if s.seconds_left is not None]
    assert left[-1] == 0 < left[0]
    assert {s.of for s in training if s.latest is not None} == {"train", "val"}


def test_the_status_is_gone_when_the_run_has_ended(watched, tmp_path):
    watched("mechanism=none")
    assert not (tmp_path / STATUS_FILE).exists()


def test_a_run_without_privacy_shows_no_epsilon(watched):
    statuses, _ = watched("mechanism=none")
    assert {status.epsilon for status in statuses} == {None}


def test_within_a_second_only_the_ends_of_epochs_are_reported(watched, monkeypatch):
    monkeypatch.setattr(status_file, "INTERVAL_SECONDS", 1e9)
    statuses, _ = watched("mechanism=ldp")
    training = [status.epochs_done for status in statuses if status.phase == "training"]
    assert training == [0, 1, 2]  # and the start
    assert statuses[-1].epsilon == 1.0
    assert statuses[-1].unit == "pixel"


def test_a_folder_that_cannot_be_written_stops_no_run(tmp_path):
    StatusFile(tmp_path / "nowhere")


def test_what_is_no_status_is_none(tmp_path):
    assert read_status(tmp_path) is None
    (tmp_path / STATUS_FILE).write_text('{"phase": "sleeping"}')
    assert read_status(tmp_path) is None
