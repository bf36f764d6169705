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
# Of the standard deviation of 83 000 weights, five standard errors: a false alarm in 1.7 million.
REL = 0.0123


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    torch.manual_seed(3)
    state = build_network(SMALL, 2, "batch", None).net.state_dict()
    file = tmp_path_factory.mktemp("start") / "weights.pth"
    torch.save(state, file)
    return file, {n: v for n, v in state.items() if "conv" in n}


@pytest.fixture
def run(tiny, start, tmp_path, capsys):
    """Run a job to its end; returns its record, how far weights moved, and the screen."""

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
        moved = torch.cat([(left[n] - v).flatten() for n, v in start[1].items()])
        return record, float(moved.std()), capsys.readouterr().out

    return job


@pytest.mark.parametrize("momentum", [0.9, 0.0])
def test_the_noise_moves_weights_as_far_as_noise_walk_allows(run, momentum):
    record, moved, screen = run("mechanism.noise_walk=0.003", f"model.momentum={momentum}")
    assert moved == pytest.approx(0.003, rel=REL)
    rate = record.mechanism["learning_rate"]
    assert rate < record.config["model"]["learning_rate"]
    assert f"learning rate {rate:.2g} in place of 0.01: mechanism.noise_walk=0.003" in screen


@pytest.mark.parametrize("allowed", ["null", "1e9"])
def test_without_a_limit_or_below_it_the_learning_rate_is_the_users(run, allowed):
    record, moved, screen = run(f"mechanism.noise_walk={allowed}")
    plan, model = record.mechanism["plan"], record.config["model"]
    noise = plan["noise_multiplier"] * plan["sensitivity"] / plan["expected_batch_size"]
    walk = noise * noise_walk(model["schedule"], plan["steps"], model["momentum"])
    assert record.mechanism["learning_rate"] == model["learning_rate"] == 0.01
    assert moved == pytest.approx(0.01 * walk, rel=REL)
    assert "learning rate" not in screen
