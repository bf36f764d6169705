"""Views of an image go through a network next to one another."""

import torch

from dpmi.views import as_one_batch


def test_views_of_an_image_stand_next_to_one_another_and_one_of_each_is_left_as_it_is():
    views = torch.rand(3, 2, 1, 4, 4)
    together, count = as_one_batch(views)
    assert count == 2
    assert torch.equal(together[2:4], views[1])
    for images in (torch.rand(3, 1, 4, 4), torch.rand(3, 5)):
        same, count = as_one_batch(images)
        assert count == 1
        assert same is images
    assert as_one_batch(torch.rand(0, 4, 1, 8, 8))[0].shape == (0, 1, 8, 8)
