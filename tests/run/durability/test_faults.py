"""What goes wrong on other people's machines, really done."""

import csv
import json
import os
import shutil
import signal
import subprocess
import time

import job_processes
import pytest
from wandb_server import WandbServer

from dpmi.run.records.reading import read_record
from dpmi.run.screen.terminal import run_job


@pytest.fixture
def small_disk(tmp_path):
    """Mount a disk of so many megabytes in memory; ``small_disk(1)`` is its folder."""
    mounted = []

    def mount(megabytes):
        folder = tmp_path / f"disk{megabytes}"
        folder.mkdir()
        command = [
            "mount",
            "-t",
            "tmpfs",
            "-o",
            f"size={int(1024 * megabytes)}k",
            "tmpfs",
            str(folder),
        ]
        if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
            pytest.skip("a small disk cannot be mounted here: that takes root")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)


DPSGD = ("mechanism=dpsgd", "mechanism.accountant=rdp", "trainer.checkpoint_seconds=0")
# Noise that is given: to search for it takes longer than to train.
GIVEN = (*DPSGD, "mechanism.calibration=noise_multiplier", "beta=2.5")


def test_a_disk_too_full_for_checkpoints_is_reported_and_training_goes_on(
    tiny, small_disk, tmp_path
):
    folder = small_disk(0.6) / "job"  # the weights fit, a checkpoint beside them does not
    words = (*tiny, *GIVEN, f"cache_dir={tmp_path / 'cache'}", "model.momentum=0.9")
    assert job_processes.run(folder, *words) == 0
    printed = " ".join(job_processes.printed(folder).split())
    assert printed.count("no checkpoint can be written (No space left on device)") == 1
    assert read_record(folder / "record.json").status == "completed"
    assert not list(folder.rglob("*.part"))


@pytest.mark.slow
def test_a_disk_too_full_for_the_weights_fails_the_run_which_goes_on_when_there_is_room(
    tiny, small_disk, tmp_path
):
    disk = small_disk(0.25)
    folder, words = disk / "job", (*tiny, *GIVEN, f"cache_dir={tmp_path / 'cache'}")
    assert job_processes.run(folder, *words) == 1
    record = read_record(folder / "record.json")
    assert record.status == "failed"
    assert "No space left on device" in record.reason
    assert record.guarantee.epsilon > 0  # what was executed is told
    assert not list(folder.glob("model.*"))
    subprocess.run(["mount", "-o", "remount,size=300M", str(disk)], check=True)
    assert job_processes.run(folder, *words) == 0
    again = read_record(folder / "record.json")
    assert (again.status, again.restarts) == ("completed", 1)
    assert again.mechanism["ledger"] == record.mechanism["ledger"]  # the same steps, once


def test_a_full_disk_stops_training_before_a_step_that_could_not_be_written_ahead(
    tiny, small_disk, tmp_path
):
    disk = folder = small_disk(1)  # what the job prints is kept beside it, on another disk
    (disk / "ballast").write_bytes(b"0" * (1 << 19))
    words = (*tiny, *GIVEN, f"cache_dir={tmp_path / 'cache'}", "trainer.max_epochs=300")
    process = job_processes.start(folder, *words)
    while not (folder / "journal.jsonl").exists() and process.is_alive():
        time.sleep(0.002)
    with (disk / "more").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"0" * 4096)
        except OSError:
            pass
    process.join(120)
    assert process.exitcode == 1
    printed = " ".join(job_processes.printed(folder).split())
    assert "No space left on device" in printed
    assert "Traceback" not in printed


def at_wandb(url, home):
    """Environment of somebody with an account at a server, and little patience with it."""
    places = {f"WANDB_{kind}_DIR": str(home / "w") for kind in ("CACHE", "DATA", "ARTIFACT")}
    return places | {
        "WANDB_BASE_URL": url,
        "WANDB_API_KEY": "0" * 40,
        "HOME": str(home),
        "PATIENCE": "4",
    }


def steps_in_csv(folder):
    rows = csv.DictReader((folder / "metrics.csv").open())
    return [int(row["step"]) for row in rows if row["nonprivate/loss"]]


def test_a_wandb_server_out_of_reach_from_the_start_costs_seconds_and_no_run(tiny, tmp_path):
    folder, words = tmp_path / "job", (*tiny, "mechanism=none", "logger=wandb")
    environment = at_wandb("http://127.0.0.1:9", tmp_path)  # a closed port
    cache = f"cache_dir={tmp_path / 'cache'}"
    assert job_processes.run(folder, *words, cache, environment=environment) == 0
    assert job_processes.printed(folder).count("W&B stopped working") == 1
    assert steps_in_csv(folder) == list(range(6))


@pytest.mark.slow
def test_a_wandb_server_lost_in_mid_run_costs_seconds_and_no_run(tiny, tmp_path):
    folder = tmp_path / "job"
    words = (*tiny, "mechanism=none", "logger=wandb", f"cache_dir={tmp_path / 'cache'}")
    with WandbServer() as server:
        environment = at_wandb(server.url, tmp_path)
        process = job_processes.start(
            folder, *words, "trainer.max_epochs=2", environment=environment
        )
        while process.is_alive() and not (folder / "metrics.csv").exists():
            time.sleep(0.002)
        assert server.runs  # it is there at first
    process.join(100)  # W&B's own patience at the end of a run has no end
    assert process.exitcode == 0
    printed = " ".join(job_processes.printed(folder).split())
    assert printed.count("W&B stopped working") == 1
    assert "wandb sync" in printed
    assert steps_in_csv(folder) == list(range(12))


@pytest.mark.slow
def test_a_resumed_run_goes_on_as_the_same_run_at_wandb(tiny, tmp_path):
    folder = tmp_path / "job"
    words = (*tiny, *GIVEN, "logger=wandb", f"cache_dir={tmp_path / 'cache'}")
    with WandbServer() as server:
        environment = at_wandb(server.url, tmp_path)
        process = job_processes.start(folder, *words, environment=environment)
        while not list(folder.glob("checkpoints/*.ckpt")) and process.is_alive():
            time.sleep(0.005)
        process.kill()
        process.join()
        state = json.loads((folder / "resume.json").read_text())
        first = set(server.runs)
        server.runs.clear()
        assert job_processes.run(folder, *words, environment=environment) == 0
    assert first == server.runs == {state["tracker_id"]}
    assert len(list(folder.glob(f"wandb/run-*-{state['tracker_id']}"))) == 2


# Each step multiplies all weights by about -1e12.
STEEP = ("model.learning_rate=1e6", "model.weight_decay=1e6")


def test_training_that_diverges_is_stopped_and_reported(tiny, tmp_path):
    folder = tmp_path / "job"
    words = (*tiny, "mechanism=none", *STEEP, f"cache_dir={tmp_path / 'cache'}")
    assert job_processes.run(folder, *words, "trainer.max_epochs=50") == 1
    record = read_record(folder / "record.json")
    assert "the weights are not finite after step" in record.reason
    assert "model.learning_rate" in record.reason


@pytest.mark.parametrize(
    "budget", [0.4, pytest.param(0.8, marks=pytest.mark.slow)]
)  # within the first epoch of two, and the second
def test_a_budget_stops_a_run_before_the_step_that_would_pass_it_and_keeps_the_model(
    tiny, tmp_path, budget
):
    folder = tmp_path / "job"
    words = (*tiny, *DPSGD, f"cache_dir={tmp_path / 'cache'}", f"privacy.max_epsilon={budget}")
    assert job_processes.run(folder, *words, "trainer.max_epochs=2") == 0
    record = read_record(folder / "record.json")
    (entry,) = record.mechanism["ledger"]
    assert 0 < entry["steps"] < record.mechanism["plan"]["steps"] == 12
    assert (entry["steps"] < 6) == (budget == 0.4)
    assert record.guarantee.epsilon <= budget
    assert f"privacy.max_epsilon={budget} was reached after {entry['steps']} of" in record.stopped
    assert record.stopped in " ".join(job_processes.printed(folder).split())
    assert record.status == "completed"
    assert list(folder.glob("model.*"))
    from dpmi.privacy.accounting import epsilon
    from dpmi.privacy.ledger import LedgerEntry

    one_more = [LedgerEntry(**(entry | {"steps": entry["steps"] + 1}))]
    assert epsilon(one_more, record.guarantee.delta, "rdp") > budget


def test_a_budget_that_no_step_fits_into_is_reported_and_nothing_is_released(tiny, tmp_path):
    words, line = ("mechanism=dpsgd", "privacy.max_epsilon=0.001"), "not one step of this run fits"
    folder = tmp_path / "job"
    assert job_processes.run(folder, *tiny, *words, f"cache_dir={tmp_path / 'cache'}") == 1
    record = read_record(folder / "record.json")
    assert line in record.reason
    assert record.guarantee is None or record.guarantee.epsilon is None


def test_a_busy_folder_is_left_alone(tiny, tmp_path):
    """While this process holds the lock, another says so, and its exit status is 75."""
    from filelock import FileLock

    folder = tmp_path / "job"
    folder.mkdir()
    with FileLock(folder / ".lock"):
        assert job_processes.run(folder, *tiny, "mechanism=none") == 75
    assert {path.name for path in folder.iterdir()} == {".lock"}


@pytest.mark.slow
def test_what_was_stopped_by_the_user_goes_on_by_the_same_command(tiny, tmp_path):
    folder = tmp_path / "job"
    words = (*tiny, *GIVEN, f"cache_dir={tmp_path / 'cache'}", "trainer.max_epochs=40")
    process = job_processes.start(folder, *words)
    while not list(folder.glob("checkpoints/*.ckpt")) and process.is_alive():
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGINT)
    process.join(60)
    assert process.exitcode == 130
    assert read_record(folder / "record.json").status == "interrupted"
    assert job_processes.run(folder, *words) == 0
    record = read_record(folder / "record.json")
    assert (record.status, record.restarts) == ("completed", 1)
    assert sum(entry["steps"] for entry in record.mechanism["ledger"]) == 240


@pytest.mark.slow
def test_the_same_run_on_other_data_is_not_taken_for_done(composed, tiny, tmp_path):
    """Two images are exchanged between one run and the next, in the same folder."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    for label in ("a", "b"):
        (tmp_path / "images" / label).mkdir(parents=True)
        for number in range(12):
            pixels = rng.integers(0, 256, (40, 40), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / label / f"{number}.png")
    words = [w for w in tiny if not w.startswith("data.") or w == "data.image_size=32"]
    words = [*words, "data.batch_size=4", "mechanism=none", f"cache_dir={tmp_path / 'cache'}"]
    words = ["data=folder", f"data.root={tmp_path / 'images'}", *words[1:]]
    folder = tmp_path / "job"
    folder.mkdir()
    config = composed(*words)
    assert run_job(config, folder) == "completed"
    first = read_record(folder / "record.json")
    Image.fromarray(np.zeros((40, 40), np.uint8)).save(tmp_path / "images" / "a" / "0.png")
    assert run_job(config, folder) == "completed"
    second = read_record(folder / "record.json")
    assert first.data["sha256"] != second.data["sha256"]
    assert read_record(folder / "superseded" / "1" / "record.json") == first
