import math

import pytest
import pytorch_lightning as L
import torch
from torch import nn

from dpmi.data.datamodule import ImageDataModule
from dpmi.mechanisms import build_mechanism
from dpmi.models.classifier import ImageClassifier
from dpmi.models.gradient import MeanGradient
from dpmi.run.logs.curves import EpochCurves, EvaluateTestImages, selected_on_test
from dpmi.run.privacy_callback import PrivacyCallback
from dpmi.run.records.reading import read_record

pytestmark = pytest.mark.usefixtures("one_thread")


def small_net():
    """With a layer that behaves otherwise in training mode."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 5, stride=4), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(),
        nn.Linear(8 * 7 * 7, 2),
    )  # fmt: skip


def nothing_promised():
    return None


def plain(net, first_step):
    return MeanGradient(net)


def fitted(data, *callbacks, net=None, make_gradient=plain, batches=None, epochs=3):
    model = ImageClassifier(
        net or small_net(),
        classes=data.classes,
        graded=False,
        make_gradient=make_gradient,
        learning_rate=0.05,
        weight_decay=0.0,
        momentum=0.0,
    )
    module = ImageDataModule(
        data,
        image_size=data.size,
        batch_size=24,  # 64 images: the third batch is smaller
        augment="none",
        num_workers=0,
        seed=0,
        train_batches=batches,
    )
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        use_distributed_sampler=False,
        callbacks=list(callbacks),
    )
    trainer.fit(model, module)
    return model


def clean_test_images(data, batch_size=24):
    module = ImageDataModule(
        data, image_size=data.size, batch_size=batch_size, augment="none", num_workers=0, seed=0
    )
    return module.test_dataloader()


class Steps(L.Callback):
    """Counts rightly classified images by itself, epoch by epoch."""

    def __init__(self):
        self.shares, self._right, self._images = [], 0, 0

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        images, labels = batch
        logits = pl_module.net(images)  # in training mode, as the step will
        self._right += int((logits.argmax(1) == labels).sum())
        self._images += len(labels)

    def on_train_epoch_end(self, *_):
        self.shares.append(self._right / self._images)
        self._right = self._images = 0


def test_train_accuracy_of_an_epoch_is_the_share_of_its_images_right_at_their_step(stripes):
    curves, steps = EpochCurves(nothing_promised), Steps()
    fitted(stripes(), steps, curves)
    assert len(steps.shares) == 3
    assert curves.values["nonprivate/accuracy"] == pytest.approx(steps.shares)
    assert set(curves.values) == {"nonprivate/accuracy"}


def test_epsilon_of_an_epoch_is_what_the_guarantee_says_at_its_end(stripes, composed):
    data = stripes()
    config = composed(
        *("mechanism=dpsgd", "model.prior=train", "mechanism.accountant=rdp", "data.batch_size=16"),
        *("trainer.max_epochs=3", "beta=0.5", "max_physical_batch_size=16"),
    )
    mechanism = build_mechanism(config, 64)
    net = nn.Sequential(nn.Flatten(), nn.Linear(32 * 32, 2))
    curves, found = EpochCurves(mechanism.spent), []

    class Told(L.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            found.append(mechanism.guarantee().epsilon)

    fitted(
        data, PrivacyCallback(mechanism), Told(), curves,
        net=net, make_gradient=mechanism.make_gradient, batches=mechanism.train_batches(),
    )  # fmt: skip
    assert len(found) == 3
    assert found[0] < found[1] < found[2]
    assert (
        curves.values["epsilon"] == found
    )  # to the last digit: Lightning logs in single precision


def test_an_epoch_of_empty_batches_has_no_train_accuracy(stripes):
    class Nothing:
        steps_per_epoch = 2

        def draw(self, step):
            return []

    class NoGradient:
        def __init__(self, net, first_step):
            pass

        def __call__(self, images, labels):
            return images.new_zeros((0, 2))

    curves = EpochCurves(nothing_promised)
    fitted(stripes(), curves, make_gradient=NoGradient, batches=Nothing(), epochs=1)
    (share,) = curves.values["nonprivate/accuracy"]
    assert math.isnan(share)


def test_test_accuracy_of_the_last_epoch_is_that_of_the_evaluation_after_training(stripes):
    data = stripes()
    curves = EpochCurves(nothing_promised)
    model = fitted(data, EvaluateTestImages(clean_test_images(data)), curves)
    images, labels = next(iter(clean_test_images(data, batch_size=1000)))
    last = (model.net.eval()(images).argmax(1) == labels).float().mean()
    assert len(curves.values["test/accuracy"]) == 3
    assert curves.values["test/accuracy"][-1] == pytest.approx(float(last))


def test_looking_at_the_test_images_changes_nothing_that_is_learned(stripes):
    data = stripes()

    def weights(*callbacks):
        L.seed_everything(3, verbose=False)
        model = fitted(data, *callbacks)
        return model.net.state_dict(), torch.rand(1)

    (without, drawn), (looked, drawn_too) = (
        weights(*callbacks) for callbacks in ((), (EvaluateTestImages(clean_test_images(data)),))
    )
    assert drawn == drawn_too
    for name, value in without.items():
        assert torch.equal(value, looked[name]), name


def test_the_best_test_epoch_is_named_as_selected_and_counted_from_one():
    assert selected_on_test({"test/accuracy": [0.5, 0.75, 0.625, 0.75]}) == {
        "selected_on_test/accuracy": 0.75,
        "selected_on_test/epoch": 2.0,
    }
    assert selected_on_test({"val/accuracy": [0.5]}) == {}


@pytest.mark.parametrize(
    ("words", "names"),
    [
        pytest.param(
            ["mechanism=none"], {"nonprivate/accuracy", "val/accuracy"}, marks=pytest.mark.slow
        ),
        pytest.param(
            ["mechanism=none", "trainer.test_every_epoch=true", "model.average=none"],
            {"nonprivate/accuracy", "val/accuracy", "test/accuracy"},
            marks=pytest.mark.slow,
        ),
        (
            ["mechanism=dpsgd", "mechanism.accountant=rdp", "data.val_images=0"],
            {"nonprivate/accuracy", "epsilon"},
        ),
    ],
    ids=["none", "test every epoch", "dpsgd"],
)
def test_the_record_of_a_run_has_a_value_an_epoch_and_the_last_is_the_reported(
    place, tiny, words, names
):
    done = place.train(*tiny, "trainer.max_epochs=2", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = place.outputs.glob("*/record.json")
    record = read_record(path)
    assert set(record.curves) == names
    assert {len(values) for values in record.curves.values()} == {2}
    assert record.curves.get("epsilon", [None])[-1] == record.guarantee.epsilon
    if "test/accuracy" in names:
        by_epoch = record.curves["test/accuracy"]
        assert record.metrics["test/accuracy"] == pytest.approx(by_epoch[-1])  # the last, reported
        assert record.metrics["selected_on_test/accuracy"] == max(by_epoch)
        assert record.metrics["selected_on_test/epoch"] in (1, 2)
    else:
        assert not [name for name in record.metrics if name.startswith("selected_on_test")]
