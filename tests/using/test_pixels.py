"""What a network is shown: the same bits as test images in a run."""

import numpy as np
import pytest
import torch

from dpmi.data.datamodule import ImageDataset
from dpmi.data.prepare import Split
from dpmi.data.readers import CHANNELS, READERS
from dpmi.mechanisms.ldp_release import coarse
from dpmi.using.pixels import Pixels


@pytest.mark.parametrize(("side", "image_size"), [(32, 32), (44, 33), (36, 32)])
@pytest.mark.parametrize("pool", [1, 2, 4])
@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_are_coarsened_cut_and_scaled_to_the_bit_as_in_a_run(
    side, image_size, pool, channels
):
    rng = np.random.default_rng(side + pool)
    pixels = rng.integers(0, 256, (40, channels, side, side), dtype=np.uint8)
    pixels[0], pixels[1] = 255, 0
    split = Split(coarse(pixels, pool), np.zeros(40, np.int64), ("",) * 40)
    expected, _ = ImageDataset(split, image_size).__getitems__(range(40))
    found = Pixels(side, image_size, pool)(torch.from_numpy(pixels))
    assert torch.equal(found, expected)


def test_channels_are_those_of_the_readers(composed, tmp_path):
    assert set(READERS) - set(CHANNELS) == {"folder", "csv"}
    for name in ("phantom_xray", "phantom_fundus"):
        assert READERS[name](composed(f"data={name}").data, tmp_path).channels == CHANNELS[name]
