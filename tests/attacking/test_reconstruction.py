"""How much of an image comes back from its noised release."""

import numpy as np
import pytest

from dpmi.attacking.reconstruction import Denoiser, reconstruct, similarity
from dpmi.base.errors import UserError
from dpmi.privacy.laplace import laplace_mechanism, pixel_noise
from dpmi.privacy.randomness import NoiseSource

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def config(composed, tiny, tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    return lambda *words: composed(*tiny, f"cache_dir={cache}", *words)


def test_a_denoised_image_is_far_more_like_the_original(config):
    found = reconstruct(config("mechanism=ldp", "mechanism.pool=1", "beta=1"), 16, 0)
    assert found.images == 16
    assert found.psnr > found.psnr_released + 6
    assert found.ssim > found.ssim_released + 0.1


def test_less_noise_leaves_more_of_it(config):
    found = [
        reconstruct(config("mechanism=ldp", "mechanism.pool=1", f"beta={beta}"), 16, 0)
        for beta in (0.03, 0.3, 4)
    ]
    assert found[0].psnr > 28
    assert found[0].psnr > found[1].psnr > found[2].psnr


def test_noise_of_no_effect_is_undone_and_its_mean_effect_too():
    drawn = np.random.default_rng(0).integers(0, 256, (20, 1, 16, 16), np.uint8)
    law = pixel_noise(0.03)
    denoise = Denoiser(law, drawn)
    assert abs(denoise(drawn).astype(int) - drawn).max() <= 12
    # A dark image is released too bright, as what would be below black is cut off.
    dark = np.full((1, 1, 16, 16), 20, np.uint8)
    wide = pixel_noise(1)
    smooth = np.repeat(np.arange(0, 250, 10, dtype=np.uint8), 256).reshape(-1, 1, 16, 16)
    copies = np.repeat(dark, 400, 0)
    released = laplace_mechanism(copies, 1, NoiseSource(None).stream("laplace_train"))
    assert released.mean() > 60
    # 6.8 off, with a standard deviation of 0.94 over draws: one false alarm in ten million.
    assert abs(Denoiser(wide, smooth)(released).mean() - 20) < 12


def test_similarity_is_one_of_the_same_image():
    image = np.random.default_rng(0).integers(0, 256, (2, 1, 32, 32), np.uint8)
    ssim, psnr = similarity(image, np.stack([image[0], 255 - image[1]]))
    assert ssim[0] == pytest.approx(1)
    assert ssim[1] < 0
    assert psnr[1] < 10


def test_only_noise_on_pixels_can_be_taken_off(config):
    with pytest.raises(UserError, match=r"mechanism=dpsgd: .* reconstruction applies to ldp"):
        reconstruct(config("mechanism=dpsgd"), 1, 0)
