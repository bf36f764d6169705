"""The parts of a run, from its config: the network and its training data."""

from __future__ import annotations

from pathlib import Path

import torch
from rich.console import Console

from dpmi.base.errors import UserError
from dpmi.base.ranks import Ranks
from dpmi.config.schema import SAME_VIEWS, Config
from dpmi.config.sections import ClassMeansMechanism, DpsgdMechanism
from dpmi.data.batches import Batches
from dpmi.data.datamodule import ImageDataModule
from dpmi.data.patients import Patients, known_patients
from dpmi.data.prepare import PreparedData, prepare
from dpmi.features.datamodule import FeatureDataModule
from dpmi.features.extract import Features, extract_features
from dpmi.features.penultimate import penultimate_vectors
from dpmi.mechanisms import DPSGD, Mechanism, PlannedMechanism, batch_images
from dpmi.models.classifier import ImageClassifier
from dpmi.models.head import FeatureHead
from dpmi.models.network import Pretrained, build_network
from dpmi.models.prior import DecidingNetwork
from dpmi.pretraining.whitening import whiten_by_public_images
from dpmi.privacy.statistics import TrainingSet

TrainingBatches = ImageDataModule | FeatureDataModule


def prepared_data(config: Config) -> PreparedData:
    """Return the data set of a config.

    Raises:
        UserError: it cannot be used.
    """
    mechanism = config.mechanism
    delta: float | None = None
    if isinstance(mechanism, DpsgdMechanism | ClassMeansMechanism) and mechanism.delta != "auto":
        delta = mechanism.delta
    cache_dir = Path(config.cache_dir)
    return prepare(config.data, cache_dir, delta)


def protected_patients(config: Config, data: PreparedData) -> Patients | None:
    """The patients of the training images, where they are what the run protects.

    Returns:
        None where it protects images, or nothing.

    Raises:
        UserError: patients are asked for, and some images do not say whose they are; or several
            views of an image are, and would be the same.
    """
    if not config.mechanism.has_epsilon:
        return None
    patients = known_patients(data, config.privacy.unit)
    same = patients is None and config.data.augment == "none" and config.draws_patients
    if same and config.data.multiplicity > 1:
        raise UserError(
            f"data.multiplicity={config.data.multiplicity}: the training images name no patients, "
            f"and {SAME_VIEWS}"
        )
    return patients


def features_of(
    config: Config,
    data: PreparedData,
    pretrained: Pretrained,
    console: Console,
    device: str,
) -> Features | None:
    """Features of all splits, where a head is trained on them; None where images are trained on.

    Raises:
        UserError: the weights are not of the network, the cache cannot be written, or the classes
            are not those of drawn images where these are asked for.
    """
    if config.model.train != "head":
        return None
    return extract_features(
        data,
        config.model.features,
        image_size=config.data.image_size,
        pretrained=pretrained,
        cache_dir=Path(config.cache_dir),
        console=console,
        device="cpu" if device == "cpu" else "cuda",
    )


def training_set(
    config: Config,
    data: PreparedData,
    features: Features | None,
    patients: Patients | None,
    pretrained: Pretrained,
    console: Console,
    device: str,
) -> TrainingSet:
    """What statistics of the training images are made of; of patients, where they are given.

    Raises:
        UserError: the weights are not of the network, or the cache cannot be written.
    """
    labels, classes = torch.from_numpy(data.splits["train"].labels), len(data.classes)
    whose = None if patients is None else torch.from_numpy(patients.of_image)
    if config.model.train == "head_then_all":
        own, length = penultimate_vectors(
            data,
            image_size=config.data.image_size,
            pretrained=pretrained,
            cache_dir=Path(config.cache_dir),
            console=console,
            device="cpu" if device == "cpu" else "cuda",
        )
        return TrainingSet(labels, classes, own, length, whose)
    vectors = features.vectors["train"] if features else None
    return TrainingSet(labels, classes, vectors, patients=whose)


def network(
    config: Config,
    num_classes: int,
    pretrained: Pretrained,
    features: Features | None,
    channels: int,
) -> DecidingNetwork:
    """What is trained, as training finds it, for images of so many channels."""
    if features:
        return FeatureHead(features.vectors["train"].shape[1], num_classes, config.model.head)
    net = build_network(
        pretrained.name,
        num_classes,
        config.model.norm,
        pretrained.state,
        side=config.data.image_size,
        shown=pretrained.input,
    )
    if config.frozen == "all_but_norms":
        net.freeze_all_but_norms()
    elif config.frozen:
        net.freeze(config.frozen)
    if isinstance(config.mechanism, DpsgdMechanism) and config.mechanism.whiten:
        whiten_by_public_images(net, channels, config.data.image_size)
    return net


def classifier(
    config: Config, net: DecidingNetwork, data: PreparedData, mechanism: Mechanism, ranks: Ranks
) -> ImageClassifier:
    """What trains a network by a mechanism, and measures it."""
    if config.trainer.channels_last is True:
        net = net.to(memory_format=torch.channels_last)
    return ImageClassifier(
        net,
        classes=data.classes,
        graded=data.graded,
        multilabel=data.multilabel,
        make_gradient=mechanism.make_gradient,
        learning_rate=(
            mechanism.learning_rate if isinstance(mechanism, DPSGD) else config.learning_rate
        ),
        weight_decay=config.model.weight_decay,
        momentum=config.model.momentum,
        schedule=config.model.schedule,
        compiled=config.trainer.compile is True,
        ranks=ranks,
    )


def batches(
    config: Config,
    released: PreparedData,
    features: Features | None,
    patients: Patients | None,
    mechanism: Mechanism,
    first_step: int,
    ranks: Ranks,
    drawn: Batches | None = None,
) -> TrainingBatches:
    """Batches of what training sees, from a step on.

    Args:
        config: of the run.
        released: images as a mechanism lets training see them.
        features: of them, where a head is trained.
        patients: of the training images, where the mechanism draws patients.
        mechanism: draws the training batches, or leaves them shuffled.
        first_step: of training; not 0 where a run is resumed.
        ranks: who trains.
        drawn: training batches in place of the mechanism's.
    """
    train_batches = drawn or mechanism.train_batches()
    if not isinstance(mechanism, PlannedMechanism):
        patients = None  # one answer of each patient, or nothing to protect
    batch_size = batch_images(config, len(released.splits["train"].labels))
    if features:
        return FeatureDataModule(
            features,
            batch_size=batch_size,
            seed=config.seed,
            train_batches=train_batches,
            first_step=first_step,
            patients=patients,
            images=config.data.multiplicity,
        )
    return ImageDataModule(
        released,
        image_size=config.data.image_size,
        batch_size=batch_size,
        augment=config.data.augment,
        multiplicity=config.data.multiplicity,
        num_workers=config.data.num_workers,
        resident=config.data.resident,
        seed=config.seed,
        train_batches=train_batches,
        first_step=first_step,
        ranks=ranks,
        patients=patients,
    )
