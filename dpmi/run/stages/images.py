"""The first stages: the images of a run, whom of them it protects, what training sees of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dpmi.data.patients import Patients, one_image_of_each
from dpmi.data.prepare import PreparedData
from dpmi.features.extract import Features
from dpmi.privacy.statistics import TrainingSet
from dpmi.run.first_weights import Start, drawn, load_start
from dpmi.run.parts import features_of, prepared_data, protected_patients, training_set
from dpmi.run.stages.context import Context


@dataclass(frozen=True)
class Protected:
    """Images, and whom of the training images a run protects.

    Attributes:
        data: what is released and trained on; under local DP one image of each patient.
        patients: of the training images, where the mechanism draws patients.
        unit: "image" or "patient".
        together: training images that belong to one unit, by what they have in common.
    """

    data: PreparedData
    patients: Patients | None
    unit: str
    together: Mapping[str, int]


@dataclass(frozen=True)
class Inputs:
    """What a run starts from.

    Attributes:
        start: weights, with what is known of them.
        features: of all splits, where a head is trained on them.
        train: what statistics of the training images are made of.
    """

    start: Start
    features: Features | None
    train: TrainingSet

    @property
    def digest(self) -> str:
        """Of weights and features: releases depend on their last bits."""
        return f"{self.start.digest} {self.train.digest}"


def prepare(context: Context) -> PreparedData:
    """Decode all images, or take those that are given.

    Raises:
        UserError: the data set cannot be used.
    """
    with context.timed("prepare"):
        return context.given.data if context.given else prepared_data(context.config)


def protect(context: Context, data: PreparedData) -> Protected:
    """Find out whom the run protects.

    Raises:
        UserError: patients are asked for, and some images do not say whose they are.
    """
    patients, together = protected_patients(context.config, data), data.fingerprint.together
    if not patients:
        return Protected(data, None, "image", together)
    if context.config.mechanism.name == "ldp":
        data, patients = one_image_of_each(data, patients), None
    return Protected(data, patients, "patient", {"copies": together["copies"]})


def take_features(context: Context, images: Protected) -> Inputs:
    """Load the weights to start from, and let them look at the images where a head is trained.

    Raises:
        UserError: the weights cannot be used, or the cache cannot be written.
    """
    config, data = context.config, images.data
    start = (
        drawn(config.model)
        if context.given
        else load_start(config.model, data.channels, context.cache_dir, context.console)
    )
    with context.timed("features"):
        how = (start.pretrained, context.console, context.device)
        given = context.given.features if context.given else None
        features = given or features_of(config, data, *how)
        train = training_set(config, data, features, images.patients, *how)
    return Inputs(start, features, train)
