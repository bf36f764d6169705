import numpy as np
import pytest

from dpmi.reporting.intervals import Interval, over_images, over_seeds


@pytest.mark.parametrize(
    ("right", "images", "low", "high"),
    [  # Newcombe 1998, table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_the_interval_over_images_is_wilsons_as_published(right, images, low, high):
    found = over_images(right / images, images)
    assert (found.low, found.high) == pytest.approx((low, high), abs=5e-5)
    assert (found.over, found.n) == ("images", images)


def test_the_posters_test_set_leaves_two_to_three_points_either_way():
    for share, half in ((0.9, 0.024), (0.8, 0.031)):
        found = over_images(share, 624)
        assert (found.high - found.low) / 2 == pytest.approx(half, abs=1e-3)


def test_the_interval_over_seeds_is_students_for_the_mean():
    found = over_seeds([0.70, 0.80, 0.90])  # s = 0.1, t(2) = 4.302653 by any table
    half = 4.302653 * 0.1 / 3**0.5
    assert (found.low, found.high) == pytest.approx((0.8 - half, 1.0), abs=1e-6)
    assert over_seeds([0.79, 0.80, 0.81]).high == pytest.approx(0.8 + half / 10, abs=1e-6)
    assert over_seeds([0.8, 0.8]) == Interval(0.8, 0.8, "seeds", 2)


def test_one_seed_has_no_interval_over_seeds():
    with pytest.raises(ValueError, match="two"):
        over_seeds([0.8])


def test_both_intervals_hold_the_truth_95_times_in_100():
    rng = np.random.default_rng(0)
    draws = 2000
    shares = rng.binomial(624, 0.8, draws) / 624
    held = sum(i.low <= 0.8 <= i.high for i in (over_images(s, 624) for s in shares))
    assert held / draws == pytest.approx(0.95, abs=0.02)
    held = 0
    for values in rng.normal(0.8, 0.01, (draws, 3)):
        found = over_seeds(values.tolist())
        held += found.low <= 0.8 <= found.high
    assert held / draws == pytest.approx(0.95, abs=0.02)
