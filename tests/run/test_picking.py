"""What trainer=auto leaves open is picked by timing made images, once, and nothing else changes."""

import dataclasses
import io

import pytest
import torch
from rich.console import Console

from dpmi.base.errors import UserError
from dpmi.models.weights import read_state_dict
from dpmi.run.durability import resume
from dpmi.run.durability.state import RunState
from dpmi.run.job import Run
from dpmi.run.records.entry_file import STATE_FILE
from dpmi.run.records.reading import read_record
from dpmi.run.stages import picking
from dpmi.run.stages.picking import Choice, Timing, fastest

pytestmark = pytest.mark.usefixtures("one_thread")

PLAIN, LAST = Choice("32-true"), Choice("32-true", channels_last=True)
BFLOAT16 = Choice("bf16-mixed")


@pytest.fixture
def run(composed, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(resume, "noise_key", lambda *_: bytes(32))

    def make(*words, folder=None):
        folder = folder or tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir(exist_ok=True)
        console = Console(record=True, width=200, file=io.StringIO())
        config = composed(*tiny, f"cache_dir={tmp_path / 'cache'}", "mechanism=dpsgd", *words)
        record = Run(config, folder, console).execute()
        return record, folder, console.export_text()

    return make


@pytest.fixture
def clock(monkeypatch):
    """Steps take what the test says, by choice; and say which were timed."""
    timed = []

    def set_to(seconds):
        def compared(self, choices):
            timed.extend(choices)
            return {choice: seconds[choice] for choice in choices}

        monkeypatch.setattr(Timing, "compared", compared)
        return timed

    return set_to


SECONDS = {
    PLAIN: 0.4, LAST: 0.5, BFLOAT16: 0.3, dataclasses.replace(BFLOAT16, channels_last=True): 0.2,
}  # fmt: skip


@pytest.mark.parametrize(
    ("seconds", "best"),
    [
        ({PLAIN: 1.0, LAST: 1.2, BFLOAT16: 1.1}, PLAIN),
        ({PLAIN: 1.0, LAST: 0.97, BFLOAT16: 0.96}, PLAIN),  # no more than noise
        ({PLAIN: 1.0, LAST: 0.9, BFLOAT16: 0.88}, LAST),
        ({PLAIN: 1.0, LAST: 0.9, BFLOAT16: 0.5}, BFLOAT16),
        ({PLAIN: 1.0}, PLAIN),
    ],
)
def test_what_is_simplest_is_picked_unless_another_is_faster_by_more_than_noise(seconds, best):
    assert fastest(seconds) == best


def test_a_run_trains_as_it_picked_and_is_the_run_that_is_given_the_same_values(run, clock):
    """Weights to the bit: neither the noise nor the batches nor the first weights depend on it."""
    timed = clock(SECONDS)
    record, folder, printed = run("trainer=auto")
    assert record.status == "completed", record.reason
    assert set(timed) == set(SECONDS)  # compiled code is not tried on a processor
    trainer = record.config["trainer"]
    assert (trainer["precision"], trainer["channels_last"], trainer["compile"]) == (
        *("bf16-mixed", True, False),
    )
    assert record.picked["precision"] == "bf16-mixed"
    assert record.picked["seconds"][str(PLAIN)] == 0.4
    assert "trainer=auto: bf16-mixed, channels last: 200 ms a step of 10 made images" in printed
    assert read_record(folder / "record.json").picked == record.picked
    given, its_folder, _ = run("trainer.precision=bf16-mixed", "trainer.channels_last=true")
    weights, its = (read_state_dict(f / "model.safetensors") for f in (folder, its_folder))
    assert all(torch.equal(weights[name], its[name]) for name in its)
    assert given.guarantee == record.guarantee
    assert given.mechanism == record.mechanism
    assert given.picked is None
    assert given.config_digest != record.config_digest  # what was asked for differs


def test_timing_draws_from_no_generator_and_leaves_the_network_as_it_was(run, monkeypatch):
    compared, found = Timing.compared, []

    def watched(self, choices):
        before = {name: v.clone() for name, v in self._net.state_dict().items()}
        took = compared(self, choices)
        found.append(
            all(torch.equal(v, before[name]) for name, v in self._net.state_dict().items())
            and all("forward" not in layer.__dict__ for layer in self._net.modules())
        )
        return took

    monkeypatch.setattr(Timing, "compared", watched)
    state = torch.get_rng_state
    drawn = []

    settle = picking.settle

    def settled(*args):
        before = state()
        context = settle(*args)
        drawn.append(torch.equal(before, state()))
        return context

    monkeypatch.setattr(picking, "settle", settled)
    record, _, _ = run("trainer=auto")
    assert record.status == "completed", record.reason
    assert found == [True]
    assert drawn == [True]
    assert len(record.picked["seconds"]) == 4
    assert all(took > 0 for took in record.picked["seconds"].values())


def test_a_run_that_is_resumed_picks_what_it_had_picked(run, clock, monkeypatch):
    clock(SECONDS)
    fails = picking.Timing
    monkeypatch.setattr("dpmi.run.job.training.train", _stop)
    record, folder, _ = run("trainer=auto")
    assert record.status == "failed"
    state = RunState.model_validate_json((folder / STATE_FILE).read_text())
    assert state.picked["precision"] == "bf16-mixed"
    monkeypatch.undo()
    monkeypatch.setattr(resume, "noise_key", lambda *_: bytes(32))

    def never(self, choices):
        raise AssertionError("timed again")

    monkeypatch.setattr(fails, "compared", never)
    record, _, printed = run("trainer=auto", folder=folder)
    assert record.status == "completed", record.reason
    assert record.config["trainer"]["precision"] == "bf16-mixed"
    assert "trainer=auto: bf16-mixed, channels last" in printed


def _stop(*_):
    raise UserError("stopped")


def test_what_is_given_is_not_picked(run, clock):
    timed = clock(SECONDS)
    record, _, _ = run("trainer=auto", "trainer.precision=32-true", "trainer.compile=false")
    assert set(timed) == {PLAIN, LAST}
    assert record.config["trainer"]["precision"] == "32-true"


def test_a_noise_seed_and_a_pick_do_not_go_together(composed):
    with pytest.raises(UserError, match=r"trainer\.precision=auto: noise_seed repeats a run"):
        composed("trainer=auto", "noise_seed=1")


def test_where_memory_runs_out_fewer_images_are_timed(composed, monkeypatch):
    config = composed("trainer=auto", "data.image_size=32", "data.batch_size=16")
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(32 * 32, 2))
    timing = Timing(config, net, 1, 2, torch.device("cpu"))
    assert timing.images == 16

    def hungry(choice):
        def step():
            if timing.images > 4:
                raise torch.OutOfMemoryError("no memory")

        return step

    monkeypatch.setattr(timing, "_step", hungry)
    assert set(timing.compared([PLAIN, LAST])) == {PLAIN, LAST}
    assert timing.images == 4
