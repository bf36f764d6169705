"""Consistency checks of a config that trains a head."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dpmi.backbones import backbone

if TYPE_CHECKING:
    from dpmi.config.schema import Config

_OF_FIRST_HEADS = ("none", "dpsgd")
_OF_HEADS = ("none", "dpsgd", "class_means", "ldp_features")
# These release what a head is computed from: they train nothing.
_COMPUTED = {"class_means": "sums of features", "ldp_features": "a bit of each image's features"}


def check_heads(config: Config) -> None:
    """Refuse what would not do what it says.

    Raises:
        ValueError: names the key, its value and what is allowed.
    """
    model, mechanism = config.model, config.mechanism.name
    if model.train != "head":
        if released := _COMPUTED.get(mechanism):
            raise ValueError(
                f"model.train={model.train}: mechanism={mechanism} releases {released} and trains "
                "no network; allowed is head"
            )
        if model.train == "head_then_all":
            _check_first_head(config)
        return
    if mechanism not in _OF_HEADS:
        raise ValueError(
            f"model.train=head: a head is trained under mechanism {', '.join(_OF_HEADS)}; under "
            f"mechanism={mechanism} allowed is all"
        )
    if mechanism in _COMPUTED and model.head != "linear":
        raise ValueError(
            f"model.head={model.head}: mechanism={mechanism} computes a linear head; allowed is "
            "linear"
        )
    if mechanism == "ldp_features" and not model.features.centre:
        raise ValueError(
            "model.features.centre=False: under mechanism=ldp_features the images' answers "
            "determine the centre, and the classes from there; allowed is true"
        )
    if model.features.drawn_classes and model.features.project is None:
        raise ValueError(
            "model.features.drawn_classes=True: what drawn images show is known along their own "
            "directions alone; give model.features.project (such as 4), or "
            "model.features.drawn_classes=false"
        )
    if model.norm != (constant := backbone(model.name).constant_norm):
        raise ValueError(
            f"model.norm={model.norm}: under model.train=head the network stays as it was "
            f"pretrained, its BatchNorm too; allowed is {constant}"
        )
    if model.weights is None:
        raise ValueError(
            "model.weights=null: under model.train=head the network is not trained, and would stay "
            "random; give model.weights"
        )
    if config.data.augment != "none":
        raise ValueError(
            f"data.augment={config.data.augment}: under model.train=head the features of an image "
            "are computed once; allowed is none (model.features.views averages fixed views)"
        )
    if config.data.multiplicity > 1 and not config.draws_patients:
        raise ValueError(
            f"data.multiplicity={config.data.multiplicity}: under model.train=head the features of "
            "an image are computed once; allowed is 1 (model.features.views averages fixed views)"
        )
    if config.trainer.devices > 1:
        raise ValueError(
            f"trainer.devices={config.trainer.devices}: a head is trained in seconds by one "
            "device; under model.train=head allowed is 1"
        )
    if config.trainer.compile is True:
        raise ValueError(
            "trainer.compile=True: a head is one product of matrices, with nothing to compile; "
            "under model.train=head allowed is false"
        )


def _check_first_head(config: Config) -> None:
    mechanism, norm = config.mechanism.name, config.model.norm
    if mechanism not in _OF_FIRST_HEADS:
        raise ValueError(
            "model.train=head_then_all: a head comes first under mechanism "
            f"{' and '.join(_OF_FIRST_HEADS)}; under mechanism={mechanism} allowed is all"
        )
    if norm != (constant := backbone(config.model.name).constant_norm):
        raise ValueError(
            f"model.norm={norm}: under model.train=head_then_all the head comes from features of "
            f"the network as it was pretrained, its BatchNorm too; allowed is {constant}"
        )
    if config.model.weights is None:
        raise ValueError(
            "model.weights=null: under model.train=head_then_all the head comes from features of a "
            "pretrained network; give model.weights"
        )
