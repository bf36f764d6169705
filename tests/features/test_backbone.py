import pytest
import torch

from dpmi.features.backbone import VIEWS, FrozenBackbone, seen
from dpmi.features.vectors import unit_vectors
from dpmi.models.network import build_network

STAGES = {"layer1": 64, "layer2": 128, "layer3": 256, "layer4": 512}  # channels of each

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("channels", [1, 3])
def test_the_folded_backbone_computes_what_the_network_does(pretrained, channels):
    net = build_network("resnet18", 2, "frozen_batch", pretrained.state)
    kept = {}
    for stage in STAGES:
        net.net.get_submodule(stage).register_forward_hook(
            lambda _, __, out, stage=stage: kept.update({stage: out.mean((2, 3))})
        )
    images = torch.rand(3, channels, 48, 48)
    with torch.no_grad():
        net(images)
        pooled = FrozenBackbone(pretrained, "layer4", 48)(images)
    assert list(pooled) == list(STAGES)
    for stage, channels_of in STAGES.items():
        assert pooled[stage].shape == (3, channels_of)
        torch.testing.assert_close(pooled[stage], kept[stage], rtol=1e-3, atol=1e-4)


def test_nothing_of_the_backbone_can_be_trained_and_deeper_stages_are_not_computed(pretrained):
    backbone = FrozenBackbone(pretrained, "layer2", 32).train(False)
    assert not any(p.requires_grad for p in backbone.parameters())
    assert list(backbone(torch.rand(1, 1, 32, 32))) == ["layer1", "layer2"]
    assert not any("layer3" in name for name, _ in backbone.named_modules())


def test_views_are_exact_mirrors_and_turns_and_undo_themselves():
    images = torch.rand(2, 3, 5, 5)
    assert seen(images, "identity", "as_is") is images
    assert torch.equal(seen(images, "mirror", "as_is")[0, 0, 1], images[0, 0, 1].flip(0))
    turned = seen(images, "half_turn", "as_is")
    assert torch.equal(turned, images.rot90(2, (2, 3)))
    for view in VIEWS:
        assert torch.equal(seen(seen(images, view, "as_is"), view, "as_is"), images)


def test_exposure_and_contrast_no_longer_matter_once_standardised_and_a_blank_image_is_finite():
    image = torch.rand(1, 1, 8, 8)
    darker = image * 0.3 + 0.1
    one, other = (seen(i, "identity", "per_image") for i in (image, darker))
    torch.testing.assert_close(one, other)
    assert seen(torch.full((1, 1, 8, 8), 0.7), "identity", "per_image").isfinite().all()
    both = seen(torch.cat([image, torch.rand(1, 1, 8, 8)]), "identity", "per_image")
    torch.testing.assert_close(both[:1], one)  # each image by itself


def test_the_views_of_an_image_are_one_row_of_length_one():
    views = [[torch.rand(4, 6), torch.rand(4, 3)] for _ in VIEWS]
    rows = unit_vectors(views)
    assert rows.shape == (4, 9)
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(4))
    mean = [sum(view[stage] for view in views) / len(views) for stage in (0, 1)]
    torch.testing.assert_close(rows, unit_vectors([mean]))


def test_a_stage_weighs_by_its_channels_and_not_by_the_size_of_its_values():
    a, b = torch.rand(4, 6), torch.rand(4, 3)
    rows = unit_vectors([[a, b]])
    torch.testing.assert_close(rows, unit_vectors([[a * 100 + 5, b * 0.01]]), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(rows[:, :6].square().sum(1), torch.full((4,), 6 / 9))
    assert torch.equal(unit_vectors([[torch.ones(2, 4)]]), torch.zeros(2, 4))


def test_a_row_depends_on_its_image_alone():
    views = [[torch.rand(5, 6)]]
    rows = unit_vectors(views)
    views[0][0][3] = 9 * torch.rand(6)
    others = [0, 1, 2, 4]
    assert torch.equal(unit_vectors(views)[others], rows[others])
