"""What one image can change of a release: its own clipped gradient, and nothing of the others'."""

from __future__ import annotations

import itertools
from typing import get_args

import numpy as np
import pytest
import torch
from torch import nn

from dpmi.base.ranks import ALONE, Ranks
from dpmi.config.data_sets import PhantomData
from dpmi.config.sections import DpsgdMechanism, TrainerConfig
from dpmi.data.datamodule import ImageDataModule
from dpmi.data.prepare import DataFingerprint, PreparedData, Split
from dpmi.mechanisms import DPSGD
from dpmi.models.network import ImageNetwork
from dpmi.models.norms import convert_norms
from dpmi.privacy.plan import PrivacyPlan
from dpmi.privacy.randomness import NoiseSource

CLIP, EXPECTED = 0.05, 4
BATCH = (11, 2, 7, 5, 0, 9)  # out of order: no place equals an index
TOLERANCE = 1e-5  # of float32 sums
AUGMENTATIONS = [(name, 1) for name in get_args(PhantomData.model_fields["augment"].annotation)]
AUGMENTATIONS += [("affine", views) for views in (2, 4)]
PRECISIONS = [
    name for name in get_args(TrainerConfig.model_fields["precision"].annotation) if name != "auto"
]
ENGINES = get_args(DpsgdMechanism.model_fields["engine"].annotation)

pytestmark = pytest.mark.usefixtures("one_thread")


class OnTheCpu:
    """As much of a trainer as says where it trains."""

    class strategy:  # noqa: N801
        root_device = torch.device("cpu")


class OneOfTwo(Ranks):
    """A process whose sum stays its own, so that the test may add the two up."""

    def sum(self, tensor):
        pass

    def gather(self, *values):
        return [list(values)] * self.size


class Dropping:
    """The batch at every step; without its element number s at step s, if asked."""

    def __init__(self, drop, steps):
        self.drop, self.steps_per_epoch = drop, steps

    def draw(self, step):
        return [index for place, index in enumerate(BATCH) if not (self.drop and place == step)]


@pytest.fixture(scope="module")
def data():
    pixels = np.random.default_rng(0).integers(0, 256, (12, 1, 36, 36), dtype=np.uint8)
    split = Split(pixels, np.arange(12) % 3, ("",) * 12)
    nothing = DataFingerprint("0" * 64, 36, 1, {}, {}, 0, 0, 0, 0, None, None, 1)
    return PreparedData("noise", ("a", "b", "c"), False, 1, 36, {"train": split}, nothing)


def small_net():
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, stride=2), nn.GroupNorm(4, 8), nn.ReLU(), nn.Conv2d(8, 16, 3, stride=2),
        nn.GroupNorm(4, 16), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 7 * 7, 3),
    )  # fmt: skip


def released(data, net, batches, *, augment, precision, engine, feed, ranks):
    """(steps, P) sums of a run's steps, without their normaliser; the noise is always the same."""
    total = 0.0
    for rank in range(ranks):
        process = OneOfTwo(rank, ranks) if ranks > 1 else ALONE
        plan = PrivacyPlan(
            n=12, expected_batch_size=EXPECTED, max_grad_norm=CLIP, noise_multiplier=1e-3,
            steps=batches.steps_per_epoch, delta=1e-4, accountant="prv",
        )  # fmt: skip
        mechanism = DPSGD(
            plan, steps_per_epoch=plan.steps, max_physical_batch_size=4, input_shape=(3, 32, 32),
            engine=engine, learning_rate=0.1, noise=NoiseSource(None, key=bytes(32)), ranks=process,
        )  # fmt: skip
        place, workers = feed
        module = ImageDataModule(
            data, image_size=32, batch_size=EXPECTED, augment=augment[0], multiplicity=augment[1],
            num_workers=workers, seed=3, resident=place == "resident", train_batches=batches,
            ranks=process,
        )  # fmt: skip
        module.trainer = OnTheCpu()
        gradient, sums = mechanism.make_gradient(net), []
        for images, labels in module.train_dataloader():
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed"):
                gradient(images, labels)
            sums.append(torch.cat([p.grad.flatten() for p in net.parameters()]).double())
        gradient.close()
        total = total + EXPECTED * torch.stack(sums)
    return total


def influences(data, net, steps, **how):
    """How far the sum moves, in units of the clip norm, as each of the batch is left out."""
    with_all, without = (
        released(data, net, Dropping(drop, steps), **how) for drop in (False, True)
    )
    return (with_all - without).norm(dim=1) / CLIP


def check(influences, how):
    assert influences.max() <= 1 + TOLERANCE, (how, influences)
    assert influences.min() > 0.99, how  # all are clipped: nothing hides below the bound


@pytest.mark.parametrize("augment", AUGMENTATIONS, ids=str)
@pytest.mark.parametrize("resident", ["host", "resident"])
def test_leaving_out_any_image_moves_the_clipped_sum_by_at_most_the_clip_norm(
    data, augment, resident
):
    torch.manual_seed(0)
    net = small_net()
    for precision, engine, ranks in itertools.product(PRECISIONS, ENGINES, (1, 2)):
        how = {"precision": precision, "engine": engine, "ranks": ranks, "augment": augment}
        check(influences(data, net, len(BATCH), feed=(resident, 0), **how), how)


@pytest.mark.parametrize("augment", AUGMENTATIONS, ids=str)
def test_it_is_so_where_worker_processes_make_the_batches(data, augment):
    torch.manual_seed(0)
    how = {"precision": "32-true", "engine": "fast", "ranks": 2, "augment": augment}
    check(influences(data, small_net(), len(BATCH), feed=("host", 2), **how), how)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("views", [1, 2])
def test_it_is_so_for_resnet18(data, engine, views):
    torch.manual_seed(0)
    net = ImageNetwork("resnet18", 3)
    convert_norms(net, "group")
    how = {"precision": "32-true", "engine": engine, "ranks": 1, "augment": ("affine", views)}
    check(influences(data, net, 1, feed=("host", 0), **how), how)
