"""Several views of each example in a batch, whose mean gradient is the example's.

Views of an image are augmented apart: augmentation multiplicity (De et al. 2022, arXiv 2204.13650,
"Unlocking High-Accuracy Differentially Private Image Classification through Scale", section 3.2).
Views of a patient are images of that patient. In both cases the mean is taken before it is
clipped, so that an example still adds one vector of the clipping norm and more views cost no
privacy.
"""

from __future__ import annotations

from torch import Tensor

from dpmi.base.targets import are_findings


def as_one_batch(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, int]:
    """What a network can be given, and how many views of each example it has.

    Args:
        images: (B, K, C, H, W) or (B, K, D), K views of each; or with one of each, (B, C, H, W) or
            (B, D).
        labels: classes (B,), or of each view (B, K); findings (B, F), or of each view (B, K, F).

    Returns:
        (B K, C, H, W) or (B K, D), the views of an example next to one another, their labels
        (B K,) or (B K, F), and K.
    """
    views = images.shape[1] if images.ndim in (3, 5) else 1
    together = images.flatten(0, 1) if images.ndim in (3, 5) else images
    return together, labels_of_views(labels, views), views


def labels_of_views(labels: Tensor, views: int) -> Tensor:
    """(B,) or (B, F), or of each of K views (B, K) or (B, K, F), to (B K,) or (B K, F)."""
    if labels.ndim == (3 if are_findings(labels) else 2):
        return labels.flatten(0, 1)
    return labels.repeat_interleave(views, 0)
