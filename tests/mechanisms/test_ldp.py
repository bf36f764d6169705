import dataclasses

import numpy as np
import pytest
from scipy import stats

from dpmi.data.datamodule import ImageDataModule
from dpmi.mechanisms import LocalDP
from dpmi.privacy.guarantee import REPEATABLE, Group, printed_epsilon
from dpmi.privacy.laplace import pixel_noise
from dpmi.privacy.randomness import NoiseSource


@pytest.fixture
def noised_by(tmp_path):
    """``noised_by(data, beta, ...)``: the mechanism, and the images that it releases."""

    def release(
        data, beta=1.0, pool=1, matched=True, seed=1, noise_seed=None, cache=tmp_path, **changes
    ):
        mechanism = LocalDP(beta, pool, matched, seed, NoiseSource(noise_seed), cache, **changes)
        return mechanism, mechanism.release_data(data)

    return release


def module(data, **changes):
    settings = {"image_size": 32, "batch_size": 7, "augment": "none", "num_workers": 0, "seed": 3}
    return ImageDataModule(data, **settings | changes)


@pytest.fixture
def numbered(stripes):
    """Images whose label is their number, so that shuffling cannot hide which is which."""
    data = stripes(train=40)
    data.splits["train"].labels[:] = np.arange(40)
    return data


def epoch(loader):
    """Images of one pass in the order of their numbers, and the order in which they came."""
    batches = [(images.numpy(), labels.numpy()) for images, labels in loader]
    images, numbers = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    return images[np.argsort(numbers)], numbers


@pytest.mark.parametrize("num_workers", [0, 2])
def test_every_epoch_sees_the_same_noised_image(numbered, num_workers, noised_by):
    _, released = noised_by(numbered)
    loader = module(released, num_workers=num_workers).train_dataloader()
    (first, order), (second, other_order) = epoch(loader), epoch(loader)
    assert not np.array_equal(order, other_order)  # shuffled anew, and yet:
    np.testing.assert_array_equal(first, second)
    in_order, _ = epoch(module(released).train_eval_dataloader())
    np.testing.assert_array_equal(first, in_order)
    clean, _ = epoch(module(numbered).train_eval_dataloader())
    assert (np.abs(first - clean).mean(axis=(1, 2, 3)) > 0.2).all()  # and each is noised


@pytest.mark.parametrize("noise_seed", [None, 5])
def test_a_block_is_released_by_its_mean_and_every_split_is_as_coarse(
    stripes, noised_by, noise_seed
):
    """With nearly no noise what is released is what the clean images are seen as."""
    data = stripes(side=64)
    mechanism, released = noised_by(data, beta=0.5, pool=4, noise_seed=noise_seed)
    means = data.splits["test"].pixels.reshape(-1, 16, 4, 16, 4).mean((2, 4))
    seen = released.splits["test"].pixels[:, 0].astype(float)
    middles = seen.reshape(-1, 16, 4, 16, 4)[:, :, 1:3, :, 1:3].mean((2, 4))  # next to the mean
    inner = np.s_[:, 1:-1, 1:-1]
    assert np.abs(middles - means)[inner].mean() < 5
    assert np.abs(seen - data.splits["test"].pixels[:, 0]).mean() > 50  # stripes are 2 wide
    clean, noisy = mechanism.reference(data)
    np.testing.assert_array_equal(clean.pixels, released.splits["test"].pixels)
    assert 1 < np.abs(noisy.pixels[:32].astype(int) - clean.pixels).mean() < 8  # its scale


def test_equal_images_get_noise_of_their_own(stripes, noised_by):
    data = stripes(train=20)
    data.splits["train"].pixels[:] = 128
    _, released = noised_by(data)
    images = released.splits["train"].pixels.reshape(20, -1)
    assert len(np.unique(images, axis=0)) == 20


def test_test_images_stay_clean(stripes, noised_by):
    data = stripes()
    _, released = noised_by(data)
    np.testing.assert_array_equal(released.splits["test"].pixels, data.splits["test"].pixels)


def test_the_images_by_which_a_network_is_matched_have_noise_of_the_releases_law(
    stripes, noised_by
):
    data = stripes(side=64)
    clean, noisy = noised_by(data, beta=0.5)[0].reference(data)
    np.testing.assert_array_equal(clean.pixels, data.splits["test"].pixels)  # there is no val
    assert noisy.pixels.shape == (64, 1, 64, 64)  # twice
    black = np.array(pixel_noise(0.5).chances(0), float) / 2.0**64  # by the value
    for value in (20, 40, 240):
        drawn = noisy.pixels[np.concatenate([clean.pixels] * 2) == value]
        assert stats.binomtest(int((drawn == 0).sum()), len(drawn), black[value]).pvalue > 1e-6
    assert (noisy.pixels[:32] == noisy.pixels[32:]).mean() < 0.6  # saturated alike, no more


def test_a_run_is_matched_by_the_noise_of_its_seed_and_on_validation_images(stripes, noised_by):
    data = stripes()
    data.splits["val"] = data.splits["train"]
    clean, first = noised_by(data, seed=1)[0].reference(data)
    assert clean.pixels is data.splits["val"].pixels
    again, other = (noised_by(data, seed=s)[0].reference(data)[1] for s in (1, 2))
    np.testing.assert_array_equal(first.pixels, again.pixels)
    assert (first.pixels == other.pixels).mean() < 0.6
    assert noised_by(data, matched=False)[0].reference(data) is None


def test_the_prepared_images_are_not_touched(stripes, noised_by):
    """They are the cache on disk, which other runs share."""
    data = stripes()
    before = data.splits["train"].pixels.copy()
    _, released = noised_by(data)
    np.testing.assert_array_equal(data.splits["train"].pixels, before)
    assert not np.shares_memory(released.splits["train"].pixels, before)


def test_a_second_release_is_refused(stripes, noised_by):
    mechanism, _ = noised_by(stripes())
    with pytest.raises(RuntimeError, match="already released"):
        mechanism.release_data(stripes())


@pytest.mark.parametrize("beta", [1.0, 2.0, 4.0])
def test_the_guarantee_states_epsilon_of_the_pixel_and_of_the_image(stripes, beta, noised_by):
    mechanism, _ = noised_by(stripes(), beta)
    promise = mechanism.guarantee()
    assert (promise.epsilon, promise.delta, promise.unit) == (1 / beta, 0.0, "pixel")
    assert promise.image_epsilon == 32 * 32 / beta
    assert promise.pixel_epsilon is None  # a pixel is one value
    assert "1024 values" in " ".join(promise.assumptions)
    assert f"ε = {printed_epsilon(1 / beta)}" in str(promise)
    assert f"ε = {printed_epsilon(1024 / beta)} per image" in str(promise)
    assert promise.adjacency == "replace-one"
    assert promise.replace_one_epsilon == promise.image_epsilon
    assert promise.epsilons == {"1e-5": 1 / beta, "1e-6": 1 / beta}  # pure: at any δ
    assert any("test images" in words for words in promise.assumptions)


@pytest.mark.parametrize(("pool", "moves"), [(2, 64), (4, 16)])
def test_blocks_keep_the_epsilon_of_a_pixel_and_all_their_pixels_move_a_mean_wholly(
    stripes, noised_by, pool, moves
):
    promise = noised_by(stripes(), 2.0, pool=pool)[0].guarantee()
    assert (promise.epsilon, promise.unit) == (0.5, "pixel")
    assert promise.image_epsilon == (32 // pool) ** 2 * 255 / moves / 2
    assert f"mean of each block of {pool} x {pool}" in " ".join(promise.assumptions)


def test_pure_epsilon_adds_up_over_the_images_of_a_patient(stripes, noised_by):
    mechanism, _ = noised_by(stripes(), 2.0, together={"largest_patient": 30, "copies": 3})
    image = 32 * 32 / 2
    assert mechanism.guarantee().private == {
        "largest_patient": Group(30, 30 * image), "copies": Group(3, 3 * image),
    }  # fmt: skip


def in_colour(data, gray=()):
    """The same images in three channels that differ, but for those whose number is given."""
    splits = {}
    for name, split in data.splits.items():
        pixels = np.repeat(split.pixels, 3, axis=1)
        pixels[:, 2] ^= 255
        if name == "train":
            pixels[list(gray)] = split.pixels[list(gray)]
        splits[name] = dataclasses.replace(split, pixels=pixels)
    return dataclasses.replace(data, channels=3, splits=splits)


@pytest.mark.parametrize("noise_seed", [None, 5])
def test_a_gray_value_gets_one_noise_however_many_channels_repeat_it(
    stripes, noised_by, noise_seed
):
    gray = [0, 3, 8]
    _, released = noised_by(in_colour(stripes(train=9), gray), noise_seed=noise_seed)
    pixels = released.splits["train"].pixels
    assert pixels.shape == (9, 3, 32, 32)
    for number, (red, green, blue) in enumerate(pixels):
        same = [np.array_equal(red, other) for other in (green, blue)]
        assert same == [number in gray] * 2
    images = pixels[gray, 0].reshape(3, -1)
    assert len(np.unique(images, axis=0)) == 3
    clean = stripes(train=9).splits["train"].pixels[gray, 0]
    assert (images != clean.reshape(3, -1)).mean() > 0.9


def test_the_unit_of_images_in_colour_is_a_channel_value_and_a_pixel_has_three(stripes, noised_by):
    promise = noised_by(in_colour(stripes(train=9), gray=[2]), beta=2.0)[0].guarantee()
    assert (promise.unit, promise.epsilon) == ("channel value", 0.5)
    assert promise.pixel_epsilon == 1.5
    assert promise.image_epsilon == 3 * 32 * 32 / 2
    assert "ε = 1.5 per pixel" in str(promise)
    assert any("gray or in colour is not protected" in words for words in promise.assumptions)


def test_training_images_that_are_all_gray_have_one_value_a_pixel(stripes, noised_by):
    promise = noised_by(in_colour(stripes(train=9), gray=range(9)))[0].guarantee()
    assert (promise.unit, promise.pixel_epsilon) == ("pixel", None)
    assert promise.image_epsilon == 32 * 32


def test_there_is_no_guarantee_before_the_release(tmp_path):
    mechanism = LocalDP(1.0, 1, True, 1, NoiseSource(None), tmp_path)
    assert mechanism.guarantee().epsilon is None


def test_the_noise_comes_from_the_operating_system_unless_a_noise_seed_is_given(
    stripes, noised_by, tmp_path
):
    data = stripes()
    drawn = [noised_by(data, cache=tmp_path / c)[1].splits["train"].pixels for c in "ab"]
    assert not np.array_equal(*drawn)
    repeated = [noised_by(data, noise_seed=5)[1].splits["train"].pixels for _ in range(2)]
    np.testing.assert_array_equal(*repeated)


@pytest.mark.parametrize("noise_seed", [None, 5])
def test_training_and_test_images_get_noise_of_their_own(stripes, noised_by, noise_seed):
    """Test images are noised with what anybody can repeat: it must take off nobody's noise."""
    data = stripes(train=32)
    for split in data.splits.values():
        split.pixels[:] = 128
    mechanism, released = noised_by(data, seed=5, noise_seed=noise_seed)
    train, test = released.splits["train"].pixels, mechanism.reference(data)[1].pixels[:32]
    middle = (train % 255 > 0) & (test % 255 > 0)
    assert middle.sum() > 1000
    assert (train == test)[middle].mean() < 0.05


def test_noise_that_noise_seed_repeats_gives_no_guarantee(stripes, noised_by):
    mechanism, _ = noised_by(stripes(), noise_seed=5)
    assert mechanism.guarantee().epsilon is None
    assert mechanism.guarantee().reason == REPEATABLE
    assert mechanism.spent() is None
