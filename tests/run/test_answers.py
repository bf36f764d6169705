"""A whole job under local DP of features: what is asked, what is answered, what is kept of it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from dpmi.mechanisms.interview import class_part, interview
from dpmi.models.discriminant import discriminant
from dpmi.models.network import ImageNetwork, Pretrained
from dpmi.models.weights import read_state_dict, write_state_dict
from dpmi.privacy.account import Accounts
from dpmi.privacy.one_bit import RandomizedResponse, Respondents
from dpmi.run.parts import features_of, prepared_data
from dpmi.run.records.reading import read_record
from dpmi.run.screen.terminal import run_job

pytestmark = pytest.mark.usefixtures("one_thread")

N, K, BETA = 500, 3, 1.0


class NobodyLies:
    """In place of a randomized response."""

    def say(self, truths, _):
        return truths


@pytest.fixture(scope="module")
def done(composed, tmp_path_factory):
    """Two jobs, of other seeds, and their config."""
    folder = tmp_path_factory.mktemp("answers")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        write_state_dict(
            ImageNetwork("resnet18", 2).net.state_dict(), folder / "weights.safetensors"
        )
    words = (
        *("data=phantom_xray", "data.image_size=32", f"data.train_images={N}", "data.val_images=0"),
        *("data.test_images=20", "data.batch_size=all", "data.augment=none", "logger=csv"),
        *("trainer.accelerator=cpu", "mechanism=ldp_features", f"beta={BETA}"),
        *("model.train=head", "model.norm=frozen_batch", f"model.features.project={K}"),
        "model.features.drawn_classes=true",
        *("model.features.stages=[layer1]", f"model.weights={folder / 'weights.safetensors'}"),
        *("model.prior=uniform", f"cache_dir={folder / 'cache'}"),
    )
    configs = [composed(*words, f"seed={seed}") for seed in (1, 2)]
    for config in configs:
        home = folder / str(config.seed)
        home.mkdir()
        assert run_job(config, home) == "completed"
    return configs[0], folder


def test_weights_are_computed_from_answers_that_lie_as_often_as_beta_says(done):
    """The false alarm is 1e-6: five standard deviations of the number of lies."""
    config, folder = done
    cache = Path(config.cache_dir)
    (path,) = cache.glob("releases/*/pixels.npy")
    bits = np.load(path).reshape(-1).astype(bool)
    assert len(bits) == N
    data = prepared_data(config)
    state = read_state_dict(Path(config.model.weights))
    features = features_of(config, data, Pretrained("resnet18", state), Console(quiet=True), "cpu")
    respondents = Respondents(
        features.vectors["train"].double().numpy(), features.labels["train"].numpy(),
        NobodyLies(), None,
    )  # fmt: skip
    lies = []

    def ask(question):
        lies.extend(respondents(question) != bits[question.rows])
        return bits[question.rows]

    response = RandomizedResponse(BETA)
    expected = class_part(*(values.numpy() for values in features.drawn), 2)
    found = interview(N, K, 2, response.bias, ask, expected)
    plain = interview(N, K, 2, response.bias, lambda question: bits[question.rows])
    assert np.abs(found.sums - plain.sums).max() > 0.01
    p = 1 / (1 + np.exp(1 / BETA))
    assert len(lies) == N
    assert abs(np.sum(lies) - N * p) < 5 * (N * p * (1 - p)) ** 0.5

    sums, shares = torch.from_numpy(found.sums), torch.from_numpy(found.shares)
    weight, bias = discriminant(N * sums, N * shares, N * found.sum_std, 0.0)
    kept = load_file(folder / "1" / "model.safetensors")
    torch.testing.assert_close(kept["centre"], torch.from_numpy(found.centre).float())
    torch.testing.assert_close(kept["weight"], weight)
    torch.testing.assert_close(kept["bias"], bias - shares.log().float())


def test_runs_share_the_answers_and_the_account_has_them_once_by_the_image(done):
    config, folder = done
    records = [read_record(folder / str(seed) / "record.json") for seed in (1, 2)]
    assert len({record.mechanism["release"] for record in records}) == 1
    for record in records:
        guarantee = record.guarantee
        assert (guarantee.epsilon, guarantee.delta, guarantee.unit) == (1 / BETA, 0.0, "image")
        assert guarantee.adjacency == "replace-one"
        assert record.account.spending.hides_images
    (account,) = Accounts(Path(config.cache_dir)).read()
    (entry,) = account.entries.values()
    assert (entry.spending.image_epsilon, entry.status) == (1 / BETA, "completed")
