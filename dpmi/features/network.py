"""From images to the vectors that a head reads, as one network."""

from __future__ import annotations

from torch import Tensor, nn

from dpmi.backbones import backbone
from dpmi.config.sections import FeatureSettings
from dpmi.features.backbone import FrozenBackbone, seen
from dpmi.features.projection import Projection
from dpmi.features.vectors import unit_vectors
from dpmi.models.network import Pretrained


class ImageFeatures(nn.Module):
    """What ``extract_features`` computes, of images as they come.

    Args:
        pretrained: the backbone, with its weights.
        settings: stages, views and exposure.
        projection: that the vectors go through; None where they go through none.
        side: of the images, in pixels.

    Raises:
        UserError: the state dict is not of this network.
    """

    mean: Tensor
    directions: Tensor

    def __init__(
        self,
        pretrained: Pretrained,
        settings: FeatureSettings,
        projection: Projection | None,
        side: int,
    ) -> None:
        super().__init__()
        self._settings, self._projects = settings, projection is not None
        deepest = max(settings.stages, key=backbone(pretrained.name).features.index)
        self.backbone = FrozenBackbone(pretrained, deepest, side)
        if projection is not None:
            self.register_buffer("mean", projection.mean)
            self.register_buffer("directions", projection.directions)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 1 or 3, S, S) in [0, 1] to (B, D) of length one, float32; on what has float64."""
        settings = self._settings
        of_views = [self.backbone(seen(images, view, settings.exposure)) for view in settings.views]
        vectors = unit_vectors([[of[stage] for stage in settings.stages] for of in of_views])
        if not self._projects:
            return vectors
        return Projection(self.mean, self.directions)(vectors)
