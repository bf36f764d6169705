import base64
import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from dpmi.run.logs.samples import LARGEST_SIDE, image_sample


def pixels(png):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(png))))


@pytest.mark.parametrize(
    ("overrides", "shown"),
    [
        (["data=phantom_xray"], True),
        (["data=chest_xray"], True),
        (["data=folder"], False),
        (["data=csv"], False),
        (["data=mimic_cxr"], False),
        (["data=nih"], True),
        (["data=folder", "logger.sample_images=all"], True),
        (["data=chest_xray", "logger.sample_images=none"], False),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
@pytest.mark.parametrize("logger", ["csv", "wandb"])
def test_a_users_own_images_are_in_no_record_unless_requested(
    composed, stripes, overrides, shown, logger
):
    data = stripes(train=4)
    config = composed(f"logger={logger}", *overrides)
    assert (image_sample(config, data, data) is not None) == shown


def test_a_sample_is_the_first_training_image_before_and_after(composed, stripes):
    clean, released = stripes(train=4), stripes(train=4)
    released.splits["train"].pixels[:] = 7
    sample = image_sample(composed("mechanism=ldp"), clean, released)
    np.testing.assert_array_equal(pixels(sample.before), clean.splits["train"].pixels[0, 0])
    assert (pixels(sample.after) == 7).all()
    assert (sample.label, sample.side, sample.every) == ("standing", 32, 1)


def test_an_image_that_the_mechanism_leaves_alone_is_kept_once(composed, stripes):
    data = stripes(train=4)
    assert image_sample(composed("mechanism=dpsgd"), data, data).after is None


def test_a_large_sample_keeps_whole_pixels_as_noisy_as_training_saw_them(composed, stripes):
    data = stripes(train=4, side=256)
    noise = np.random.default_rng(0).integers(0, 256, (4, 3, 256, 256)).astype(np.uint8)
    noisy = replace(data, splits={"train": replace(data.splits["train"], pixels=noise)})
    sample = image_sample(composed("mechanism=ldp"), data, noisy)
    kept = pixels(sample.after)
    assert kept.shape == (LARGEST_SIDE, LARGEST_SIDE, 3)
    np.testing.assert_array_equal(kept, np.moveaxis(noise[0, :, ::2, ::2], 0, -1))
    assert sample.every == 2
