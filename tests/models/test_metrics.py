import math

import pytest
import pytorch_lightning as L
import torch
from torch import nn
from torchmetrics.functional.classification import (
    multiclass_accuracy,
    multiclass_auroc,
    multiclass_calibration_error,
    multiclass_cohen_kappa,
)

from dpmi.data.datamodule import ImageDataModule
from dpmi.models.classifier import ImageClassifier
from dpmi.models.gradient import MeanGradient
from dpmi.models.metrics import classification_metrics, reliability
from dpmi.models.names import BINS
from dpmi.models.prior import DecidingNetwork


def counted(probabilities, labels):
    metrics = classification_metrics(probabilities.shape[1], graded=False)
    for batch in zip(probabilities.split(7), labels.split(7), strict=True):
        metrics.update(*batch)
    return metrics


@pytest.mark.parametrize("sharpness", [0.1, 1.0, 20.0])  # 20: some are certain
def test_the_reliability_diagram_sums_up_to_torchmetrics_calibration_error(sharpness):
    torch.manual_seed(0)
    labels = torch.randint(0, 3, (200,))
    probabilities = (sharpness * torch.randn(200, 3)).softmax(1)
    probabilities[0] = torch.tensor([0.0, 1.0, 0.0])
    metrics = counted(probabilities, labels)
    bins = reliability(metrics)
    found = multiclass_calibration_error(probabilities, labels, 3, n_bins=BINS, norm="l1")
    assert float(metrics.compute()["ece"]) == pytest.approx(float(found), abs=1e-6)
    total = sum(images * abs(right - confidence) for confidence, right, images in bins) / 200
    assert total == pytest.approx(float(found), abs=1e-6)
    assert sum(images for _, _, images in bins) == 200
    confidences = [confidence for confidence, _, _ in bins]
    assert confidences == sorted(confidences)
    accuracy = sum(images * right for _, right, images in bins) / 200
    assert accuracy == pytest.approx(float(metrics.compute()["accuracy"]))


class Linear(DecidingNetwork):
    """Logits that are all between 0 and 1, as probabilities are."""

    def __init__(self):
        super().__init__(2)
        self.net = nn.Sequential(nn.AvgPool2d(16), nn.Flatten(), nn.Linear(4, 2), nn.Sigmoid())

    def forward(self, images):
        return self.decided(self.net(images))

    def exported(self):
        return self.state_dict()


@pytest.mark.parametrize("shift", [0.0, 0.2])
def test_metrics_are_of_probabilities_with_the_shift_taken_off(stripes, shift):
    data = stripes()
    torch.manual_seed(0)
    model = ImageClassifier(
        Linear(),
        classes=data.classes,
        graded=False,
        make_gradient=lambda net, step: MeanGradient(net),
        learning_rate=0.1,
        weight_decay=0.0,
        momentum=0.0,
    )
    model.decide_clean(torch.tensor([shift, 0.0]))
    module = ImageDataModule(
        data, image_size=32, batch_size=9, augment="none", num_workers=0, seed=0
    )
    trainer = L.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False
    )
    split, test = data.splits["test"], module.test_dataloader()
    labels = torch.from_numpy(split.labels)
    with torch.no_grad():
        logits = model.net(torch.from_numpy(split.pixels).float() / 255)
    probabilities = (logits - torch.tensor([shift, 0.0])).softmax(1)
    model.count_training_images(logits, labels)
    loaders = [test, test]  # as if they were the validation images, too
    found, of_val = trainer.test(model, loaders, verbose=False)
    expected = {
        "accuracy": multiclass_accuracy(probabilities, labels, 2, average="micro"),
        "balanced_accuracy": multiclass_accuracy(probabilities, labels, 2, average="macro"),
        "auroc": multiclass_auroc(probabilities, labels, 2),
        "ece": multiclass_calibration_error(probabilities, labels, 2, n_bins=BINS),
    }
    for name, value in expected.items():
        assert found[f"test/{name}"] == pytest.approx(float(value), abs=1e-6), name
        assert found[f"test/{name}"] == of_val[f"val/{name}"]
    assert sum(images for _, _, images in model.reliability) == len(labels)


def by_hand(probabilities, labels):
    """Each metric by its definition, over the classes that some image is of."""
    there, taken = sorted(set(labels.tolist())), probabilities.argmax(1)
    recalls, f1, areas = [], [], []
    for k in there:
        its = labels == k
        hits = float((taken[its] == k).sum())
        recalls.append(hits / float(its.sum()))
        f1.append(2 * hits / float(its.sum() + (taken == k).sum()))
        if len(there) > 1:
            ill, others = probabilities[its, k], probabilities[~its, k]
            above = ill[:, None] > others[None]
            ties = ill[:, None] == others[None]
            areas.append(float((above.float() + ties.float() / 2).mean()))
    means = {name: sum(v) / len(v) for name, v in
             {"balanced_accuracy": recalls, "f1": f1, "auroc": areas}.items() if v}  # fmt: skip
    return means | {"accuracy": float((taken == labels).float().mean())}, dict(
        zip(there, recalls, strict=True)
    )


@pytest.mark.parametrize("there", [(0, 1, 2), (0, 2), (1,)], ids=["all", "two of three", "one"])
def test_means_are_over_the_classes_that_are_there_and_the_rest_is_not_a_number(there):
    torch.manual_seed(1)
    labels = torch.tensor(there).repeat(12)
    probabilities = (2 * torch.randn(len(labels), 3)).softmax(1)
    metrics = classification_metrics(3, graded=True)
    for batch in zip(probabilities.split(7), labels.split(7), strict=True):
        metrics.update(*batch)
    found = metrics.compute()
    expected, recalls = by_hand(probabilities, labels)
    for name, value in expected.items():
        assert float(found[name]) == pytest.approx(value, abs=1e-6), name
    for k in range(3):
        assert float(found["recall"][k]) == pytest.approx(recalls.get(k, math.nan), nan_ok=True)
    ece = multiclass_calibration_error(probabilities, labels, 3, n_bins=BINS)
    assert float(found["ece"]) == pytest.approx(float(ece), abs=1e-6)
    alone = len(there) == 1
    assert bool(found["auroc"].isnan()) == bool(found["kappa"].isnan()) == alone
    if not alone:
        kappa = multiclass_cohen_kappa(probabilities, labels, 3, weights="quadratic")
        assert float(found["kappa"]) == pytest.approx(float(kappa), abs=1e-6)


def test_an_absent_class_is_no_recall_of_0():
    """Eight ill of whom one is found: a recall of 1/8, and nothing to rank them against."""
    taken = torch.tensor([1, 0, 0, 0, 0, 0, 0, 0])
    probabilities = nn.functional.one_hot(taken, 2).float() * 0.8 + 0.1
    found = counted(probabilities, torch.ones(8, dtype=torch.long)).compute()
    assert float(found["balanced_accuracy"]) == float(found["accuracy"]) == 0.125
    assert found["auroc"].isnan()
    assert found["recall"].isnan().tolist() == [True, False]
