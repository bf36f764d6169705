"""Without a SLURM: by submitit's local executor, which runs the same code in processes here."""

import json
import os
import re
import signal
import time

import pytest

from dpmi.run.records.reading import read_records
from dpmi.run.screen.status import read_status
from tests.launch.probe import KILLED

CPU = ("trainer.accelerator=cpu", "model.weights=null", "logger=csv")
SLURM = ("-m", "hydra/launcher=submitit_slurm")
LOCAL = (*SLURM, "hydra.launcher.cluster=local")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["cluster=pbs"], "cluster=pbs: allowed are slurm and local"),
        (["cluster=slurm"], "cluster=slurm: no SLURM here"),
        (["minutes=null"], "minutes=None: allowed is a whole number of at least 1"),
        (["memory_gb=0"], "memory_gb=0: allowed is a whole number of at least 1, or null"),
        (["gpus=-1"], "gpus=-1: allowed is a whole number of at least 0, or null"),
    ],
    ids=str,
)
def test_a_mistake_is_one_line_before_anything_is_written(place, words, message):
    done = place.train(*SLURM, "beta=1,2", *CPU, *[f"hydra.launcher.{word}" for word in words])
    assert done.returncode == 2
    assert re.fullmatch(r"error: [^\n]+\n", done.stderr)
    assert f"hydra.launcher.{message}" in done.stderr
    assert place.files(place.cwd) == set()


@pytest.mark.slow
def test_a_job_that_dies_takes_no_other_along_and_is_reported(place):
    words = (f"seed=1,{KILLED},2", *CPU)
    done = place.run(*LOCAL, *words, command=("-m", "tests.launch.probe"))
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    facts = list(place.outputs.glob("*/*/facts.json"))
    assert len(facts) == 3
    assert sum('"ended"' in path.read_text() for path in facts) == 2
    assert all(json.loads(path.read_text())["cwd"] == str(place.cwd) for path in facts)
    (record,) = read_records(place.outputs)
    assert (record.config["seed"], record.status) == (KILLED, "failed")
    assert "its process died" in record.reason


@pytest.mark.slow
def test_a_job_that_is_preempted_is_queued_again_and_goes_on(place, tiny):
    longer = [word.replace("max_epochs=1", "max_epochs=6") for word in tiny]
    longer.append("model.name=resnet18")  # long enough to be found at work
    words = (
        "mechanism=dpsgd",
        "mechanism.accountant=rdp",
        "beta=1,2",
        "trainer.checkpoint_seconds=0.5",
    )
    process = place.start(*LOCAL, *words, *longer)
    try:
        deadline = time.monotonic() + 540
        preempted = None
        while process.poll() is None:
            assert time.monotonic() < deadline
            for folder in place.outputs.glob("*/*-seed42-*"):
                status = read_status(folder)
                if preempted is None and status and status.epochs_done >= 2:
                    preempted = folder
                    os.kill(status.pid, signal.SIGUSR2)  # as SLURM does before it kills
            time.sleep(0.1)
        out, err = process.communicate()
    finally:
        process.kill()
    assert process.returncode == 0, (out, err)
    records = read_records(place.outputs)
    assert [record.status for record in records] == ["completed"] * 2
    assert sorted(record.restarts for record in records) == [0, 1]
    assert re.search(r"resumed after [1-9]\d* steps", (preempted / "train.log").read_text())
    for record in records:
        (entry,) = record.mechanism["ledger"]
        assert entry["steps"] == record.mechanism["plan"]["steps"]
