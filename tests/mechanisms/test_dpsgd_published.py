import pytest
import torch
from torch import nn

from dpmi.base.errors import UserError
from dpmi.mechanisms import DPSGDAsPublished, build_mechanism
from dpmi.models.network import build_network

pytestmark = pytest.mark.usefixtures("one_thread")


def build(composed, *overrides):
    words = ("mechanism=dpsgd_published", "model.norm=batch", "model.prior=train", "noise_seed=1")
    config = composed(*words, *overrides)
    mechanism = build_mechanism(config, 5216)
    assert isinstance(mechanism, DPSGDAsPublished)
    return mechanism


@pytest.mark.parametrize(
    ("experiment", "microbatches", "noise_multipliers"),
    [
        ("as_published_pneumonia", 32, {1: 5.002, 2: 9.7, 4: 19.55}),
        ("as_published_aptos", 1, {1: 6.6, 2: 12.95, 4: 26.1}),
    ],
)
def test_the_numbers_are_the_authors_by_data_set_and_beta(
    composed, experiment, microbatches, noise_multipliers
):
    for beta, expected in noise_multipliers.items():
        found = build(composed, f"experiment={experiment}", f"beta={beta}").describe()
        assert (found["microbatches"], found["noise_multiplier"]) == (microbatches, expected)
        assert (found["max_grad_norm"], found["steps"]) == (1.0, 0)


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["beta=3"], r"^beta=3: mechanism\.noise_multipliers has no number .*allowed are 1, 2, 4$"),
        (
            ["data=medmnist", "data.name=retinamnist"],
            r"^data=retinamnist: .*no numbers.*allowed are aptos, chest_xray",
        ),
        (["model.norm=group"], r"^model\.norm=group: .*allowed is batch$"),
        (["data.batch_size=100"], r"^data\.batch_size=100: .*multiples of 32$"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_the_authors_did_not_run_is_refused_in_one_line(composed, overrides, line):
    with pytest.raises(UserError, match=line):
        composed("mechanism=dpsgd_published", "model.norm=batch", *overrides)


def test_there_is_no_guarantee_and_the_claim_stands_beside_it_as_a_claim(composed):
    promise = build(composed, "beta=2").guarantee()
    assert (promise.epsilon, promise.delta) == (None, None)
    for cause in ("microbatch", "BatchNorm", "up to 64 times max_grad_norm", "shuffled"):
        assert cause in promise.reason
    assert (promise.claim.epsilon, promise.claim.delta) == (0.5, 1e-4)
    assert str(promise).startswith("no privacy guarantee: ")


def test_batches_are_shuffled_of_a_fixed_size_and_images_stay_as_they_are(composed, stripes):
    mechanism, data = build(composed), stripes()
    assert mechanism.train_batches() is None
    assert mechanism.release_data(data) is data


@pytest.mark.slow
def test_it_trains_a_resnet_with_batch_norm_in_training_mode_and_counts_its_steps(composed):
    torch.manual_seed(0)
    mechanism = build(composed, "max_grad_norm=1")
    net = build_network("resnet18", 2, "batch", None).train()
    norm = next(layer for layer in net.modules() if isinstance(layer, nn.BatchNorm2d))
    before = norm.running_mean.clone()
    gradient = mechanism.make_gradient(net)
    logits = gradient(torch.rand(64, 1, 32, 32), torch.arange(64) % 2)
    assert logits.shape == (64, 2)
    assert not torch.equal(norm.running_mean, before)  # statistics of the images, without noise
    noise = torch.cat([p.grad.reshape(-1) for p in net.parameters()])
    # 32 microbatches of 2, each clipped to 1: their mean has a norm of 1 at most, the noise of
    # 11 million weights 5.002 / 32 each.
    assert noise.std().item() == pytest.approx(5.002 / 32, rel=0.01)
    assert mechanism.describe()["steps"] == 1
