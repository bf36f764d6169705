"""Several views of each image in a batch: augmentation multiplicity (De et al. 2022, section 3.2).

"Unlocking High-Accuracy Differentially Private Image Classification through Scale", arXiv
2204.13650: an image's gradient is the mean over its views, taken before it is clipped, so that the
image still adds one vector of the clipping norm and the privacy costs nothing more.
"""

from __future__ import annotations

from torch import Tensor


def as_one_batch(images: Tensor) -> tuple[Tensor, int]:
    """What a network can be given, and how many views of each image it has.

    Args:
        images: (B, K, C, H, W), K views of each; or with one of each, (B, C, H, W) or (B, D).

    Returns:
        (B K, C, H, W), the views of an image next to one another, and K; or the same, and 1.
    """
    return (images.flatten(0, 1), images.shape[1]) if images.ndim == 5 else (images, 1)
