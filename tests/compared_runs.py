"""What two runs left, compared; and runs that are killed on the way."""

import os
import signal
import time
from pathlib import Path

import job_processes
import torch
from safetensors.torch import load_file

from dpmi.models.weights import read_state_dict
from dpmi.run.records.reading import read_record


def weights(folder):
    return read_state_dict(folder / "model.safetensors")


def rows(folder):
    lines = [line.split(",") for line in (folder / "metrics.csv").read_text().splitlines()]
    (header, *body) = lines
    timed = header.index("nonprivate/step_time")
    return [
        [value for column, value in enumerate(row) if column != timed] for row in [header, *body]
    ]


def assert_same(folder, other):
    one, two = weights(folder), weights(other)
    assert one.keys() == two.keys()
    for name in one:
        assert torch.equal(one[name], two[name]), name
    first, second = (read_record(path / "record.json") for path in (folder, other))
    assert first.status == second.status == "completed"
    # Of two runs on the same images one made the release that both use.
    first.mechanism.pop("release_made_by_this_run", None)
    second.mechanism.pop("release_made_by_this_run", None)
    differs = {
        key: (value, second.mechanism.get(key))
        for key, value in first.mechanism.items()
        if value != second.mechanism.get(key)
    }
    assert not differs, differs  # the ledger among it
    assert first.mechanism.keys() == second.mechanism.keys()
    assert first.guarantee == second.guarantee
    assert first.metrics == second.metrics
    assert first.curves == second.curves
    assert first.sample == second.sample
    assert rows(folder) == rows(other)
    for left in ("resume.json", "journal.jsonl", "entry.json", "checkpoints"):
        assert not (folder / left).exists()


def killed_after(folder, words, steps, number=signal.SIGKILL):
    """Start the job, and kill it once a checkpoint of so many steps is there."""
    process = job_processes.start(folder, *words)
    try:
        while process.is_alive() and latest(folder) < steps:
            time.sleep(0.002)
        os.kill(process.pid, number)
    finally:
        process.join(600)
    return process.exitcode


def latest(folder):
    return max((int(p.name.split("-")[1]) for p in folder.glob("checkpoints/*.ckpt")), default=0)


def differences(folder: Path, other: Path) -> dict[str, float]:
    """The largest difference between the weights that two jobs left, in each layer."""

    one, two = (load_file(path / "model.safetensors") for path in (folder, other))
    assert one.keys() == two.keys()
    return {name: float((one[name] - two[name]).abs().max()) for name in one}
