import json
import os
import re
import signal
import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpmi.base.errors import UserError
from dpmi.launch.local_pool import make_slots
from dpmi.run.records.reading import read_records
from dpmi.run.screen.status import read_status
from tests.launch.probe import ENDLESS, KILLED, NOISY

PROBE = ("-m", "tests.launch.probe")
POOL = ("-m", "hydra/launcher=local_pool")
CPU = ("trainer.accelerator=cpu", "model.weights=null", "logger=csv")


@given(st.integers(1, 9), st.integers(1, 64), st.none() | st.integers(1, 9), st.integers(1, 3))
def test_no_two_slots_share_a_gpu_or_a_core(gpus, cores, jobs, devices):
    names = [f"GPU-{i}" for i in range(gpus)]
    most = gpus // devices
    if most == 0 or (jobs is not None and jobs > most):
        message = rf"jobs={'null' if jobs is None else jobs}: the {gpus} GPUs here are enough for "
        with pytest.raises(UserError, match=message):
            make_slots(jobs, names, range(cores), devices)
        return
    slots = make_slots(jobs, names, range(cores), devices)
    assert len(slots) == (jobs or most)
    shown = [gpu for slot in slots for gpu in slot.gpu.split(",")]
    assert len(shown) == len(set(shown)) == devices * len(slots)
    taken = [core for slot in slots for core in slot.cores]
    if cores >= len(slots):
        assert sorted(taken) == list(range(cores))
        assert all(slot.threads <= len(slot.cores) for slot in slots)
    else:
        assert not taken  # all share all
        assert {slot.threads for slot in slots} == {1}


@pytest.mark.parametrize(
    ("jobs", "message"),
    [
        ("0", "hydra.launcher.jobs=0: allowed is a whole number of at least 1"),
        ("-1", "hydra.launcher.jobs=-1: allowed is a whole number"),
        ("two", "hydra.launcher.jobs=two: allowed is a whole number"),
        ("1.5", "hydra.launcher.jobs=1.5: allowed is a whole number"),
        ("null", "no GPU is used here; give the number"),
    ],
)
def test_a_mistake_is_one_line_before_anything_is_written(place, jobs, message):
    done = place.train(*POOL, "beta=1,2", *CPU, f"hydra.launcher.jobs={jobs}")
    assert done.returncode == 2
    assert re.fullmatch(r"error: [^\n]+\n", done.stderr)
    assert message in done.stderr
    assert place.files(place.cwd) == set()


def test_a_launcher_without_a_sweep_is_refused(place):
    done = place.train("hydra/launcher=local_pool", *CPU)
    assert done.returncode == 2
    assert "-m" in done.stderr
    assert place.files(place.cwd) == set()


@pytest.mark.slow
def test_each_job_has_a_gpu_to_itself_from_before_torch_is_imported(place):
    """With the names of GPUs that are not there: nothing is computed on them."""
    seeds = ("-m", "seed=1,2,3,4")
    done = place.run(*POOL, *seeds[1:], command=PROBE, PROBE_GPUS="5,7", OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    facts = [json.loads(path.read_text()) for path in place.outputs.glob("*/*/facts.json")]
    assert len(facts) == 4
    assert not any(fact["torch came with the job"] for fact in facts)
    assert {fact["gpu"] for fact in facts} == {"5", "7"}
    for gpu in ("5", "7"):
        on_it = sorted((f["began"], f["ended"]) for f in facts if f["gpu"] == gpu)
        assert len(on_it) >= 2
        assert all(first[1] <= then[0] for first, then in pairwise(on_it))
    both = [[f for f in facts if f["gpu"] == gpu] for gpu in ("5", "7")]
    assert any(
        a["began"] < b["ended"] and b["began"] < a["ended"] for a in both[0] for b in both[1]
    )  # at the same time
    assert len({fact["pid"] for fact in facts}) == 4


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="there is one core to share out")
def test_the_cores_are_shared_out_among_jobs_on_the_processor(place):
    words = ("seed=1,2", *CPU, "hydra.launcher.jobs=2")
    done = place.run(*POOL, *words, command=PROBE, OMP_NUM_THREADS="", PROBE_THREADS="1")
    assert done.returncode == 0, done.stderr
    one, two = (json.loads(path.read_text()) for path in place.outputs.glob("*/*/facts.json"))
    assert one["gpu"] == two["gpu"] == ""
    assert not set(one["cores"]) & set(two["cores"])
    assert sorted(one["cores"] + two["cores"]) == sorted(os.sched_getaffinity(0))
    for fact in (one, two):
        assert fact["threads"] <= len(fact["cores"])
        assert fact["cwd"] == str(place.cwd)  # relative paths mean there what they mean here


def test_a_job_that_dies_takes_no_other_along_and_is_reported(place):
    words = (f"seed=1,{KILLED},{NOISY},2", *CPU, "hydra.launcher.jobs=2")
    done = place.run(*POOL, *words, command=PROBE)
    assert done.returncode == 1
    assert "Traceback" not in done.stdout + done.stderr
    assert len(list(place.outputs.glob("*/*/facts.json"))) == 4
    failed = {r.config["seed"]: r for r in read_records(place.outputs)}
    assert {seed: record.status for seed, record in failed.items()} == {
        KILLED: "failed", NOISY: "failed",
    }  # fmt: skip
    assert "killed by SIGKILL" in failed[KILLED].reason
    assert "status 3" in failed[NOISY].reason
    assert failed[KILLED].guarantee is None
    for seed in (KILLED, NOISY):
        assert f"seed={seed}  failed: {failed[seed].reason}" in done.stdout
    (log,) = place.outputs.glob(f"*/*seed{NOISY}*/probe.log")
    assert "a library's last words" in log.read_text()


@pytest.fixture
def two_endless(place):
    """A sweep of three endless jobs, of which two have begun."""
    words = (f"seed={ENDLESS}", "beta=1,2,3", *CPU, "hydra.launcher.jobs=2")
    process = place.start(*POOL, *words, command=PROBE)
    deadline = time.monotonic() + 600
    while len(list(place.outputs.glob("*/*/facts.json"))) < 2:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    time.sleep(0.3)
    place.pids = [json.loads(p.read_text())["pid"] for p in place.outputs.glob("*/*/facts.json")]
    yield process
    process.kill()
    process.communicate()


def all_gone(pids):
    deadline = time.monotonic() + 300
    while any(running(pid) for pid in pids):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def running(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_ctrl_c_interrupts_all_jobs_and_starts_no_more(place, two_endless):
    two_endless.send_signal(signal.SIGINT)
    out, err = two_endless.communicate(timeout=600)
    assert two_endless.returncode == 130, err
    assert err == "interrupted\n"
    assert "Traceback" not in out
    assert len(list(place.outputs.glob("*/*/interrupted"))) == 2
    assert len(list(place.outputs.glob("*/*/facts.json"))) == 2
    assert all_gone(place.pids)


def test_sigterm_ends_all_jobs_with_the_status_that_says_resumable(place, two_endless):
    two_endless.terminate()
    out, err = two_endless.communicate(timeout=600)
    assert two_endless.returncode == 75, (out, err)
    assert "Traceback" not in out + err
    assert all_gone(place.pids)


def test_jobs_do_not_outlive_a_sweep_that_is_killed(place, two_endless):
    two_endless.kill()
    two_endless.communicate(timeout=600)
    assert all_gone(place.pids)


@pytest.mark.slow
def test_the_others_complete_when_a_training_job_is_killed_which_then_goes_on(place, tiny):
    """The real thing: the table shows the failed cell, the exit status tells."""
    words = ("mechanism=ldp", "beta=1,2", "hydra.launcher.jobs=2", "trainer.checkpoint_seconds=0.5")
    longer = [word.replace("max_epochs=1", "max_epochs=6") for word in tiny]
    longer.append("model.name=resnet18")  # long enough to be found at work
    process = place.start(*POOL, *words, *longer)
    try:
        deadline = time.monotonic() + 600
        while not (victim := training(place)):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        os.kill(victim, signal.SIGKILL)
        out, err = process.communicate(timeout=240)
    finally:
        process.kill()
    assert process.returncode == 1, err
    assert "Traceback" not in out + err
    assert sorted(r.status for r in read_records(place.outputs)) == ["completed", "failed"]
    assert "SIGKILL" in out[out.index("accuracy by") :]
    assert re.search(r"β=[12]  epoch 1/6  val accuracy \S+  ε \S+ per \w+  \S+ left", out)
    again = place.run(*POOL, *words, *longer)
    assert again.returncode == 0, (again.stdout, again.stderr)
    records = read_records(place.outputs)
    assert [(r.status, r.restarts) for r in sorted(records, key=lambda r: r.restarts)] == [
        ("completed", 0), ("completed", 1),
    ]  # fmt: skip
    assert not list(place.outputs.rglob("status.*"))


def training(place):
    """Process of a job that is training."""
    statuses = [read_status(path) for path in place.outputs.glob("*/*")]
    return next((status.pid for status in statuses if status and status.epochs_done >= 2), None)
