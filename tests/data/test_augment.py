"""How images are moved: torchvision's law, each image by itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from torchvision.transforms import v2

from dpmi.data.augment import draw_affine

IMAGES = 4000


def drawn_by_torchvision(side: int) -> tuple[np.ndarray, np.ndarray]:
    affine = v2.RandomAffine(degrees=0, translate=(0, 0.1), scale=(1, 1.1))
    image = [torch.empty(1, side, side)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        drawn = [affine.make_params(image) for _ in range(IMAGES)]
    shifts = [one["translate"][1] for one in drawn]
    return np.array(shifts), np.array([one["scale"] for one in drawn])


@pytest.mark.parametrize("side", [32, 65])
def test_shifts_and_scales_have_the_law_of_torchvisions(side: int) -> None:
    """Fixed seeds: no false alarm; the thresholds are one in a thousand's."""
    shifts, scales = (t.numpy() for t in draw_affine(range(IMAGES), side, seed=1, step=2))
    their_shifts, their_scales = drawn_by_torchvision(side)
    assert set(shifts) == set(their_shifts)  # whole pixels, of the same range
    values = sorted(set(shifts))
    table = [[(of == value).sum() for value in values] for of in (shifts, their_shifts)]
    assert stats.chi2_contingency(table).pvalue > 1e-3
    assert stats.ks_2samp(scales, their_scales).pvalue > 1e-3
    assert abs(stats.spearmanr(shifts, scales).statistic) < 3.3 / IMAGES**0.5


def test_draws_of_neighbouring_images_steps_seeds_and_views_have_nothing_in_common() -> None:
    def scales(seed: int, step: int) -> np.ndarray:
        return draw_affine(range(IMAGES), 64, seed, step)[1].numpy()

    one, *others = scales(1, 2), scales(1, 3), scales(2, 2), scales(2, 1)
    others += [draw_affine(range(IMAGES), 64, 1, 2, view)[1].numpy() for view in (1, 2)]
    assert len(np.unique([one, *others])) == 6 * IMAGES
    for first, second in [(one[1:], one[:-1]), *((one, other) for other in others)]:
        assert abs(stats.spearmanr(first, second).statistic) < 3.3 / len(first) ** 0.5


@pytest.mark.parametrize("view", [0, 1, 3])
def test_what_is_drawn_for_an_image_depends_on_no_other(view: int) -> None:
    shifts, scales = draw_affine(range(100), 64, seed=1, step=2, view=view)
    for indices in ([], [99], [70, 3, 41], list(range(99, -1, -1))):
        some = draw_affine(indices, 64, seed=1, step=2, view=view)
        assert torch.equal(some[0], shifts[indices])
        assert torch.equal(some[1], scales[indices])
