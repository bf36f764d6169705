import dataclasses

import pytest
import pytorch_lightning as L
import torch
from torch import nn

from dpmi.base.errors import UserError
from dpmi.config.beta import check_beta
from dpmi.data.datamodule import ImageDataModule
from dpmi.mechanisms import DPSGD, LocalDP, NonPrivate, build_mechanism
from dpmi.mechanisms.frozen_norm import frozen_batch_norm_grad_sampler
from dpmi.models.classifier import ImageClassifier
from dpmi.models.network import build_network
from dpmi.models.norms import FrozenStatisticsBatchNorm
from dpmi.privacy.accounting import epsilon
from dpmi.privacy.guarantee import REPEATABLE, Group
from dpmi.privacy.ledger import LedgerEntry
from dpmi.privacy.statistics import TrainingSet
from dpmi.run.matching import find_threshold

pytestmark = pytest.mark.usefixtures("one_thread")


def frozen_layer(channels=3):
    torch.manual_seed(0)
    source = nn.BatchNorm2d(channels)
    for values in (source.running_mean, source.weight, source.bias):
        nn.init.normal_(values)
    nn.init.uniform_(source.running_var, 0.2, 3.0)
    return FrozenStatisticsBatchNorm(source)


@pytest.mark.parametrize("frozen", [(), ("weight",), ("bias",)])
def test_per_example_gradients_of_a_frozen_batch_norm_equal_autograd(frozen):
    layer = frozen_layer()
    for name in frozen:
        getattr(layer, name).requires_grad_(False)
    images, upstream = torch.randn(4, 3, 5, 6), torch.randn(4, 3, 5, 6)
    samples = frozen_batch_norm_grad_sampler(layer, [images], upstream)
    trainable = [parameter for parameter in layer.parameters() if parameter.requires_grad]
    assert set(samples) == set(trainable)
    for example in range(4):
        output = layer(images[example : example + 1])
        expected = torch.autograd.grad(output, trainable, upstream[example : example + 1])
        for parameter, gradient in zip(trainable, expected, strict=True):
            torch.testing.assert_close(samples[parameter][example], gradient)


def test_a_config_makes_the_mechanism_it_names(composed):
    kinds = {"none": NonPrivate, "ldp": LocalDP, "dpsgd": DPSGD}
    for name, kind in kinds.items():
        mechanism = build_mechanism(composed(f"mechanism={name}", "data.batch_size=10"), 100)
        assert type(mechanism) is kind
        assert mechanism.name == name


def test_the_plan_is_the_configs(composed):
    config = composed(
        *(
            "mechanism=dpsgd",
            "model.prior=train",
            "beta=2",
            "mechanism.delta=1e-3",
            "max_grad_norm=0.7",
        ),
        *("mechanism.accountant=rdp", "data.batch_size=30", "trainer.max_epochs=5"),
    )
    plan = build_mechanism(config, 100).plan
    assert (plan.n, plan.expected_batch_size, plan.sample_rate) == (100, 30, 0.3)
    assert (plan.max_grad_norm, plan.delta, plan.accountant) == (0.7, 1e-3, "rdp")
    assert plan.steps == 5 * 3  # an epoch is round(n / batch) Poisson batches
    spent = epsilon([LedgerEntry(plan.noise_multiplier, 0.3, 15)], 1e-3, "rdp")
    assert 0.499 <= spent <= 0.5


def test_beta_is_the_noise_multiplier_where_requested(composed):
    config = composed(
        "mechanism=dpsgd",
        "model.prior=train",
        "mechanism.calibration=noise_multiplier",
        "beta=3",
        "data.batch_size=10",
    )
    assert build_mechanism(config, 100).plan.noise_multiplier == 3.0


@pytest.mark.parametrize("prior", ["train", "uniform", "midway"])
@pytest.mark.parametrize(
    ("train", "centre"), [("all", False), ("head", False), ("head", True), ("head_then_all", True)]
)
def test_without_an_epsilon_to_share_what_a_plan_would_drop_is_refused_with_the_config(
    composed, prior, train, centre
):
    """No statistic that a run releases beside its steps is ever missing in its plan."""
    config = composed("mechanism=dpsgd", "model.prior=train", "beta=3", "data.batch_size=10")
    features = config.model.features.model_copy(update={"centre": centre})
    changed = {"prior": prior, "train": train, "features": features}
    dpsgd = config.mechanism.model_copy(update={"calibration": "noise_multiplier"})
    unchecked = config.model_copy(
        update={"model": config.model.model_copy(update=changed), "mechanism": dpsgd}
    )
    images = TrainingSet(torch.arange(100) % 2, 2, torch.eye(100))
    if (prior, train, centre) in [("train", "all", False), ("train", "head", False)]:
        check_beta(unchecked)
        plan = build_mechanism(unchecked, 100, train=images).plan
        assert (plan.noise_multiplier, plan.statistics) == (3.0, ())
    else:
        with pytest.raises(ValueError, match="there is no ε of which statistics"):
            check_beta(unchecked)
        with pytest.raises(ValueError, match="no ε of which"):
            build_mechanism(unchecked, 100, train=images)


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["data.batch_size=101"], r"^data\.batch_size=101: .*1 to 100, or all$"),
        (["mechanism.delta=0.01"], r"^mechanism\.delta=0\.01: .*below 1/n = 0\.01, or auto$"),
        (["beta=1e9"], r"^beta=1000000000\.0: no noise was found"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_plan_that_fits_no_data_is_refused_in_one_line(composed, overrides, line):
    config = composed("mechanism=dpsgd", "model.prior=train", "data.batch_size=10", *overrides)
    with pytest.raises(UserError, match=line):
        build_mechanism(config, 100)


def build(composed, n, *overrides):
    """A mechanism for n images in batches of 16, ε by RDP, which any noise is quick for."""
    return build_mechanism(
        composed(
            *(
                "mechanism=dpsgd",
                "model.prior=train",
                "mechanism.accountant=rdp",
                "data.batch_size=16",
            ),
            *("mechanism.calibration=noise_multiplier", "noise_seed=1"),
            *("max_physical_batch_size=16", *overrides),
        ),
        n,
    )


def released(mechanism, steps):
    """A network to which so many noised gradients were handed out."""
    gradient = mechanism.make_gradient(nn.Sequential(nn.Flatten(), nn.Linear(16, 2)))
    for _ in range(steps):
        gradient(torch.rand(4, 1, 4, 4), torch.tensor([0, 1, 0, 1]))
    return mechanism


def test_the_guarantee_states_stricter_deltas_the_other_adjacency_and_whole_patients(composed):
    groups = {"largest_patient": 5, "median_patient": 2, "copies": 1}
    config = composed(
        *(
            "mechanism=dpsgd",
            "model.prior=train",
            "mechanism.calibration=noise_multiplier",
            "beta=2",
        ),
        *("data.batch_size=16", "max_physical_batch_size=16"),
    )
    promise = released(build_mechanism(config, 64, together=groups), 3).guarantee()
    entries = [LedgerEntry(2.0, 0.25, 3)]
    assert promise.delta == 1e-3  # the largest power of ten below 1/640
    assert promise.epsilons == {"1e-5": epsilon(entries, 1e-5, "prv"),
                                "1e-6": epsilon(entries, 1e-6, "prv")}  # fmt: skip
    assert promise.replace_one_epsilon == epsilon(entries, 1e-3, "prv", "replace-one")
    assert promise.private == {
        name: Group(images, epsilon(entries, 1e-3, "prv", images=images))
        for name, images in groups.items()
    }
    assert promise.private["copies"].epsilon == promise.epsilon < promise.epsilons["1e-5"]
    assert not any("at least" in words for words in promise.assumptions)
    for part in ("depends on the data", "validation and test images"):
        assert any(part in words for words in promise.assumptions)


def test_noise_that_noise_seed_repeats_gives_no_guarantee(composed):
    mechanism = released(build(composed, 64), 1)
    assert mechanism.guarantee().epsilon is None
    assert mechanism.guarantee().reason == REPEATABLE
    assert mechanism.spent() is None
    assert mechanism.describe()["ledger"]  # what ran is told all the same


def test_a_delta_that_lets_an_image_be_published_too_often_is_warned_of(composed, caplog):
    for delta, warned in (("1e-3", False), ("2e-3", True)):
        caplog.clear()
        build(composed, 64, f"mechanism.delta={delta}")
        assert ("with probability 0.13 would satisfy it" in caplog.text) == warned


def test_the_guarantee_is_of_what_was_executed_and_not_of_the_plan(composed):
    mechanism = build(composed, 64, "beta=2", "trainer.max_epochs=5", "noise_seed=null")
    assert mechanism.guarantee().epsilon is None
    assert "no step was executed" in mechanism.guarantee().reason
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    gradient = mechanism.make_gradient(net)
    found = []
    for _ in range(3):
        gradient(torch.rand(4, 1, 4, 4), torch.tensor([0, 1, 0, 1]))
        found.append(mechanism.guarantee().epsilon)
    assert found == [epsilon([LedgerEntry(2.0, 0.25, k)], 1e-3, "rdp") for k in (1, 2, 3)]
    planned = epsilon([LedgerEntry(2.0, 0.25, 20)], 1e-3, "rdp")
    assert found[-1] < planned
    assert mechanism.describe()["ledger"] == [
        {"noise_multiplier": 2.0, "sample_rate": 0.25, "steps": 3}
    ]
    assert mechanism.describe()["plan"]["steps"] == 20


def test_only_gradients_are_released_and_the_images_stay_as_they_are(composed, stripes):
    data = stripes()
    assert build(composed, 64).release_data(data) is data


def trained_accuracy(composed, data, noise_multiplier):
    """Train and test accuracy of a ResNet-18 from random weights, trained by DP-SGD."""
    L.seed_everything(0, verbose=False)
    n = len(data.splits["train"].labels)
    mechanism = build(composed, n, f"beta={noise_multiplier}", "trainer.max_epochs=2")
    model = ImageClassifier(
        build_network("resnet18", 2, "group", None),
        classes=data.classes,
        graded=False,
        make_gradient=mechanism.make_gradient,
        learning_rate=0.1,
        weight_decay=0.0,
        momentum=0.0,
    )
    batches = ImageDataModule(
        data,
        image_size=data.size,
        batch_size=32,
        augment="none",
        num_workers=0,
        seed=0,
        train_batches=mechanism.train_batches(),
    )
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=2,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        use_distributed_sampler=False,
    )
    trainer.fit(model, batches)
    find_threshold(model, trainer, mechanism, batches.train_eval_dataloader(), data, data.size)
    trainer.test(model, batches.test_dataloader(), verbose=False)
    metrics = trainer.callback_metrics
    return float(metrics["nonprivate/train/accuracy"]), float(metrics["test/accuracy"])


@pytest.mark.slow
def test_a_huge_noise_multiplier_brings_accuracy_to_chance(composed, stripes):
    """Two equal classes: chance is one half. The same set-up without much noise learns them."""
    data = stripes(train=64)
    assert min(trained_accuracy(composed, data, 0.05)) > 0.9
    for accuracy in trained_accuracy(composed, data, 1000):
        assert abs(accuracy - 0.5) < 0.15


def test_a_mechanism_refuses_a_plan_changed_behind_its_back(composed):
    plan = build(composed, 64).plan
    with pytest.raises(dataclasses.FrozenInstanceError):
        plan.noise_multiplier = 0.0


def test_the_size_of_pieces_is_chosen_when_training_starts_and_recorded(composed):
    mechanism = build(composed, 64, "max_physical_batch_size=auto", "data.image_size=32")
    assert mechanism.describe()["physical_batch_size"] is None
    gradient = mechanism.make_gradient(build_network("resnet18", 2, "group", None))
    assert gradient.physical_batch_size == 32  # twice the expected batch: memory is at hand
    assert mechanism.describe()["physical_batch_size"] == 32
