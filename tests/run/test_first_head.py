"""Whole jobs that train all layers from a head that was computed first."""

import math
import signal

import job_processes
import pytest
import small_network
import torch
from compared_runs import assert_same, killed_after, weights
from scipy import stats

from dpmi.data.prepare import prepare
from dpmi.features.projection import drawn_images
from dpmi.models.discriminant import first_head
from dpmi.models.network import ImageNetwork, build_network
from dpmi.models.weights import write_state_dict
from dpmi.privacy.statistics import class_statistics
from dpmi.run.records.reading import read_record

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = (
    *("data=phantom_xray", "data.image_size=32", "data.train_images=60", "data.val_images=10"),
    *("data.test_images=30", "data.batch_size=20", "trainer.accelerator=cpu", "logger=csv"),
    *("trainer.max_epochs=2", "trainer.checkpoint_seconds=0", "model.norm=frozen_batch"),
    *("model.train=head_then_all", "mechanism.delta=1e-3", "model.learning_rate=1e-9"),
    f"model.name={small_network.SMALL}",
)


@pytest.fixture(scope="module")
def public(tmp_path_factory):
    folder = tmp_path_factory.mktemp("public")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        state = ImageNetwork(small_network.SMALL, 2).net.state_dict()
    write_state_dict(state, folder / "weights.safetensors")
    return folder, state


@pytest.fixture(scope="module")
def words(public):
    folder, _ = public
    given = f"model.weights={folder / 'weights.safetensors'}", f"cache_dir={folder / 'cache'}"
    return lambda *more: (*SMALL, *given, *more)


def penultimate(state, images):
    """What the last layer is given, by the network that is trained, not by the feature cache's."""
    net = build_network(small_network.SMALL, 2, "frozen_batch", state).eval()
    net.net.fc = torch.nn.Identity()
    with torch.no_grad():
        return net.net((images - net.input_mean) / net.input_std)


def pixels(split):
    return torch.from_numpy(split.pixels.copy()).float() / 255


def test_training_starts_from_the_head_of_the_networks_own_features(
    public, words, composed, tmp_path
):
    """At a learning rate of nothing, what a run keeps is what it started from."""
    _, state = public
    chosen = [word for word in words("mechanism=none") if not word.startswith("mechanism.")]
    assert job_processes.run(tmp_path / "job", *chosen) == 0
    kept = weights(tmp_path / "job")
    data = prepare(composed(*chosen).data, tmp_path / "cache")
    train = data.splits["train"]
    rows = penultimate(state, pixels(train)).double()
    drawn = prepare(drawn_images(1, 32), tmp_path / "cache").splits["train"]
    length = penultimate(state, pixels(drawn)).double().norm(dim=1).median()
    rows = rows / rows.norm(dim=1, keepdim=True)
    sums = class_statistics(rows, torch.from_numpy(train.labels), 2, 1.0)
    weight, _ = first_head(sums[:-2].view(2, -1), sums[-2:], 0.0, 0.0)
    torch.testing.assert_close(kept["fc.weight"], weight / length.float(), rtol=1e-3, atol=1e-3)
    assert kept["fc.weight"].abs().max() > 0.01


def test_epsilon_counts_the_head_the_shares_and_the_steps_and_a_kill_changes_nothing(
    words, tmp_path
):
    given = words("mechanism=dpsgd", "mechanism.accountant=rdp", "noise_seed=3")
    rarely = "trainer.checkpoint_seconds=1000"
    assert job_processes.run(tmp_path / "whole", *given, rarely) == 0
    assert killed_after(tmp_path / "job", given, 2) == -signal.SIGKILL
    assert job_processes.run(tmp_path / "job", *given, rarely) == 0
    assert_same(tmp_path / "job", tmp_path / "whole")
    record = read_record(tmp_path / "whole" / "record.json")
    plan, ledger = record.mechanism["plan"], record.mechanism["ledger"]
    names = [s["name"] for s in plan["statistics"]]
    assert names == ["class_sums", "class_counts", "class_logits"]
    released = [(e["noise_multiplier"], e["sample_rate"], e["steps"]) for e in ledger]
    noises = [s["noise_multiplier"] for s in plan["statistics"]]
    steps = (plan["noise_multiplier"], plan["sample_rate"], plan["steps"])
    assert sorted(released) == sorted([*((z, 1.0, 1) for z in noises), steps])
    whole = 1 / noises[0] ** 2 / 0.10  # μ² of the budget
    mu = math.sqrt(whole)
    left = stats.norm.cdf(mu / 2 - 1 / mu) - math.e * stats.norm.cdf(-mu / 2 - 1 / mu)
    assert left == pytest.approx(1e-3, rel=1e-3)
