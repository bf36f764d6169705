import numpy as np
import pytest

from dpmi.data.datamodule import ImageDataModule
from dpmi.mechanisms import LocalDP
from dpmi.privacy.randomness import NoiseSource


def noised_by(data, beta=1.0, noise_test=False, noise_seed=None):
    mechanism = LocalDP(beta, noise_test, NoiseSource(noise_seed))
    return mechanism, mechanism.release_data(data)


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
def test_every_epoch_sees_the_same_noised_image(numbered, num_workers):
    _, released = noised_by(numbered)
    loader = module(released, num_workers=num_workers).train_dataloader()
    (first, order), (second, other_order) = epoch(loader), epoch(loader)
    assert not np.array_equal(order, other_order)  # shuffled anew, and yet:
    np.testing.assert_array_equal(first, second)
    in_order, _ = epoch(module(released).train_eval_dataloader())
    np.testing.assert_array_equal(first, in_order)
    clean, _ = epoch(module(numbered).train_eval_dataloader())
    assert (np.abs(first - clean).mean(axis=(1, 2, 3)) > 0.2).all()  # and each is noised


def test_equal_images_get_noise_of_their_own(stripes):
    data = stripes(train=20)
    data.splits["train"].pixels[:] = 128
    _, released = noised_by(data)
    images = released.splits["train"].pixels.reshape(20, -1)
    assert len(np.unique(images, axis=0)) == 20


def test_test_images_stay_clean_unless_asked_for(stripes):
    data = stripes()
    before = data.splits["test"].pixels.copy()
    _, released = noised_by(data)
    np.testing.assert_array_equal(released.splits["test"].pixels, before)
    _, released = noised_by(data, noise_test=True)
    assert (released.splits["test"].pixels != before).mean() > 0.9


def test_the_prepared_images_are_not_touched(stripes):
    """They are the cache on disk, which other runs share."""
    data = stripes()
    before = data.splits["train"].pixels.copy()
    _, released = noised_by(data)
    np.testing.assert_array_equal(data.splits["train"].pixels, before)
    assert not np.shares_memory(released.splits["train"].pixels, before)


def test_a_second_release_is_refused(stripes):
    mechanism, _ = noised_by(stripes())
    with pytest.raises(RuntimeError, match="already released"):
        mechanism.release_data(stripes())


@pytest.mark.parametrize("beta", [1.0, 2.0, 4.0])
def test_the_guarantee_tells_epsilon_of_the_pixel_and_of_the_image(stripes, beta):
    mechanism, _ = noised_by(stripes(), beta)
    promise = mechanism.guarantee()
    assert (promise.epsilon, promise.delta, promise.unit) == (1 / beta, 0.0, "pixel")
    assert promise.image_epsilon == 32 * 32 / beta
    assert "1024 values" in " ".join(promise.assumptions)
    assert f"ε = {1 / beta:.4g}" in str(promise)
    assert f"ε = {1024 / beta:.4g} per image" in str(promise)


def test_there_is_no_guarantee_before_the_release(stripes):
    mechanism = LocalDP(1.0, False, NoiseSource(None))
    assert mechanism.guarantee().epsilon is None


def test_the_noise_comes_from_the_operating_system_unless_a_noise_seed_is_given(stripes):
    data = stripes()
    drawn = [noised_by(data)[1].splits["train"].pixels for _ in range(2)]
    assert not np.array_equal(*drawn)
    repeated = [noised_by(data, noise_seed=5)[1].splits["train"].pixels for _ in range(2)]
    np.testing.assert_array_equal(*repeated)


def test_training_and_test_images_get_noise_of_their_own(stripes):
    """Equal images with equal noise would tell that they are equal, and more at each further."""
    data = stripes(train=32)
    for split in data.splits.values():
        split.pixels[:] = 128
    _, released = noised_by(data, noise_test=True, noise_seed=5)
    train, test = (released.splits[name].pixels for name in ("train", "test"))
    assert train.shape == test.shape
    assert (train == test).mean() < 0.5  # saturated both, mostly
    middle = (train % 255 > 0) & (test % 255 > 0)
    assert (train == test)[middle].mean() < 0.05
