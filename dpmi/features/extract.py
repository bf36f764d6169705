"""From a data set and frozen public weights to one vector of length one for each image."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor

from dpmi.backbones import backbone
from dpmi.base.errors import UserError
from dpmi.config.sections import FeatureSettings
from dpmi.data.prepare import PreparedData, prepare
from dpmi.features.cache import FeatureRequest, pooled_features
from dpmi.features.projection import Projection, drawn_images, fitted
from dpmi.features.vectors import unit_vectors
from dpmi.models.network import Pretrained


@dataclass(frozen=True)
class Features:
    """What a head sees of a data set; row i of vectors and labels speaks of the same image.

    Attributes:
        vectors: split to (n, D) float32, rows of length 1 (but for rounding) or 0.
        labels: split to (n,) class indices.
        projection: that the vectors went through, public; None where they went through none.
        drawn: vectors (m, D) and labels (m,) of drawn images of the same classes, public; None
            where they are not asked for.
    """

    vectors: dict[str, Tensor]
    labels: dict[str, Tensor]
    projection: Projection | None = None
    drawn: tuple[Tensor, Tensor] | None = None

    @property
    def public(self) -> dict[str, Tensor]:
        """What is kept beside a head on them, by its name in the file."""
        return self.projection.exported() if self.projection else {}


def extract_features(
    data: PreparedData,
    settings: FeatureSettings,
    *,
    image_size: int,
    pretrained: Pretrained,
    cache_dir: Path,
    console: Console,
    device: str = "cpu",
) -> Features:
    """Compute the features of all splits, or take them from the cache.

    No privacy is spent: nothing is released of them, and each vector depends on its image, on
    public weights, on fixed views and on images that the program draws, alone. Whatever a mechanism
    is to protect of an image, it has to protect of that one vector.

    Args:
        data: decoded images.
        settings: stages, views, exposure, public projection; whether drawn images of the same
            classes are given with it.
        image_size: side of the square cut from the images' centre, in pixels.
        pretrained: the network, of public data.
        cache_dir: features are kept in ``cache_dir/features``.
        console: shows the progress.
        device: that computes them.

    Raises:
        UserError: the weights are not of this network, or the cache cannot be written; or the
            classes of the images are not those of drawn ones.
    """
    how = settings, image_size, pretrained, cache_dir, console, device
    labels = {name: torch.from_numpy(split.labels) for name, split in data.splits.items()}
    if settings.project is None:
        return Features(vectors_of(data, *how), labels)
    drawn = prepare(drawn_images(data.channels, image_size), cache_dir)
    if settings.drawn_classes and _names(drawn) != _names(data):
        raise UserError(
            f"model.features.drawn_classes=True: the classes of data={data.name} are "
            f"{', '.join(data.classes)}, those of drawn images {', '.join(drawn.classes)}; allowed "
            "is false"
        )
    of_drawn = vectors_of(drawn, *how)["train"]
    projection = fitted(of_drawn, settings.project)
    known = projection(of_drawn), torch.from_numpy(drawn.splits["train"].labels)
    return Features(
        vectors={split: projection(rows) for split, rows in vectors_of(data, *how).items()},
        labels=labels,
        projection=projection,
        drawn=known if settings.drawn_classes else None,
    )


def _names(data: PreparedData) -> list[str]:
    return [name.casefold() for name in data.classes]


def vectors_of(
    data: PreparedData,
    settings: FeatureSettings,
    image_size: int,
    pretrained: Pretrained,
    cache_dir: Path,
    console: Console,
    device: str,
) -> dict[str, Tensor]:
    """The vectors of :func:`extract_features` before any projection, by split."""
    deepest = max(settings.stages, key=backbone(pretrained.name).features.index)
    of_views = [
        pooled_features(
            FeatureRequest(data, image_size, pretrained, deepest, view, settings.exposure),
            cache_dir,
            console,
            device,
        )
        for view in settings.views
    ]
    return {
        split: unit_vectors([[of[split][stage] for stage in settings.stages] for of in of_views])
        for split in data.splits
    }
