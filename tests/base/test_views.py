"""Views of an example go through a network next to one another."""

import torch

from dpmi.base.views import as_one_batch


def test_views_of_an_image_stand_next_to_one_another_and_one_of_each_is_left_as_it_is():
    views, labels = torch.rand(3, 2, 1, 4, 4), torch.tensor([0, 1, 2])
    together, of_views, count = as_one_batch(views, labels)
    assert count == 2
    assert torch.equal(together[2:4], views[1])
    assert of_views.tolist() == [0, 0, 1, 1, 2, 2]
    for images in (torch.rand(3, 1, 4, 4), torch.rand(3, 5)):
        same, of_views, count = as_one_batch(images, labels)
        assert count == 1
        assert same is images
        assert torch.equal(of_views, labels)
    assert as_one_batch(torch.rand(0, 4, 1, 8, 8), labels[:0])[0].shape == (0, 1, 8, 8)


def test_views_that_are_images_of_a_patient_keep_labels_of_their_own():
    vectors, labels = torch.rand(2, 3, 5), torch.tensor([[0, 1, 0], [2, 2, 2]])
    together, of_views, count = as_one_batch(vectors, labels)
    assert count == 3
    assert torch.equal(together[:3], vectors[0])
    assert of_views.tolist() == [0, 1, 0, 2, 2, 2]
