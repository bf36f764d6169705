"""What must fit together in a config that trains a head, or decides under a prior of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dpmi.config import Config

_OF_HEADS = ("none", "dpsgd", "class_means")


def check_heads(config: Config) -> None:
    """Refuse what would not do what it says.

    Raises:
        ValueError: names the key, its value and what is allowed.
    """
    model, mechanism = config.model, config.mechanism.name
    if model.prior == "uniform" and mechanism not in _OF_HEADS:
        raise ValueError(
            f"model.prior=uniform: needs the training set's class shares, which "
            f"mechanism={mechanism} does not release; allowed is train, or mechanism "
            f"{', '.join(_OF_HEADS)}"
        )
    if model.train == "all":
        if mechanism == "class_means":
            raise ValueError(
                "model.train=all: mechanism=class_means releases sums of features and trains no "
                "network; allowed is head"
            )
        return
    if mechanism not in _OF_HEADS:
        raise ValueError(
            f"model.train=head: a head is trained under mechanism {', '.join(_OF_HEADS)}; under "
            f"mechanism={mechanism} allowed is all"
        )
    if mechanism == "class_means" and model.head != "linear":
        raise ValueError(
            f"model.head={model.head}: mechanism=class_means computes a linear head; allowed is "
            "linear"
        )
    if model.norm != "frozen_batch":
        raise ValueError(
            f"model.norm={model.norm}: under model.train=head the network stays as it was "
            "pretrained, its BatchNorm too; allowed is frozen_batch"
        )
    if config.data.augment != "none":
        raise ValueError(
            f"data.augment={config.data.augment}: under model.train=head the features of an image "
            "are computed once; allowed is none (model.features.views averages fixed views)"
        )
    if config.trainer.devices > 1:
        raise ValueError(
            f"trainer.devices={config.trainer.devices}: a head is trained in seconds by one "
            "device; under model.train=head allowed is 1"
        )
    if config.trainer.compile:
        raise ValueError(
            "trainer.compile=True: a head is one product of matrices, with nothing to compile; "
            "under model.train=head allowed is false"
        )
