"""Parts of a run that can be supplied instead of those its config names."""

from __future__ import annotations

from dataclasses import dataclass

import pytorch_lightning as L

from dpmi.data.prepare import PreparedData
from dpmi.features.extract import Features
from dpmi.models.prior import DecidingNetwork


@dataclass(frozen=True)
class Given:
    """An auditor's images, network and observer; everything else is the run that users run.

    Attributes:
        data: in place of the config's data set.
        net: in place of the config's ResNet-18, untrained. None trains the ResNet-18.
        watch: observes what the run releases; added to the run's own callbacks, before them.
        features: of the data, where a head is trained; None computes them, by drawn weights.
    """

    data: PreparedData
    net: DecidingNetwork | None = None
    watch: tuple[L.Callback, ...] = ()
    features: Features | None = None
