"""Sentences that follow from a run's public record, the same whoever makes the card."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dpmi.cards.schema import Share
from dpmi.config.sections import MECHANISMS
from dpmi.reporting.intervals import over_images
from dpmi.run.records.public import PublicRecord

Trust = Literal["central", "local", "none"]

INTENDED_USE = (
    "Research on what differential privacy costs in accuracy and what it protects, on data like "
    "those named here; to be validated independently before anybody relies on it."
)
LIMITS = (
    "Not a medical device, and not assessed as one: not for diagnosis, triage or treatment.",
    "Accuracy is that on the test images: nothing is known of other hospitals, devices, or groups "
    "of patients.",
    "The guarantee covers training images alone, not validation or test images, nor images that "
    "the model is shown later.",
    "It bounds what can be learned about one unit from everything that was released. What is true "
    "of patients in general can be learned; that is the purpose.",
)
# Whatever is claimed.
WITHOUT_EPSILON = tuple(name for name, its in MECHANISMS.items() if not its.has_epsilon)
TRUSTED = {
    "central": "central: who runs the training sees the images and is trusted; who receives the "
    "weights, and all that was released on the way, is not",
    "local": "local: each image leaves only noised, once, and who receives that is not trusted; "
    "who runs the program that adds the noise is",
    "none": "none: no ε holds, so everybody who receives the weights is trusted",
}


@dataclass(frozen=True)
class Described:
    """A mechanism, its sensitivity, and whom it trusts."""

    trust: Trust
    mechanism: str
    sensitivity: str | None


def described(record: PublicRecord) -> Described:
    """What was executed, in words: by the config and the guarantee of the run."""
    guarantee, config = record.guarantee, record.config
    name = config["mechanism"]["name"]
    if guarantee is None or guarantee.epsilon is None or name in WITHOUT_EPSILON:
        return Described("none", _WITHOUT[name], None)
    unit = guarantee.unit
    if name == "dpsgd":
        return Described(
            "central",
            "DP-SGD (Abadi et al. 2016): Poisson-sampled batches, clipped gradients, Gaussian "
            "noise; class statistics, where the method uses any, are additional Gaussian releases",
            f"the gradient of each {unit} is clipped to L2 norm {config['max_grad_norm']:g}; 2^-10 "
            "of it is added for rounding",
        )
    if name == "class_means":
        return Described(
            "central",
            "one Gaussian release of the class sums of features, from which a head is computed",
            f"the contribution of each {unit} is clipped to a fixed L2 norm; 2^-10 of it is added "
            "for rounding",
        )
    if name == "ldp":
        side = config["mechanism"].get("pool", 1)
        return Described(
            "local",
            f"Laplace noise on the mean of each block of {side} x {side} values of each training "
            "image, rounded to 8 bits, once; training sees nothing else",
            f"one value moves one mean, by at most {-(-255 // side**2)} of 255 gray levels",
        )
    if name == "ldp_features":
        return Described(
            "local",
            "randomized response: one bit about each unit's features, flipped with a known "
            "probability; training sees nothing else",
            "each unit answers one question, once",
        )
    raise ValueError(f"mechanism={name}: a card has no words for it")


_WITHOUT = {
    "none": "none: trained on the images as they are",
    "ldp": "Laplace noise on the training images, but no guarantee",
    "dpsgd": "DP-SGD, but no guarantee",
    "class_means": "noised class sums of features, but no guarantee",
    "ldp_features": "randomized response, but no guarantee",
    "ldp_published": "as published: one Laplace number on all pixels of an image",
    "dpsgd_published": "as published: clipped means of microbatches, with BatchNorm in training",
}


def test_images(record: PublicRecord) -> int:
    """How many there were: the reliability diagram counts each once."""
    if record.test_images is not None:
        return record.test_images
    return sum(number for _, _, number in record.reliability)


def shares(record: PublicRecord) -> tuple[Share, ...]:
    """Accuracies of the record, with intervals over its test images."""
    images, found = test_images(record), []
    for metric, value in record.metrics.items():
        if metric.rpartition("/")[2] == "accuracy" and images and 0 <= value <= 1:
            its = over_images(value, images)
            found.append(
                Share(metric=metric, value=value, low=its.low, high=its.high, images=images)
            )
    return tuple(found)
