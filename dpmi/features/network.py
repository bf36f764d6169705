"""From images to the vectors that a head reads, as one network."""

from __future__ import annotations

from torch import Tensor, nn

from dpmi.config.sections import FeatureSettings
from dpmi.features.backbone import STAGES, FrozenBackbone, seen
from dpmi.features.projection import Projection
from dpmi.features.vectors import unit_vectors


class ImageFeatures(nn.Module):
    """What ``extract_features`` computes, of images as they come.

    Args:
        state: the backbone's weights, torchvision's ``resnet18`` state dict.
        settings: stages, views and exposure.
        projection: that the vectors go through; None where they go through none.

    Raises:
        UserError: the state dict is not a ResNet-18's.
    """

    mean: Tensor
    directions: Tensor

    def __init__(
        self, state: dict[str, Tensor], settings: FeatureSettings, projection: Projection | None
    ) -> None:
        super().__init__()
        self._settings, self._projects = settings, projection is not None
        self.backbone = FrozenBackbone(state, max(settings.stages, key=list(STAGES).index))
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
