"""Shadow models: a run repeated by its own mechanism on random subsets of its images.

Under a mechanism with an ε an absent image is one that contributes nothing, which is the house's
zero-out adjacency: the number of images, and so every normaliser, sampling rate and noise, is that
of the run; batches, statistics and class counts lack the image. Other mechanisms know no such
neighbour: they are run on the images that are present, as a user without the others would.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytorch_lightning as L
import torch
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor
from torch.utils.data import DataLoader

from dpmi.attacking.lira import Coins, Values, logit_confidence
from dpmi.base.errors import UserError
from dpmi.base.ranks import ALONE
from dpmi.config.schema import Config
from dpmi.data.batches import Batches
from dpmi.data.datamodule import ImageDataset
from dpmi.data.prepare import PreparedData
from dpmi.features.datamodule import FeatureDataset
from dpmi.features.extract import Features
from dpmi.mechanisms import Mechanism, build_mechanism, epochs
from dpmi.models.prior import DecidingNetwork
from dpmi.privacy.randomness import NoiseSource
from dpmi.privacy.statistics import TrainingSet
from dpmi.run.average import IterateAverage
from dpmi.run.first_weights import load_start
from dpmi.run.parts import (
    batches,
    classifier,
    features_of,
    network,
    prepared_data,
    protected_patients,
    training_set,
)

PLANNED = ("dpsgd", "class_means")  # an absent image contributes nothing
PLAIN = ("none", "ldp_published", "dpsgd_published")  # an absent image is not there
_EVALUATED_AT_ONCE = 256


@dataclass(frozen=True)
class PresentImages(TrainingSet):
    """Those of the training images that are present; the number of all is public.

    Attributes:
        all: images that there are, present or not.
    """

    all: int = 0

    @property
    def n(self) -> int:
        """Of all images: what is released is divided by it."""
        return self.all


class PresentBatches:
    """Batches as they are drawn of all images, less those that are absent.

    Args:
        drawn: indices from 0 to n-1.
        present: (n,).
    """

    def __init__(self, drawn: Batches, present: NDArray[np.bool_]) -> None:
        self.steps_per_epoch = drawn.steps_per_epoch
        self._drawn, self._present = drawn, present

    def draw(self, step: int) -> list[int]:
        """Indices among all images of a step's batch; it may be empty."""
        return [index for index in self._drawn.draw(step) if self._present[index]]


class Shadows:
    """Trains shadow models of one run.

    Each is a whole run but for what writes files: the run's data, features, first weights, seed,
    batches, mechanism, engine, schedule and average. Its noise is its own.

    Args:
        config: of the run, for one device.
        console: where it is said that features are computed.

    Attributes:
        n: candidates: the training images of the run.

    Raises:
        UserError: the data cannot be used, or shadow models are no attack on the mechanism.
    """

    def __init__(self, config: Config, console: Console) -> None:
        name = config.mechanism.name
        if name not in (*PLANNED, *PLAIN):
            raise UserError(
                f"mechanism={name}: releases every image before training; attack it by linkage"
            )
        self.config = config
        self._device = "cuda" if _on_gpu(config) else "cpu"
        self._data = data = prepared_data(config)
        if protected_patients(config, data):
            raise UserError(
                f"privacy.unit={config.privacy.unit}: this attack is on images, but the run "
                "protects patients; attack one with privacy.unit=image"
            )
        self._first = load_start(
            config.model, data.channels, Path(config.cache_dir).expanduser(), console
        ).pretrained
        asked = (self._first, console, self._device)
        self._features = features_of(config, data, *asked)
        self._train = training_set(config, data, self._features, None, *asked)
        self.n = self._train.n

    @property
    def labels(self) -> NDArray[np.int64]:
        """(n,) of the candidates."""
        return np.asarray(self._data.splits["train"].labels)

    def trained(
        self, present: Coins, noise: NoiseSource | None = None
    ) -> tuple[DecidingNetwork, Mechanism]:
        """Train one on the images that are ``present``, (n,).

        Args:
            present: whether it is, of each image.
            noise: of the mechanism; None for a new key.

        Returns:
            The network, which decides as the run's would, and the mechanism that was executed.

        Raises:
            UserError: no plan fits.
        """
        config, planned = self.config, self.config.mechanism.name in PLANNED
        L.seed_everything(config.seed, verbose=False)
        rows = torch.from_numpy(np.flatnonzero(present))
        mechanism = build_mechanism(
            config, self.n if planned else len(rows), noise, train=self._chosen(rows, planned)
        )
        data, features = self._data, self._features
        if not planned:
            data, features = _without(data, rows), _only(features, rows)
        assert config.trainer.precision != "auto"  # such a config is refused
        drawn = mechanism.train_batches()
        if planned and drawn:
            drawn = PresentBatches(drawn, present)
        net = network(config, len(data.classes), self._first, features)
        model = classifier(config, net, data, mechanism, ALONE)
        released = mechanism.release_data(data)
        module = batches(config, released, features, None, mechanism, 0, ALONE, drawn)
        average = IterateAverage() if config.model.average == "last_half" else None
        trainer = L.Trainer(
            accelerator=config.trainer.accelerator,
            devices=1,
            precision=config.trainer.precision,
            max_epochs=epochs(config),
            logger=False,
            callbacks=[average] if average else [],
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            deterministic="warn",
        )
        trainer.fit(model, train_dataloaders=module.train_dataloader())
        if average:
            average.apply(model)
        # All images are there under a plan: the absent ones are left out here, too.
        kept = rows if planned else torch.arange(len(rows))
        mechanism.settle(net, lambda: _logits(net, module.train_eval_dataloader())[kept])
        return net.eval(), mechanism

    def _chosen(self, rows: Tensor, planned: bool) -> TrainingSet:
        """What statistics are made of: the images that are present."""
        its = self._train
        vectors = None if its.vectors is None else its.vectors[rows]
        told = (its.labels[rows], its.num_classes, vectors, its.length)
        return PresentImages(*told, all=self.n) if planned else TrainingSet(*told)

    def confidences(self, net: DecidingNetwork) -> Values:
        """(n,) log odds that a model gives each candidate's own class; the images are clean."""
        split, size = self._data.splits["train"], self.config.data.image_size
        candidates = (
            FeatureDataset(self._features, "train") if self._features else ImageDataset(split, size)
        )
        loader: DataLoader[tuple[Tensor, Tensor]] = DataLoader(
            candidates, batch_size=_EVALUATED_AT_ONCE, collate_fn=lambda batch: batch
        )
        return logit_confidence(_logits(net, loader).double().numpy(), self.labels)


def _on_gpu(config: Config) -> bool:
    return config.trainer.accelerator != "cpu" and torch.cuda.is_available()


def _without(data: PreparedData, rows: Tensor) -> PreparedData:
    """The data set of those training images alone."""
    train = data.splits["train"].of_rows(rows.numpy())
    return dataclasses.replace(data, splits=data.splits | {"train": train})


def _only(features: Features | None, rows: Tensor) -> Features | None:
    """The same of features."""
    if features is None:
        return None
    return Features(
        vectors=features.vectors | {"train": features.vectors["train"][rows]},
        labels=features.labels | {"train": features.labels["train"][rows]},
    )


@torch.no_grad()
def _logits(net: DecidingNetwork, loader: DataLoader[tuple[Tensor, Tensor]]) -> Tensor:
    """(n, K) in evaluation, in the loader's order, on the CPU."""
    device, training = next(net.parameters()).device, net.training
    net.eval()
    logits = torch.cat([net(images.to(device)).float() for images, _ in loader]).cpu()
    net.train(training)
    return logits
