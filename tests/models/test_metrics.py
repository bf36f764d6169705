import pytest
import pytorch_lightning as L
import torch
from torch import nn
from torchmetrics.functional.classification import (
    multiclass_accuracy,
    multiclass_auroc,
    multiclass_calibration_error,
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
    told = multiclass_calibration_error(probabilities, labels, 3, n_bins=BINS, norm="l1")
    assert float(metrics.compute()["ece"]) == pytest.approx(float(told), abs=1e-6)
    total = sum(images * abs(right - confidence) for confidence, right, images in bins) / 200
    assert total == pytest.approx(float(told), abs=1e-6)
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
        return self.net(images)

    def exported(self):
        return self.state_dict()


@pytest.mark.parametrize("shift", [0.0, 0.2])
def test_metrics_are_of_probabilities_and_a_shift_is_taken_off_clean_images_alone(stripes, shift):
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
    model.shift = torch.tensor([shift, 0.0])
    module = ImageDataModule(
        data, image_size=32, batch_size=9, augment="none", num_workers=0, seed=0
    )
    trainer = L.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False
    )
    test = module.test_dataloader()
    loaders = [test, module.train_eval_dataloader(), test]  # as if it were the validation images
    told, of_train, of_val = trainer.test(model, loaders, verbose=False)
    split = data.splits["test"]
    with torch.no_grad():
        logits = model.net(torch.from_numpy(split.pixels).float() / 255)
    probabilities = (logits - torch.tensor([shift, 0.0])).softmax(1)
    labels = torch.from_numpy(split.labels)
    expected = {
        "accuracy": multiclass_accuracy(probabilities, labels, 2, average="micro"),
        "balanced_accuracy": multiclass_accuracy(probabilities, labels, 2, average="macro"),
        "auroc": multiclass_auroc(probabilities, labels, 2),
        "ece": multiclass_calibration_error(probabilities, labels, 2, n_bins=BINS),
    }
    for name, value in expected.items():
        assert told[f"test/{name}"] == pytest.approx(float(value), abs=1e-6), name
        assert told[f"test/{name}"] == of_val[f"val/{name}"]
    assert sum(images for _, _, images in model.reliability) == len(labels)
    train = data.splits["train"]
    with torch.no_grad():
        logits = model.net(torch.from_numpy(train.pixels).float() / 255)
    plain = multiclass_calibration_error(
        logits.softmax(1), torch.from_numpy(train.labels), 2, n_bins=BINS
    )
    assert of_train["nonprivate/train/ece"] == pytest.approx(float(plain), abs=1e-6)
