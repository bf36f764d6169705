"""One run in two processes is the run in one, and cannot hang."""

import math
import os
import re
import signal
import time
from pathlib import Path

import job_processes
import pytest
from compared_runs import differences

from dpmi.privacy.accounting import epsilon
from dpmi.privacy.journal import read_journal
from dpmi.privacy.ledger import LedgerEntry
from dpmi.run.records.reading import read_record, read_records

# 61 images in batches of 10: the last one has one image, and one process none of it.
# Steps are short, for a difference in the last bit may choose another maximum in pooling, and then
# grows with them; a wrong gradient or noise would still make a difference a hundred times larger
# than what is allowed.
RUN = ("data.train_images=61", "data.augment=affine", "model.learning_rate=0.0001")
DPSGD = ("mechanism=dpsgd", "mechanism.accountant=rdp", "noise_seed=5", "max_grad_norm=0.5")
# Noise that is given: to search for it takes longer than to train.
GIVEN = (*DPSGD, "mechanism.calibration=noise_multiplier", "beta=2.5")
OFTEN = "trainer.checkpoint_seconds=0"
CELLS = {
    "none": ("mechanism=none",),
    "ldp": ("mechanism=ldp", "beta=2"),
    "dpsgd": (*GIVEN, "trainer.max_epochs=2"),
    "dpsgd, two views": (*GIVEN, "trainer.max_epochs=2", "data.multiplicity=2"),
    # Most batches have one image or none.
    "dpsgd, few images": (
        *DPSGD,
        "data.batch_size=1",
        "data.train_images=16",
    ),
}
TWO = ("trainer=ddp", "trainer.devices=2")


@pytest.fixture(scope="module")
def words(tiny, tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")

    def of(cell, devices):
        trainer = TWO if devices == 2 else ()
        return (*trainer, *tiny, *RUN, *CELLS[cell], f"cache_dir={cache}")

    return of


@pytest.fixture(scope="module")
def whole(words, tmp_path_factory):
    """A run of a cell in so many processes that nothing interrupts."""
    folders = {}

    def of(cell, devices):
        if (cell, devices) not in folders:
            folder = tmp_path_factory.mktemp("whole") / "job"
            assert job_processes.run(folder, *words(cell, devices)) == 0, job_processes.printed(
                folder
            )
            folders[cell, devices] = folder
        return folders[cell, devices]

    return of


def rows(folder):
    header, *body = (line.split(",") for line in (folder / "metrics.csv").read_text().splitlines())
    return [
        {k: float(v) for k, v in zip(header, row, strict=True) if v and k != "nonprivate/step_time"}
        for row in body
    ]


@pytest.mark.parametrize(
    "cell", [pytest.param(c, marks=[pytest.mark.slow] * (c != "dpsgd")) for c in CELLS]
)
def test_two_processes_train_what_one_trains(cell, whole):
    """Same examples, same noise, the noise once; each gradient clipped, moved and counted alike."""
    one, two = whole(cell, 1), whole(cell, 2)
    assert max(differences(one, two).values()) < 1e-6
    assert max(differences(one, whole("ldp" if cell == "none" else "none", 1)).values()) > 1e-4
    alone, together = (read_record(folder / "record.json") for folder in (one, two))
    assert together.status == "completed"
    assert together.stopped == alone.stopped
    assert together.guarantee == alone.guarantee
    assert together.config_digest == alone.config_digest
    # Of each process's part; and of two runs on the same images one made what both use.
    differs = {"physical_batch_size", "release_made_by_this_run"}
    assert {k: v for k, v in together.mechanism.items() if k not in differs} == {
        k: v for k, v in alone.mechanism.items() if k not in differs
    }
    for a, b in zip(rows(one), rows(two), strict=True):
        assert a == pytest.approx(b, abs=1e-5)


def pids(folder, since=0):
    """Of the processes of a run, in order, as its log tells them."""
    log = folder / "train.log"
    printed = log.read_text()[since:] if log.exists() else ""
    return {
        int(rank): int(pid) for rank, pid in re.findall(r"process (\d) of 2 has pid (\d+)", printed)
    }


def alive(pid):
    stat = Path(f"/proc/{pid}/stat")
    try:
        return stat.read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def gone(processes, seconds):
    """Wait for processes to end; whether they did."""
    deadline = time.monotonic() + seconds
    while any(map(alive, processes)) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not any(map(alive, processes))


def latest(folder):
    return max((int(p.name.split("-")[1]) for p in folder.glob("checkpoints/*.ckpt")), default=0)


def started(folder, words, steps):
    """Start a job; return its process, and those of its ranks, when so many steps are done."""
    process = job_processes.start(folder, *words)
    while process.is_alive() and latest(folder) < steps:
        time.sleep(0.002)
    assert process.is_alive(), job_processes.printed(folder)
    return process, pids(folder)


def assert_same(folder, other):
    assert set(differences(folder, other).values()) == {0.0}
    one, two = (read_record(path / "record.json") for path in (folder, other))
    assert one.status == "completed"
    assert (one.guarantee, one.mechanism, one.metrics, one.curves) == (
        two.guarantee, two.mechanism, two.metrics, two.curves,
    )  # fmt: skip
    assert rows(folder) == rows(other)


@pytest.mark.slow
@pytest.mark.parametrize("rank", [1, 2])
def test_a_process_that_is_killed_ends_the_job_which_the_same_command_goes_on_with(
    rank, words, whole, tmp_path
):
    folder, command = tmp_path / "job", (*words("dpsgd", 2), OFTEN)
    process, ranks = started(folder, command, 5)
    killed = time.monotonic()
    os.kill(ranks[rank], signal.SIGKILL)
    process.join(60)
    assert process.exitcode == 1
    assert time.monotonic() - killed < 20
    assert not any(map(alive, ranks.values()))
    record = read_record(folder / "record.json")
    assert record.status == "failed"
    assert f"process {rank} of 2 was killed by SIGKILL" in record.reason
    assert "the same command continues" in record.reason
    assert job_processes.run(folder, *command) == 0
    assert_same(folder, whole("dpsgd", 2))


@pytest.mark.slow
def test_when_the_job_itself_is_killed_its_processes_go_with_it(words, whole, tmp_path):
    folder, command = tmp_path / "job", (*words("dpsgd", 2), OFTEN)
    process, ranks = started(folder, command, 5)
    process.kill()
    process.join()
    assert gone(ranks.values(), 10)
    assert job_processes.run(folder, *command) == 0
    assert_same(folder, whole("dpsgd", 2))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_on_a_signal_all_stop_at_the_same_step_with_a_checkpoint(number, words, whole, tmp_path):
    folder, command = tmp_path / "job", words("dpsgd", 2)
    process = job_processes.start(folder, *command)
    while not (folder / "journal.jsonl").exists():
        time.sleep(0.005)
    ranks = pids(folder)
    os.kill(process.pid, number)
    process.join(60)
    assert process.exitcode == (75 if number == signal.SIGTERM else 130)
    assert not any(map(alive, ranks.values()))
    record = read_record(folder / "record.json")
    assert record.status == "interrupted"
    assert ("SIGTERM" if number == signal.SIGTERM else "by the user") in record.reason
    assert 0 < sum(entry["steps"] for entry in record.mechanism["ledger"]) == latest(folder) < 12
    assert job_processes.run(folder, *command) == 0
    assert_same(folder, whole("dpsgd", 2))


@pytest.mark.slow
def test_a_budget_stops_both_processes_and_epsilon_is_that_of_the_ledger(words, tmp_path):
    command = (*words("dpsgd, few images", 2), "noise_seed=null", "privacy.max_epsilon=0.8")
    assert job_processes.run(tmp_path / "job", *command) == 0
    record = read_record(tmp_path / "job" / "record.json")
    plan, ledger = record.mechanism["plan"], record.mechanism["ledger"]
    assert "privacy.max_epsilon" in record.stopped
    spent = epsilon([LedgerEntry(**entry) for entry in ledger], plan["delta"], "rdp")
    assert record.guarantee.epsilon == spent <= 0.8


@pytest.mark.slow
def test_on_another_number_of_devices_steps_that_were_lost_are_counted(words, tmp_path):
    """Their rounding may differ, and two releases with one noise would tell by how much."""
    folder = tmp_path / "job"
    process, ranks = started(folder, (*words("dpsgd", 2), OFTEN, "noise_seed=null"), 5)
    process.kill()
    process.join()
    assert gone(ranks.values(), 10)
    reserved = max(r.last for r in read_journal(folder / "journal.jsonl"))
    known = latest(folder)
    assert job_processes.run(folder, *words("dpsgd", 1), "noise_seed=null") == 0
    record = read_record(folder / "record.json")
    assert record.mechanism["lost_steps"] == reserved - known > 0
    (entry,) = record.mechanism["ledger"]
    assert entry["steps"] == 12 + reserved - known
    spent = epsilon([LedgerEntry(**entry)], record.mechanism["plan"]["delta"], "rdp")
    assert record.guarantee.epsilon == spent


@pytest.mark.slow
def test_a_mistake_that_only_the_processes_can_find_is_one_line(words, tmp_path):
    folder = tmp_path / "job"
    assert job_processes.run(folder, *words("none", 2), "model.learning_rate=1e6") == 1
    reason = read_record(folder / "record.json").reason
    assert "the weights are not finite" in reason
    assert "\n" not in reason


@pytest.mark.slow
def test_a_sweep_of_runs_over_two_devices_comes_to_its_end(place, tiny):
    done = place.train("-m", *TWO, *tiny, *DPSGD, "beta=1,2")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    records = read_records(place.outputs)
    assert sorted(record.config["beta"] for record in records) == [1, 2]
    for record in records:
        assert record.status == "completed"
        assert not math.isnan(record.metrics["test/accuracy"])
    assert place.files(place.tmp) == set()
