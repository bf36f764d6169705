"""A step gives its work to a device and reads nothing back, so that nothing waits.

There need be no device: a run on the processor takes the ways that it would take on one, and
whatever reads a tensor's value, or makes a tensor whose size depends on one, is counted.
"""

import numpy as np
import pytest
import pytorch_lightning as L
import torch
from rich.console import Console
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from dpmi.base import devices
from dpmi.data.prepare import DataFingerprint, PreparedData, Split
from dpmi.run.durability import resume
from dpmi.run.given import Given
from dpmi.run.job import Run
from dpmi.run.screen import status_file

pytestmark = pytest.mark.usefixtures("one_thread")

LOOKS_EVERY = 4
READS = {"item", "__bool__", "__float__", "__int__", "__index__", "__complex__", "tolist", "cpu"}
WAITS = {
    *("aten::_local_scalar_dense", "aten::nonzero", "aten::is_nonzero", "aten::equal"),
    *("aten::masked_select", "aten::_unique2", "aten::unique_dim", "aten::bincount"),
    "aten::repeat_interleave.Tensor",
}


class Counted(TorchFunctionMode):
    def __init__(self, found):
        super().__init__()
        self.found = found

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if getattr(func, "__name__", "") in READS:
            self.found.append(func.__name__)
        return func(*args, **(kwargs or {}))


class CountedBelow(TorchDispatchMode):
    def __init__(self, found):
        super().__init__()
        self.found = found

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.name()
        if name.startswith(("aten::index.", "aten::index_put")):  # by a mask: nonzero within
            if any(i is not None and i.dtype == torch.bool for i in args[1]):
                self.found.append(name)
        elif name in WAITS:
            self.found.append(name)
        return func(*args, **(kwargs or {}))


class Steps(L.Callback):
    """Sorts what is found by steps, each with all that follows until the next begins."""

    def __init__(self):
        self.found, self.of = [], {}

    def on_train_batch_start(self, trainer, *_):
        self.of[trainer.global_step] = self._taken()

    def on_train_epoch_end(self, trainer, *_):
        self.of[trainer.global_step] = self._taken()

    def _taken(self):
        taken = list(self.found)
        self.found.clear()
        return taken


@pytest.fixture
def run(composed, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(resume, "noise_key", lambda *_: bytes(32))

    def make(*words, steps=None):
        generator = np.random.default_rng(0)
        splits = {
            name: Split(
                generator.integers(0, 256, (size, 1, 32, 32), dtype=np.uint8),
                np.arange(size) % 2,
                ("",) * size,
            )
            for name, size in (("train", 60), ("test", 10))
        }
        print_ = DataFingerprint("0" * 64, 32, 1, {}, {}, 0, 0, 0, 0, None, None, 1)
        data = PreparedData("noise", ("a", "b"), False, 1, 32, splits, print_)
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        config = composed(
            *(*tiny, "data.augment=affine", "data.resident=true", "data.num_workers=0"),
            *("trainer.max_epochs=2", f"cache_dir={tmp_path / 'cache'}", *words),
        )
        given = Given(data, None, (steps,) if steps else ())
        record = Run(config, folder, Console(quiet=True), given=given).execute()
        assert record.status == "completed", record.reason
        return record

    return make


@pytest.mark.parametrize(
    "words",
    [
        ("mechanism=dpsgd",),
        pytest.param(
            ("mechanism=dpsgd", "trainer.precision=bf16-mixed", "model.average=last_half"),
            marks=pytest.mark.slow,
        ),
        ("mechanism=dpsgd", "data.multiplicity=2"),
        ("mechanism=none",),
    ],
    ids=" ".join,
)
def test_no_step_waits_but_those_whose_values_are_logged(run, words, monkeypatch):
    monkeypatch.setattr(devices, "on_host", lambda tensor: False)
    monkeypatch.setattr("dpmi.run.stages.training.steps_between_looks", lambda _: LOOKS_EVERY)
    monkeypatch.setattr(status_file, "INTERVAL_SECONDS", 1e9)  # it looks once a second
    # Of a device it is a copy on the host that is read: here the tensor itself.
    monkeypatch.setattr(devices.Later, "read", lambda later: later._value.numpy())
    steps = Steps()
    with Counted(steps.found), CountedBelow(steps.found):
        run(*words, steps=steps)
    if "mechanism=none" in words:  # the order in which images are shuffled is on the processor
        steps.of = {step: [f for f in found if f != "tolist"] for step, found in steps.of.items()}
    per_epoch = 6
    for step, found in steps.of.items():
        if step % per_epoch and step % LOOKS_EVERY:
            assert found == [], (step, found)
    assert steps.of[LOOKS_EVERY]  # there the loss is read: what reads is seen


def test_what_is_released_and_recorded_is_the_same_whether_anything_waits(run, monkeypatch):
    words = ("mechanism=dpsgd", "model.learning_rate=0.001")
    waited = run(*words)
    monkeypatch.setattr(devices, "on_host", lambda tensor: False)
    did_not = run(*words)
    assert did_not.guarantee == waited.guarantee
    assert did_not.mechanism == waited.mechanism  # plan, ledger, what was dropped
    for name in ("nonprivate/accuracy", "epsilon"):
        assert did_not.curves[name] == pytest.approx(waited.curves[name], abs=1e-6)


def test_weights_that_are_not_finite_are_refused_with_the_step_that_made_them(
    composed, tiny, tmp_path, monkeypatch
):
    """Where nothing waits, a step later; and before a checkpoint has them."""
    monkeypatch.setattr(resume, "noise_key", lambda *_: bytes(32))
    reasons = []
    for waits in (True, False):
        if not waits:
            monkeypatch.setattr(devices, "on_host", lambda tensor: False)
        folder = tmp_path / str(waits)
        folder.mkdir()
        config = composed(
            *tiny, "mechanism=none", "model.learning_rate=1e6", "trainer.checkpoint_seconds=0",
            f"cache_dir={tmp_path / 'cache'}",
        )  # fmt: skip
        record = Run(config, folder, Console(quiet=True)).execute()
        assert record.status == "failed"
        reasons.append(record.reason)
        for path in (folder / "checkpoints").glob("*.ckpt"):
            state = torch.load(path, weights_only=True)["state_dict"]
            assert all(v.isfinite().all() for v in state.values())
    assert reasons[0] == reasons[1]
    assert "the weights are not finite after step" in reasons[0]
