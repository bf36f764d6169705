"""Shadow models: a run repeated by its own mechanism on random subsets of its images or patients.

A candidate is what the run protects: an image, or a patient with all their images. Under a
mechanism with an ε an absent candidate is one that contributes nothing, which is the house's
zero-out adjacency: the number of candidates, and so every normaliser, sampling rate and noise, is
that of the run; batches, statistics and class counts lack the candidate. Other mechanisms know no
such neighbour: they are run on the images that are present, as a user without the others would.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pytorch_lightning as L
import torch
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor
from torch.utils.data import DataLoader

from dpmi.attacking.lira import Coins, Values, finding_confidence, logit_confidence
from dpmi.base.errors import UserError
from dpmi.base.ranks import ALONE
from dpmi.config.schema import Config
from dpmi.data.batches import Batches
from dpmi.data.catalogue import Labels
from dpmi.data.datamodule import ImageDataset
from dpmi.data.patients import known_patients
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
    training_set,
)

PLANNED = ("dpsgd", "class_means")  # an absent image contributes nothing
PLAIN = ("none", "ldp_published", "dpsgd_published")  # an absent image is not there
Unit = Literal["image", "patient"]
_EVALUATED_AT_ONCE = 256


@dataclass(frozen=True)
class Present(TrainingSet):
    """Those of the training images that are present; the number of all candidates is public.

    Attributes:
        all: images, or patients, that there are, present or not.
    """

    all: int = 0

    @property
    def n(self) -> int:
        """Of all candidates: what is released is divided by it."""
        return self.all


class PresentBatches:
    """Batches as they are drawn of all candidates, less those that are absent.

    Args:
        drawn: indices from 0 to n-1, of images or patients.
        present: (n,).
    """

    def __init__(self, drawn: Batches, present: NDArray[np.bool_]) -> None:
        self.steps_per_epoch = drawn.steps_per_epoch
        self._drawn, self._present = drawn, present

    def draw(self, step: int) -> list[int]:
        """Indices among all candidates of a step's batch; it may be empty."""
        return [index for index in self._drawn.draw(step) if self._present[index]]


class Shadows:
    """Trains shadow models of one run.

    Each is a whole run but for what writes files: the run's data, features, first weights, seed,
    batches, mechanism, engine, schedule and average. Its noise is its own.

    Args:
        config: of the run, for one device.
        console: shows that features are computed.

    Attributes:
        n: candidates: the run's training images, or patients.
        unit: what a candidate is: "image" or "patient".

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
        # A run without a guarantee protects nobody: it is attacked as one that protects would be.
        self._patients = patients = known_patients(data, config.privacy.unit)
        self.unit: Unit = "patient" if patients else "image"
        self._first = load_start(
            config.model, data.channels, Path(config.cache_dir), console
        ).pretrained
        given = (self._first, console, self._device)
        self._features = features_of(config, data, *given)
        self._train = training_set(config, data, self._features, None, *given)
        images = np.arange(self._train.n)
        self._candidate_of = patients.of_image if patients else images  # (N,), of each image
        self.n = len(patients) if patients else len(images)

    @property
    def labels(self) -> Labels:
        """(N,) of the images; (N, K) of findings."""
        return self._data.splits["train"].labels

    def trained(
        self, present: Coins, noise: NoiseSource | None = None
    ) -> tuple[DecidingNetwork, Mechanism]:
        """Train one on the candidates that are ``present``, (n,).

        Args:
            present: whether it is, of each candidate.
            noise: of the mechanism; None for a new key.

        Returns:
            The network, which decides as the run's would, and the mechanism that was executed.

        Raises:
            UserError: no plan fits.
        """
        config, planned = self.config, self.config.mechanism.name in PLANNED
        L.seed_everything(config.seed, verbose=False)
        rows = torch.from_numpy(np.flatnonzero(present[self._candidate_of]))
        n = self.n if planned else len(rows)
        train = self._chosen(rows, planned)
        mechanism = build_mechanism(config, n, noise, train=train, unit=self.unit)
        data, features = self._data, self._features
        if not planned:
            data, features = _without(data, rows), _only(features, rows)
        assert config.trainer.precision != "auto"  # such a config is refused
        drawn = mechanism.train_batches()
        if planned and drawn:
            drawn = PresentBatches(drawn, present)
        net = network(config, len(data.classes), self._first, features, data.channels)
        model = classifier(config, net, data, mechanism, ALONE)
        released = mechanism.release_data(data)
        module = batches(config, released, features, self._patients, mechanism, 0, ALONE, drawn)
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
        mechanism.settle(net, _logits(net, module.train_eval_dataloader())[kept])
        return net.eval(), mechanism

    def _chosen(self, rows: Tensor, planned: bool) -> TrainingSet:
        """What statistics are made of: the images that are present."""
        its = self._train
        vectors = None if its.vectors is None else its.vectors[rows]
        chosen = (its.labels[rows], its.num_classes, vectors, its.length)
        if not planned:
            return TrainingSet(*chosen)
        whose = np.unique(self._candidate_of[rows.numpy()], return_inverse=True)[1]
        patients = torch.from_numpy(whose) if self._patients else None
        return Present(*chosen, patients=patients, all=self.n)

    def confidences(self, net: DecidingNetwork) -> Values:
        """(n,) log odds that a model gives a candidate's own classes, the mean over their images.

        Of K findings (n, K), each the mean over the images of which it is known; NaN where it is
        of none. The images are clean.
        """
        split, size = self._data.splits["train"], self.config.data.image_size
        candidates = (
            FeatureDataset(self._features, "train") if self._features else ImageDataset(split, size)
        )
        loader: DataLoader[tuple[Tensor, Tensor]] = DataLoader(
            candidates, batch_size=_EVALUATED_AT_ONCE, collate_fn=lambda batch: batch
        )
        logits = _logits(net, loader).double().numpy()
        if self._data.multilabel:
            return self._of_candidates(finding_confidence(logits, self.labels.astype(np.float64)))
        of_images = logit_confidence(logits, self.labels.astype(np.int64))
        return self._of_candidates(of_images[:, None])[:, 0]

    def _of_candidates(self, of_images: Values) -> Values:
        """(N, K) of images to (n, K): means over those of a candidate that are no NaN."""
        known = ~np.isnan(of_images)
        sums, counts = np.zeros((2, self.n, of_images.shape[1]))
        np.add.at(sums, self._candidate_of, np.where(known, of_images, 0.0))
        np.add.at(counts, self._candidate_of, known)
        return np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)


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
