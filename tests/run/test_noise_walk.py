"""How far the noise of DP-SGD moves the weights of whole runs."""

import pytest
import torch
from hydra import compose, initialize_config_dir
from rich.console import Console
from safetensors.torch import load_file
from small_network import SMALL

from dpmi.config.folder import config_dir
from dpmi.config.schema import load_config
from dpmi.models.network import build_network
from dpmi.models.walk import noise_walk
from dpmi.run.job import Run

pytestmark = pytest.mark.usefixtures("one_thread")
# Noise so large that no image's gradient is seen in it, and nothing but it that moves a weight.
NOISE_ALONE = (
    *("mechanism=dpsgd", "beta=100", "model.prior=train"),
    *("model.average=none", "model.weight_decay=0"),
)
# Five standard errors of a standard deviation, a false alarm in 1.7 million: of 83 000 kernel
# weights, and of 792 scales and shifts.
REL, REL_OF_FEW = 0.0123, 0.126


EVERY_LAYER = "model.frozen=null"
KERNELS, SCALES_AND_SHIFTS = ("conv", "downsample.0"), ("bn", "downsample.1")


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    torch.manual_seed(3)
    state = build_network(SMALL, 2, "batch", None).net.state_dict()
    file = tmp_path_factory.mktemp("start") / "weights.pth"
    torch.save(state, file)
    return file, state


@pytest.fixture
def run(tiny, start, tmp_path, capsys):
    """Run a job to its end; returns its record, how each weight moved, and the screen."""

    def job(*words):
        overrides = [*tiny, *NOISE_ALONE, f"cache_dir={tmp_path / 'cache'}"]
        with initialize_config_dir(config_dir(), version_base="1.3"):
            config = load_config(
                compose("config", overrides=[*overrides, f"model.weights={start[0]}", *words])
            )
        (folder := tmp_path / "run").mkdir()
        record = Run(config, folder, Console(width=200)).execute()
        assert record.status == "completed", record.reason
        left = load_file(folder / "model.safetensors")

        def moved(layers):
            names = [n for n in left if any(f".{layer}" in f".{n}" for layer in layers)]
            return torch.cat([(left[n] - start[1][n]).flatten() for n in names])

        return record, moved, capsys.readouterr().out

    return job


@pytest.mark.parametrize("momentum", [0.9, 0.0])
def test_the_noise_moves_weights_as_far_as_noise_walk_allows(run, momentum):
    words = ("mechanism.noise_walk=0.003", EVERY_LAYER, f"model.momentum={momentum}")
    record, moved, screen = run(*words)
    assert float(moved(KERNELS).std()) == pytest.approx(0.003, rel=REL)
    rate = record.mechanism["learning_rate"]
    assert rate < 0.01
    assert f"learning rate {rate:.2g} in place of 0.01: mechanism.noise_walk=0.003" in screen


def test_by_default_it_moves_scales_and_shifts_by_a_twentieth_and_kernels_by_nothing(run):
    record, moved, screen = run()
    assert not moved(KERNELS).any()
    assert float(moved(SCALES_AND_SHIFTS).std()) == pytest.approx(0.05, rel=REL_OF_FEW)
    rate = record.mechanism["learning_rate"]
    assert f"learning rate {rate:.2g} in place of 0.05: mechanism.noise_walk=0.05" in screen


def test_by_default_it_moves_weights_of_which_all_are_trained_by_less(run):
    _, moved, _ = run(EVERY_LAYER)
    assert float(moved(KERNELS).std()) == pytest.approx(0.008, rel=REL)


@pytest.mark.parametrize("allowed", ["null", "1e9"])
def test_without_a_limit_or_below_it_the_learning_rate_is_the_users(run, allowed):
    rate = 0.02
    record, moved, screen = run(
        f"mechanism.noise_walk={allowed}", f"model.learning_rate={rate}", EVERY_LAYER
    )
    plan, model = record.mechanism["plan"], record.config["model"]
    noise = plan["noise_multiplier"] * plan["sensitivity"] / plan["expected_batch_size"]
    walk = noise * noise_walk(model["schedule"], plan["steps"], model["momentum"])
    assert record.mechanism["learning_rate"] == rate
    assert float(moved(KERNELS).std()) == pytest.approx(rate * walk, rel=REL)
    assert "learning rate" not in screen
