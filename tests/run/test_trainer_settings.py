"""Precision, memory format and compilation, in whole runs."""

import pytest
import torch
from rich.console import Console

from dpmi.models.weights import read_state_dict
from dpmi.run.durability import resume
from dpmi.run.job import Run

pytestmark = pytest.mark.usefixtures("one_thread")

MECHANISMS = {
    "none": ("mechanism=none",),
    "fast": ("mechanism=dpsgd",),
    "opacus": ("mechanism=dpsgd", "mechanism.engine=opacus"),
    "published": (
        *("mechanism=dpsgd_published", "model.norm=batch", "data.batch_size=32"),
        *("mechanism.microbatches.phantom_xray=4", "beta=2"),
    ),
}


@pytest.fixture
def trained(composed, tiny, tmp_path, monkeypatch):
    """Run, and return the record and the flat weights; all runs of a test with the same noise."""
    monkeypatch.setattr(resume, "noise_key", lambda *_: bytes(32))

    def run(*words):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        chosen = (*tiny, f"cache_dir={tmp_path / 'cache'}", *words)
        record = Run(composed(*chosen), folder, Console(quiet=True)).execute()
        assert record.status == "completed", record.reason
        state = read_state_dict(folder / "model.safetensors")
        return record, torch.cat([v.flatten().double() for v in state.values() if v.ndim])

    return run


def apart(a, b):
    return ((a - b).norm() / b.norm()).item()


@pytest.mark.parametrize(
    "mechanism",
    [pytest.param(m, marks=[pytest.mark.slow] * (m != "fast")) for m in MECHANISMS],
)
def test_bfloat16_changes_the_rounding_and_not_the_promise(trained, mechanism):
    # Two small steps, so that rounding stays small.
    words = ("model.learning_rate=0.001", "data.train_images=20", *MECHANISMS[mechanism])
    record, weights = trained(*words)
    rounded, rounded_weights = trained("trainer.precision=bf16-mixed", *words)
    assert 0 < apart(rounded_weights, weights) < 0.05
    assert rounded.guarantee == record.guarantee
    assert rounded.mechanism == record.mechanism  # the ledger, among others


@pytest.mark.slow
def test_channels_last_trains_the_same_network(trained):
    _, weights = trained("mechanism=dpsgd")
    _, changed = trained("mechanism=dpsgd", "trainer.channels_last=true")
    assert apart(changed, weights) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("mechanism", ["none", "fast"])
def test_compiled_code_trains_the_same_network(trained, mechanism):
    record, weights = trained(*MECHANISMS[mechanism])
    compiled, changed = trained("trainer.compile=true", *MECHANISMS[mechanism])
    assert apart(changed, weights) < 1e-4
    assert compiled.guarantee == record.guarantee
