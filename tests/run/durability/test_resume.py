"""A run that is killed and started again ends as one that was not."""

import json
import os
import random
import shutil
import signal
import time

import job_processes
import pytest
from compared_runs import assert_same, killed_after, latest

from dpmi.base.errors import UserError
from dpmi.models.weights import read_weights
from dpmi.privacy.accounting import epsilon
from dpmi.privacy.journal import AHEAD, read_journal
from dpmi.privacy.ledger import LedgerEntry
from dpmi.run.records.code import code_digest
from dpmi.run.records.reading import read_record

# Two epochs of four steps, a checkpoint after every step.
RUN = (
    *("trainer.max_epochs=2", "trainer.checkpoint_seconds=0", "data.augment=affine"),
    "data.train_images=40",
)
# Noise that is given: to search for it takes longer than to train.
DPSGD = ("mechanism=dpsgd", "mechanism.accountant=rdp", "mechanism.calibration=noise_multiplier")
CELLS = {
    "none": ("mechanism=none", "model.norm=batch"),
    "ldp": ("mechanism=ldp", "beta=2"),
    "dpsgd": (*DPSGD, "beta=2.5", "noise_seed=5"),
    "dpsgd, two views": (*DPSGD, "beta=2.5", "noise_seed=5", "data.multiplicity=2"),
    "dpsgd_published": (
        *("mechanism=dpsgd_published", "model.norm=batch", "noise_seed=5"),
        "mechanism.microbatches.phantom_xray=2",
    ),
}
STEPS = 8
# Of runs that nothing kills.
RARELY = "trainer.checkpoint_seconds=1000"


@pytest.fixture(scope="module")
def words(tiny, tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    return lambda cell: (*tiny, *RUN, *CELLS[cell], f"cache_dir={cache}")


@pytest.fixture(scope="module")
def whole(words, tmp_path_factory):
    """A run of each cell that nothing interrupts."""
    folders = {}

    def of(cell):
        if cell not in folders:
            folders[cell] = tmp_path_factory.mktemp("whole") / cell
            assert job_processes.run(folders[cell], *words(cell), RARELY) == 0
        return folders[cell]

    return of


@pytest.mark.parametrize(
    "cell",
    [pytest.param(c, marks=[pytest.mark.slow] * (c != "dpsgd")) for c in CELLS],
)
def test_a_run_killed_again_and_again_ends_to_the_bit_as_one_that_was_not(
    cell, words, whole, tmp_path
):
    folder, expected = tmp_path / "job", whole(cell)
    for steps in (1, STEPS // 2, STEPS - 1):  # the second ends an epoch
        assert killed_after(folder, words(cell), steps) == -signal.SIGKILL
        assert not (folder / "record.json").exists()
    assert job_processes.run(folder, *words(cell), RARELY) == 0
    assert_same(folder, expected)
    assert read_record(folder / "record.json").restarts >= 2  # one may have come too early


def kill_at_random(folder, words, kills, seed):
    """Kill the job ``kills`` times, each at a moment of its own, wherever that falls."""
    generator, done = random.Random(seed), 0
    while done < kills:
        process = job_processes.start(folder, *words)
        process.join(generator.uniform(0.2, 2.5))
        if process.exitcode is None:
            process.kill()
            process.join()
            done += 1
        else:
            assert process.exitcode == 0, job_processes.printed(folder)
            return done
    return done


@pytest.mark.slow
def test_kills_at_random_moments_change_neither_the_weights_nor_the_ledger(words, whole, tmp_path):
    """Of every twenty, some fall into start-up, some into steps, checkpoints and evaluation."""
    kills = int(os.environ.get("DPMI_KILLS", "20"))
    done, number = 0, 0
    while done < kills:
        folder = tmp_path / str(number)
        done += kill_at_random(folder, words("dpsgd"), kills - done, seed=number)
        assert job_processes.run(folder, *words("dpsgd")) == 0, job_processes.printed(folder)
        assert_same(folder, whole("dpsgd"))
        number += 1


def test_a_run_without_a_seed_of_its_noise_repeats_the_same_steps_too(words, tmp_path):
    """Its key is kept until it is complete, and nobody but the owner can read it."""
    folder = tmp_path / "job"
    command = (*words("dpsgd"), "noise_seed=null", RARELY)
    process = job_processes.start(folder, *command)
    while not (folder / "journal.jsonl").exists():
        time.sleep(0.01)
    process.kill()
    process.join()
    state = folder / "resume.json"
    assert state.stat().st_mode & 0o777 == 0o600
    key = json.loads(state.read_text())["noise_key"]
    assert job_processes.run(folder, *command) == 0
    record = read_record(folder / "record.json")
    assert (record.restarts, record.mechanism["lost_steps"]) == (1, 0)
    assert sum(entry["steps"] for entry in record.mechanism["ledger"]) == STEPS
    for path in folder.rglob("*"):
        assert path.is_dir() or key not in path.read_bytes().decode("latin-1")


@pytest.mark.parametrize(
    "changed", ["torch", *(pytest.param(w, marks=pytest.mark.slow) for w in ("code", "weights"))]
)
def test_where_steps_cannot_be_repeated_to_the_bit_those_lost_are_counted(changed, words, tmp_path):
    """As on a GPU, or with another library: new noise, and ε is of the old steps as well."""
    folder, command = tmp_path / "job", (*words("dpsgd"), "noise_seed=null")
    killed_after(folder, command, 3)
    reserved = max(r.last for r in read_journal(folder / "journal.jsonl"))
    known = latest(folder)
    state = json.loads((folder / "resume.json").read_text())
    state["place"][changed] = "0.0.0"  # as if it had been begun there
    (folder / "resume.json").write_text(json.dumps(state))
    # Killed before its first checkpoint, the second attempt loses nothing of the count.
    process = job_processes.start(folder, *command, RARELY)
    while json.loads((folder / "resume.json").read_text())["attempt"] == 0:
        time.sleep(0.01)
    process.kill()
    process.join()
    assert job_processes.run(folder, *command, RARELY) == 0
    record = read_record(folder / "record.json")
    lost = record.mechanism["lost_steps"]
    assert lost == reserved - known <= AHEAD
    (entry,) = record.mechanism["ledger"]
    assert entry["steps"] == STEPS + lost
    plan = record.mechanism["plan"]
    spent = epsilon([LedgerEntry(**entry)], plan["delta"], "rdp")
    planned = epsilon([LedgerEntry(**(entry | {"steps": STEPS}))], plan["delta"], "rdp")
    assert record.guarantee.epsilon == spent > planned
    assert any(f"{lost} steps" in words for words in record.guarantee.assumptions)


def test_a_threshold_that_cannot_be_repeated_to_the_bit_is_counted_as_often_as_it_was_released(
    words, tmp_path
):
    """Released after the last step, and killed before the run could say so."""
    its = ("mechanism.calibration=epsilon", "noise_seed=null", "model.prior=midway")
    folder, command = tmp_path / "job", (*words("dpsgd"), *its)
    process = job_processes.start(folder, *command)
    journal, settled = folder / "journal.jsonl", []
    while process.is_alive() and not settled:
        settled = [r for r in read_journal(journal) if r.first >= STEPS and r.sample_rate == 1.0]
        time.sleep(0.001)
    process.kill()
    process.join()
    (settled,) = settled
    state = json.loads((folder / "resume.json").read_text())
    state["place"]["torch"] = "0.0.0"  # as if it had been begun there
    (folder / "resume.json").write_text(json.dumps(state))
    assert job_processes.run(folder, *command) == 0
    record = read_record(folder / "record.json")
    entries = [LedgerEntry(**entry) for entry in record.mechanism["ledger"]]
    noise = settled.noise_multiplier
    assert sum(e.steps for e in entries if (e.noise_multiplier, e.sample_rate) == (noise, 1.0)) == 2
    assert sum(e.steps for e in entries if e.sample_rate < 1.0) >= STEPS
    plan = record.mechanism["plan"]
    assert record.guarantee.epsilon == epsilon(entries, plan["delta"], "rdp")


def test_local_dp_does_not_go_on_with_another_release_than_it_began_with(words, tmp_path):
    folder, cache = tmp_path / "job", tmp_path / "cache"
    command = (*words("ldp"), f"cache_dir={cache}")
    killed_after(folder, command, 2)
    (release,) = (path for path in (cache / "releases").iterdir() if path.is_dir())
    release.rename(cache / "mislaid")
    assert job_processes.run(folder, *command) == 1
    reason = read_record(folder / "record.json").reason
    assert "the noised images that this run began with are gone" in reason
    assert "rerun=true" in reason
    shutil.rmtree(release)
    (cache / "mislaid").rename(release)
    assert job_processes.run(folder, *command) == 0
    state = read_record(folder / "record.json")
    assert (state.status, state.mechanism["release_made_by_this_run"]) == ("completed", False)


@pytest.mark.parametrize("damage", [pytest.param("truncated", marks=pytest.mark.slow), "flipped"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_is_used(
    damage, words, whole, tmp_path
):
    folder = tmp_path / "job"
    killed_after(folder, words("dpsgd"), 4)
    newest = max(folder.glob("checkpoints/*.ckpt"))
    content = bytearray(newest.read_bytes())
    if damage == "truncated":
        del content[len(content) // 2 :]
    else:
        content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    step = latest(folder)
    assert job_processes.run(folder, *words("dpsgd"), RARELY) == 0
    printed = "".join(job_processes.printed(folder).split())
    assert newest.name in printed
    assert "damaged" in printed
    assert f"resumedafter{step - 1}steps" in printed
    assert_same(folder, whole("dpsgd"))


@pytest.mark.slow
def test_a_state_that_cannot_be_read_is_refused_and_rerun_begins_anew(words, tmp_path):
    folder = tmp_path / "job"
    killed_after(folder, words("dpsgd"), 2)
    (folder / "resume.json").write_text("{")
    assert job_processes.run(folder, *words("dpsgd")) == 1
    assert "resume.json: damaged" in read_record(folder / "record.json").reason
    assert job_processes.run(folder, *words("dpsgd"), "rerun=true") == 0
    assert {path.name for path in (folder / "superseded").iterdir()} == {"1"}
    assert (folder / "superseded" / "1" / "journal.jsonl").is_file()


@pytest.mark.slow
def test_what_is_left_without_its_key_is_put_aside(words, tmp_path):
    folder = tmp_path / "job"
    killed_after(folder, words("dpsgd"), 3)
    (folder / "resume.json").unlink()
    assert job_processes.run(folder, *words("dpsgd")) == 0
    assert "has lost its key" in " ".join(job_processes.printed(folder).split())
    record = read_record(folder / "record.json")
    assert (record.restarts, record.mechanism["ledger"][0]["steps"]) == (0, STEPS)
    assert not (folder / "superseded" / "1" / "checkpoints").exists()
    assert (folder / "config.yaml").is_file()


def test_sigterm_leaves_a_checkpoint_of_that_step_and_says_resumable(words, whole, tmp_path):
    folder, command = tmp_path / "job", words("dpsgd")
    process = job_processes.start(folder, *command, RARELY)
    while not (folder / "journal.jsonl").exists():
        time.sleep(0.005)
    process.terminate()
    process.join(600)
    assert process.exitcode == 75
    record = read_record(folder / "record.json")
    assert (record.status, "SIGTERM" in record.reason) == ("interrupted", True)
    steps = sum(entry["steps"] for entry in record.mechanism["ledger"])
    assert 0 < steps == latest(folder) < STEPS
    assert job_processes.run(folder, *command, RARELY) == 0
    assert_same(folder, whole("dpsgd"))


def test_sigterm_before_training_says_resumable_too(words, tmp_path):
    folder = tmp_path / "job"
    process = job_processes.start(folder, *words("dpsgd"), "data.train_images=4000")
    while not (folder / "config.yaml").exists():
        time.sleep(0.005)
    process.terminate()
    process.join(600)
    assert process.exitcode == 75, job_processes.printed(folder)


def test_what_is_done_is_not_run_again_unless_requested(words, tmp_path):
    folder, command = tmp_path / "job", (*words("none"), "trainer.max_epochs=1")
    assert job_processes.run(folder, *command) == 0
    first = (folder / "record.json").stat().st_mtime_ns
    assert job_processes.run(folder, *command) == 0
    assert (folder / "record.json").stat().st_mtime_ns == first
    assert "not run again" in " ".join(job_processes.printed(folder).split())
    assert job_processes.run(folder, *command, "rerun=true") == 0
    assert (folder / "record.json").stat().st_mtime_ns != first
    assert (folder / "superseded" / "1" / "record.json").stat().st_mtime_ns == first


@pytest.mark.slow
def test_what_other_code_has_done_is_run_anew(words, tmp_path):
    folder, command = tmp_path / "job", (*words("none"), "trainer.max_epochs=1")
    assert job_processes.run(folder, *command) == 0
    record = json.loads((folder / "record.json").read_text())
    assert record["environment"]["code"] == code_digest()
    record["environment"]["code"] = "000000000000"
    (folder / "record.json").write_text(json.dumps(record))
    assert job_processes.run(folder, *command) == 0
    assert "the code has changed" in " ".join(job_processes.printed(folder).split())
    assert read_record(folder / "record.json").environment["code"] == code_digest()
    assert (folder / "superseded" / "1" / "record.json").is_file()


def test_a_second_process_in_the_same_folder_changes_nothing(words, whole, tmp_path):
    folder, command = tmp_path / "job", words("dpsgd")
    process = job_processes.start(folder, *command)
    while not latest(folder):
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGSTOP)  # it must not end before the other has begun
    try:
        assert job_processes.run(folder, *command) == 75
    finally:
        os.kill(process.pid, signal.SIGCONT)
    assert "another process is running" in " ".join(job_processes.printed(folder).split())
    process.join(600)
    assert process.exitcode == 0
    assert_same(folder, whole("dpsgd"))


def noise_key(folder, *words):
    """Of a run that is killed as soon as it has one."""
    process = job_processes.start(folder, *words)
    while not (folder / "resume.json").exists() and process.is_alive():
        time.sleep(0.005)
    process.kill()
    process.join()
    return json.loads((folder / "resume.json").read_text())["noise_key"]


def test_a_noise_seed_repeats_the_noise_of_the_same_run_and_of_no_other(words, tmp_path):
    """The same noise on the same images in two runs would give the images away."""
    command = words("dpsgd")
    changes = [(), (), ("beta=2",), ("data.seed=8",), ("noise_seed=6",)]
    first, again, *others = [
        noise_key(tmp_path / str(number), *command, *change)
        for number, change in enumerate(changes)
    ]
    assert first == again
    assert len({first, *others}) == 4
    assert noise_key(tmp_path / "x", *command, "noise_seed=null") != noise_key(
        tmp_path / "y", *command, "noise_seed=null"
    )


def test_a_checkpoint_is_not_taken_for_public_weights(words, tmp_path):
    """It does not say what was spent for it: no epsilon of a run that starts there would hold."""
    command = words("dpsgd")
    killed_after(folder := tmp_path / "job", command, 3)
    checkpoint = sorted((folder / "checkpoints").glob("*.ckpt"))[-1]
    with pytest.raises(UserError, match=r"a checkpoint of a run of this program"):
        read_weights(checkpoint)
