import copy
import statistics
import time

import pytest
import pytorch_lightning as L
import torch
from torch import nn
from torch.utils.data import DataLoader, Subset

from dpmi.base.errors import UserError
from dpmi.base.ranks import Ranks
from dpmi.data.batches import StepSampler
from dpmi.data.datamodule import ImageDataModule, ImageDataset
from dpmi.mechanisms import build_mechanism
from dpmi.models.classifier import ImageClassifier
from dpmi.models.gradient import MeanGradient
from dpmi.models.network import build_network
from dpmi.privacy.accounting import epsilon
from dpmi.privacy.sampling import PoissonBatches
from dpmi.run.privacy_callback import PrivacyCallback

pytestmark = pytest.mark.usefixtures("one_thread")

EPOCHS, STEPS_PER_EPOCH = 2, 4


class Small(nn.Sequential):
    """A net that takes a step in a millisecond."""

    def __init__(self):
        super().__init__(
            nn.Conv2d(1, 8, 5, stride=4), nn.GroupNorm(2, 8), nn.ReLU(), nn.Flatten(),
            nn.Linear(8 * 7 * 7, 2),
        )  # fmt: skip


class Setting:
    """All parts of a DP-SGD run, each to be exchanged for one that does not fit."""

    def __init__(self, config, data, net=None, batch_size=16):
        self.config, self.data = config, data
        self.mechanism = build_mechanism(config, len(data.splits["train"].labels))
        self.batches = ImageDataModule(
            data,
            image_size=data.size,
            batch_size=batch_size,
            augment="none",
            num_workers=0,
            seed=0,
            train_batches=self.mechanism.train_batches(),
        )
        self.model = self.classifier(net or Small(), self.mechanism.make_gradient)
        self.callback = PrivacyCallback(self.mechanism)

    def classifier(self, net, make_gradient):
        return ImageClassifier(
            net,
            classes=self.data.classes,
            graded=False,
            make_gradient=make_gradient,
            learning_rate=0.1,
            weight_decay=0.0,
            momentum=0.0,
        )

    def fit(self, *callbacks, loader=None, **changes):
        settings = {
            "accelerator": "cpu",
            "max_epochs": EPOCHS,
            "logger": False,
            "enable_checkpointing": False,
            "enable_model_summary": False,
            "enable_progress_bar": False,
            "use_distributed_sampler": False,
        }
        trainer = L.Trainer(callbacks=[self.callback, *callbacks], **(settings | changes))
        trainer.fit(self.model, loader or self.batches.train_dataloader())
        return trainer

    def refuses(self, match, *callbacks, after=0, **changes):
        """Fit is refused after so many steps, and leaves the weights of the last of them."""
        last = Last()
        with pytest.raises(UserError, match=match) as refusal:
            self.fit(last, *callbacks, **changes)
        assert "\n" not in str(refusal.value)
        assert self.mechanism.ledger.steps == after
        if after == 0:
            assert last.steps == 0


def plain(net, first_step):
    return MeanGradient(net)


class Last(L.Callback):
    steps = 0

    def on_train_batch_end(self, *_):
        self.steps += 1


class AfterStep(L.Callback):
    """Does something to the parts after so many steps."""

    def __init__(self, steps, action):
        self.steps, self.action = steps, action

    def on_train_batch_end(self, trainer, pl_module, *_):
        if trainer.global_step == self.steps:
            self.action(trainer, pl_module)


@pytest.fixture
def setting(composed, stripes):
    config = composed(
        *(
            "mechanism=dpsgd",
            "model.prior=train",
            "beta=1",
            "data.batch_size=16",
            f"trainer.max_epochs={EPOCHS}",
        ),
        "max_physical_batch_size=64",
    )
    return Setting(config, stripes())


def test_the_plan_is_executed_to_its_last_step(setting):
    setting.fit()
    assert setting.mechanism.ledger.steps == setting.mechanism.plan.steps == 8


def test_epsilon_shown_after_each_step_is_never_below_what_was_spent(setting):
    plan, found, spent = setting.mechanism.plan, [], []

    class Watch(L.Callback):
        def on_train_batch_end(self, trainer, *_):
            found.append(float(trainer.callback_metrics["epsilon"]))
            spent.append(epsilon(setting.mechanism.ledger.entries, plan.delta, plan.accountant))
            assert float(trainer.callback_metrics["delta"]) == pytest.approx(plan.delta)
            assert "epsilon" in trainer.callback_metrics

    setting.fit(Watch())
    assert len(found) == plan.steps
    for a, b in zip(found, spent, strict=True):
        assert a >= b * (1 - 1e-6)  # Lightning keeps metrics in single precision
    assert found == sorted(found)
    assert found[-1] == pytest.approx(setting.mechanism.guarantee().epsilon, rel=1e-6)
    assert found[-1] <= 1.0


def test_a_shuffled_loader_is_refused(setting):
    dataset = ImageDataset(setting.data.splits["train"], 32)
    loader = DataLoader(dataset, batch_size=16, shuffle=True, collate_fn=lambda batch: batch)
    setting.refuses("draws its batches by BatchSampler, not by the plan's", loader=loader)


def test_a_poisson_sampler_of_another_plan_is_refused(setting, composed):
    other = build_mechanism(setting.config.model_copy(update={"beta": 2.0}), 64)
    loader = DataLoader(
        ImageDataset(setting.data.splits["train"], 32),
        batch_sampler=StepSampler(other.train_batches()),
    )
    setting.refuses("not by the plan's Poisson sampler", loader=loader)


def test_a_loader_with_other_images_than_the_plan_counts_is_refused(setting):
    dataset = Subset(ImageDataset(setting.data.splits["train"], 32), range(60))
    loader = DataLoader(dataset, batch_sampler=StepSampler(setting.mechanism.train_batches()))
    setting.refuses("60 images, the plan 64", loader=loader)


def test_a_process_with_the_noise_or_the_part_of_another_is_refused(setting):
    """The noise would be in the sum twice, or not at all; images in it twice, or never."""
    dataset = ImageDataset(setting.data.splits["train"], 32)
    sampler = StepSampler(setting.mechanism.train_batches(), 0, Ranks(0, 2))
    loader = DataLoader(dataset, batch_sampler=sampler)
    setting.refuses("another process's part of a batch", loader=loader)
    setting.mechanism.ranks = Ranks(1, 2)
    setting.refuses("process 0 of 1 trains as if it were 1 of 2")


def test_lightning_does_not_exchange_the_plans_sampler(setting):
    """Left to itself, it would for more than one device."""
    trainer = setting.fit()
    assert isinstance(trainer.train_dataloader.batch_sampler.batches, PoissonBatches)


def test_a_network_with_batch_norm_is_refused(setting):
    batch_norm = build_network("resnet18", 2, "batch", None)
    setting.model = setting.classifier(batch_norm, setting.mechanism.make_gradient)
    with pytest.raises(ValueError, match="BatchNorm"):
        setting.fit()
    setting.model = setting.classifier(batch_norm, plain)  # past the check of its layers
    setting.refuses(r"layer net\.net\.bn1 is a BatchNorm in training mode")


def test_a_batch_norm_switched_to_training_in_mid_run_is_refused(setting):
    setting.model.extra = nn.BatchNorm2d(3).eval()
    switch = AfterStep(3, lambda _, model: model.extra.train())
    setting.refuses("layer extra is a BatchNorm in training mode", switch, after=3)


def test_a_batch_norm_in_evaluation_mode_passes(setting):
    setting.model.extra = nn.BatchNorm2d(3).eval()
    setting.fit()


class Automatic(L.LightningModule):
    """Lets Lightning take the backward pass and the step, which it can accumulate."""

    def __init__(self):
        super().__init__()
        self.net = Small()

    def training_step(self, batch, batch_idx):
        return self.net(batch[0]).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_gradient_accumulation_is_refused(setting):
    setting.model = Automatic()
    setting.refuses("accumulate_grad_batches=2", accumulate_grad_batches=2)


def test_gradient_accumulation_of_the_real_model_is_refused_by_lightning(setting):
    with pytest.raises(Exception, match="accumulat"):
        setting.fit(accumulate_grad_batches=2)
    assert setting.mechanism.ledger.steps == 0


@pytest.mark.parametrize(
    ("changes", "ahead"),
    [({"max_epochs": 3}, 12), ({"max_epochs": 1}, 4), ({"limit_train_batches": 2}, 4)],
    ids=["more epochs", "fewer epochs", "fewer batches"],
)
def test_another_number_of_steps_than_planned_is_refused(setting, changes, ahead):
    setting.refuses(f"{ahead} steps are ahead and 0 done, but the plan has 8", **changes)


def test_training_on_with_a_spent_plan_is_refused(setting):
    setting.fit()
    setting.refuses("8 steps are ahead and 8 done", after=8)


def test_epochs_added_in_mid_run_end_with_the_plan(setting):
    def more(trainer, _):
        trainer.fit_loop.max_epochs = 10

    setting.refuses("the plan's 8 steps are spent", AfterStep(2, more), after=8)


def test_a_step_that_releases_nothing_through_the_ledger_is_refused(setting):
    setting.model = setting.classifier(Small(), plain)
    setting.refuses("1 steps were taken but 0 noised gradients")


def test_a_gradient_exchanged_in_mid_run_is_refused(setting):
    def exchange(_, model):
        model._gradient.close()
        model._gradient = MeanGradient(model.net)

    setting.refuses("3 steps were taken but 2", AfterStep(2, exchange), after=2)


def test_a_second_release_in_a_step_is_refused(setting):
    make = setting.mechanism.make_gradient

    def twice(net, first_step):
        gradient = make(net, first_step)

        def call(images, labels):
            gradient(images, labels)
            return gradient(images, labels)

        return call

    setting.model = setting.classifier(Small(), twice)
    setting.refuses("1 steps were taken but 2", after=2)


def test_a_refused_start_leaves_the_weights_as_they_were(setting):
    before = copy.deepcopy(setting.model.net.state_dict())
    setting.refuses("the plan has 8", max_epochs=3)
    for name, value in setting.model.net.state_dict().items():
        assert torch.equal(value, before[name])


class Timed(PrivacyCallback):
    """Measures all that the callback does around a step, and the steps themselves."""

    def __init__(self, mechanism):
        super().__init__(mechanism)
        self.own, self.steps = [], []

    def on_train_batch_start(self, *args):
        self.started = time.perf_counter()
        super().on_train_batch_start(*args)
        self.checked = time.perf_counter()

    def on_train_batch_end(self, *args):
        ended = time.perf_counter()
        super().on_train_batch_end(*args)
        self.own.append(self.checked - self.started + time.perf_counter() - ended)
        self.steps.append(ended - self.checked)


@pytest.mark.slow
def test_accounting_costs_less_than_a_hundredth_of_a_step(composed, stripes):
    """On a ResNet-18 at 64 px in batches of 64; medians, since other work may hold a step up."""
    config = composed(
        *(
            "mechanism=dpsgd",
            "model.prior=train",
            "data.batch_size=64",
            "trainer.max_epochs=1",
            "noise_seed=0",
        )
    )
    setting = Setting(
        config, stripes(train=192, side=64), build_network("resnet18", 2, "group", None)
    )
    setting.callback = callback = Timed(setting.mechanism)
    setting.fit(max_epochs=1)
    assert len(callback.own) == setting.mechanism.plan.steps == 3
    assert statistics.median(callback.own) < 0.01 * statistics.median(callback.steps)
    assert callback.seconds <= sum(callback.own)
