"""From decoded pixels to what a network is shown, in one module that can be exported with it."""

from __future__ import annotations

from torch import Tensor, nn


class Pixels(nn.Module):
    """uint8 images as decoded, to float32 images in [0, 1] as test images were in the run.

    Under local DP these are as coarse as the released ones: means of blocks, and between their
    middles linear interpolation (``mechanisms.ldp_release.coarse``, to the bit).

    Args:
        side: R of the decoded images, in pixels.
        image_size: S of the square that is cut from their centre, in pixels.
        pool: side of the blocks; 1 leaves each pixel.
    """

    def __init__(self, side: int, image_size: int, pool: int) -> None:
        super().__init__()
        self.side, self.image_size, self._pool = side, image_size, pool

    def forward(self, pixels: Tensor) -> Tensor:
        """uint8 (B, C, R, R) to float32 (B, C, S, S)."""
        x = pixels.float()
        if self._pool > 1:  # every number below is exact in float32
            means = (nn.functional.avg_pool2d(x, self._pool) + 0.5).floor()
            x = nn.functional.interpolate(
                means, scale_factor=float(self._pool), mode="bilinear", align_corners=False
            )
            x = x.round().clamp(0, 255)
        edge = round((self.side - self.image_size) / 2)  # as torchvision's CenterCrop
        x = x[..., edge : edge + self.image_size, edge : edge + self.image_size]
        return x / 255
