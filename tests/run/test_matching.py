import pytest
import pytorch_lightning as L
import torch
from torch import nn
from torchmetrics.functional.classification import multiclass_accuracy, multiclass_auroc

from dpmi.data.datamodule import ImageDataModule
from dpmi.mechanisms import LocalDP
from dpmi.mechanisms.statistics import CLASS_LOGITS, ExactStatistics
from dpmi.models.classifier import ImageClassifier
from dpmi.models.gradient import MeanGradient
from dpmi.models.prior import DecidingNetwork
from dpmi.privacy.randomness import NoiseSource
from dpmi.privacy.statistics import TrainingSet
from dpmi.run.matching import find_threshold


class Contrast(DecidingNetwork):
    """Tells standing stripes (0) from lying ones (1) by their edges, from a displaced threshold."""

    def __init__(self):
        super().__init__(2)
        self.scale = nn.Parameter(torch.tensor(4.0))
        self.passes = 0

    def forward(self, images):
        self.passes += len(images)
        across = images.diff(dim=3).abs().mean((1, 2, 3))
        down = images.diff(dim=2).abs().mean((1, 2, 3))
        return self.decided(self.scale * torch.stack([across, down + 1.0], 1))

    def exported(self):
        return self.state_dict()


@pytest.fixture
def found(stripes, tmp_path):
    """A network that found its threshold on noised images, its metrics, and what it was shown."""
    data = stripes()
    labels = torch.from_numpy(data.splits["train"].labels)
    statistics = ExactStatistics(TrainingSet(labels, 2), (CLASS_LOGITS,))
    mechanism = LocalDP(
        0.5, 1, True, 1, NoiseSource(None), tmp_path / "cache", statistics=statistics
    )
    released = mechanism.release_data(data)
    module = ImageDataModule(
        released, image_size=32, batch_size=9, augment="none", num_workers=0, seed=0
    )
    model = ImageClassifier(
        (net := Contrast()),
        classes=data.classes,
        graded=False,
        make_gradient=lambda net, step: MeanGradient(net),
        learning_rate=0.1,
        weight_decay=0.0,
        momentum=0.0,
    )
    net.set_class_counts(torch.tensor([32, 32]))
    trainer = L.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False
    )
    find_threshold(model, trainer, mechanism, module.train_eval_dataloader(), data, 32)
    passes = net.passes
    trainer.test(model, module.test_dataloader(), verbose=False)
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    return net, metrics, released, mechanism.reference(data), passes


def margins(net, split):
    """z_1 - z_0 of each image before anything is taken off."""
    with torch.no_grad():
        logits = net.train()(torch.from_numpy(split.pixels).float() / 255)
    return logits[:, 1] - logits[:, 0]


def taken_off(net):
    return float(net.log_shares[1] - net.log_shares[0])


def test_training_images_are_decided_midway_between_their_classes_as_training_saw_them(found):
    net, metrics, released, _, _ = found
    train = released.splits["train"]
    labels, its = torch.from_numpy(train.labels), margins(net, train)
    middle = (its[labels == 1].mean() + its[labels == 0].mean()) / 2
    decided = torch.stack([middle - its, its - middle], 1).softmax(1)
    for name, metric in (("accuracy", multiclass_accuracy), ("auroc", multiclass_auroc)):
        average = {"average": "micro"} if name == "accuracy" else {}
        expected = float(metric(decided, labels, 2, **average))
        assert metrics[f"nonprivate/train/{name}"] == pytest.approx(expected, abs=1e-6)
    assert metrics["nonprivate/train/accuracy"] > 0.6  # where the threshold was it is a half
    assert ((its > 0) == labels.bool()).float().mean() == 0.5


def test_clean_images_are_decided_where_the_mean_of_noised_ones_is_moved_to(found):
    net, metrics, released, (clean, noised), _ = found
    train = released.splits["train"]
    labels, its = torch.from_numpy(train.labels), margins(net, train)
    middle = float((its[labels == 1].mean() + its[labels == 0].mean()) / 2)
    moved = float(margins(net, clean).mean() - margins(net, noised).mean())
    assert taken_off(net) == pytest.approx(middle + moved, abs=1e-3)
    test = released.splits["test"]
    right = (margins(net, test) > middle + moved) == torch.from_numpy(test.labels).bool()
    assert metrics["test/accuracy"] == pytest.approx(float(right.float().mean()))


def test_each_training_image_is_shown_once_for_threshold_and_metrics(found):
    _, _, released, (clean, noised), passes = found
    assert passes == len(released.splits["train"].labels) + len(clean.labels) + len(noised.labels)
