import base64
import io
import math

import numpy as np
import pytest
from PIL import Image

from dpmi.privacy.published import expected_blank_share
from dpmi.reporting.figure2 import figure2, similarity
from dpmi.reporting.sorting import figure4, merge


def pixels(png):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(png))))


@pytest.fixture
def shown(real_records):
    ours, _ = figure4(merge(real_records))
    return ours, figure2(ours)


def test_what_training_saw_is_shown_where_a_run_left_it_else_drawn_for_the_page(shown):
    _, figure = shown
    drawn = {(i.mechanism, i.beta): i.drawn for row in figure.rows.values() for i in row}
    assert drawn == {
        ("ldp", 1.0): "in the run",
        ("ldp_published", 1.0): "for this page",
        ("ldp", 4.0): "for this page",
        ("ldp_published", 4.0): "in the run",
    }


def test_published_noise_keeps_differences_of_pixels_and_independent_noise_does_not(shown):
    _, figure = shown
    clean = pixels(figure.before).astype(int)
    for row in figure.rows.values():
        for image in row:
            noised = pixels(image.png).astype(int)
            assert noised.shape == clean.shape == (32, 32)
            inside = (noised > 0) & (noised < 255)
            moved = np.unique((noised - clean)[inside])
            assert len(moved) <= 1 if image.mechanism == "ldp_published" else len(moved) > 30


def test_noise_of_blocks_is_shown_as_the_runs_had_it(shown):
    """In the run's own image and in one that is drawn for the page: smooth between the means."""
    _, figure = shown
    for beta, (ours, published) in figure.rows.items():
        assert (ours.pool, published.pool) == (4, 1)
        assert ours.title == f"on blocks of 4 x 4, β={beta:g}"
        steps = np.abs(np.diff(pixels(ours.png).astype(int), axis=1))
        assert steps[:, 2::4].mean() <= 255 / 4  # within a block's middle half
        assert (steps <= 64).all()  # a quarter of what two means can differ by


def test_the_blank_share_is_the_closed_form_and_at_least_exp_of_minus_epsilon(shown):
    _, figure = shown
    clean = pixels(figure.before)[None, None]
    for beta, (independent, published) in figure.rows.items():
        assert independent.blank is None
        assert published.blank == pytest.approx(expected_blank_share(clean, beta))
        assert published.blank >= math.exp(-1 / beta)


def test_similarity_has_its_known_values():
    rng = np.random.default_rng(0)
    image = rng.integers(20, 200, (1, 32, 32)).astype(np.uint8)
    ssim, psnr = similarity(image, np.stack([image, image + np.uint8(10), 255 - image]))
    assert ssim[0] == pytest.approx(1)
    assert psnr[0] == math.inf
    assert psnr[1] == pytest.approx(20 * math.log10(255 / 10), abs=1e-3)
    assert 0.9 < ssim[1] < 1
    assert ssim[2] < 0


def test_a_beta_at_which_local_dp_has_no_noise_is_left_out(real_records):
    """Of DP-SGD ε = 10 is possible; of a mean of 16 pixels no noise of ours keeps it."""
    records = merge(real_records)
    dpsgd = next(r for r in records if r.config["mechanism"]["name"] == "dpsgd")
    config = dpsgd.config | {"beta": 0.1}
    ours, _ = figure4([*records, dpsgd.model_copy(update={"config": config, "run": "other"})])
    assert 0.1 in {column.beta for column in ours.columns}
    assert set(figure2(ours).rows) == {1.0, 4.0}


def test_without_an_image_that_may_be_shown_there_is_no_figure(real_records):
    ours, _ = figure4([r.model_copy(update={"sample": None}) for r in merge(real_records)])
    assert figure2(ours) is None
