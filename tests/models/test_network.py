import copy
from pathlib import Path

import pytest
import torch
from small_network import SMALL
from torch import nn
from torchvision.models import densenet121, get_model, get_weight

from dpmi.backbones import backbone, names
from dpmi.base.errors import UserError
from dpmi.features.backbone import FrozenBackbone
from dpmi.models.network import Pretrained, build_network, refuse_colour
from dpmi.models.norms import FrozenStatisticsBatchNorm

pytestmark = pytest.mark.usefixtures("one_thread")

SIDE = 64
NAMES = [name for name in names() if name != SMALL]


def drawn(net):
    """Statistics, biases and heads as pretraining leaves them, not 0 and 1."""
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.running_mean, std=0.3)
            nn.init.uniform_(layer.running_var, 0.5, 2.0)
        for parameter in layer.parameters(recurse=False):
            if parameter.std() == 0 or not parameter.isfinite().all():
                nn.init.normal_(parameter, mean=parameter.mean().item(), std=0.2)
    return net.eval()


@pytest.fixture(scope="module", params=NAMES)
def reference(request):
    """Name of a backbone, and torchvision's own network of that name."""
    torch.manual_seed(0)
    sized = {"image_size": SIDE} if backbone(request.param).patch > 1 else {}
    return request.param, drawn(get_model(request.param, num_classes=5, **sized))


@pytest.fixture(scope="module")
def own(reference):
    """The same network as it is trained, on public weights as they are."""
    name, net = reference
    return build_network(name, 5, backbone(name).constant_norm, net.state_dict(), side=SIDE).eval()


@pytest.fixture
def images():
    return torch.randint(0, 256, (2, 3, SIDE, SIDE), dtype=torch.uint8)


def test_it_computes_of_an_image_what_torchvision_computes_with_its_own_preprocessing(
    reference, own, images
):
    name, net = reference
    preset = get_weight(backbone(name).imagenet).transforms(crop_size=SIDE, resize_size=SIDE)
    with torch.no_grad():
        expected, found = net(preset(images)), own(images / 255)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    gray = images[:, :1] / 255
    with torch.no_grad():
        torch.testing.assert_close(own(gray), own(gray.expand(-1, 3, -1, -1)))


def test_what_the_last_layer_is_given_is_the_last_feature(reference, own, images):
    name, net = reference
    frozen = FrozenBackbone(Pretrained(name, net.state_dict()), "penultimate", SIDE)
    with torch.no_grad():
        features = frozen(images / 255)
        torch.testing.assert_close(
            own.head(features["penultimate"]), own(images / 255), rtol=1e-3, atol=1e-4
        )
    assert tuple(features) == backbone(name).features
    assert {f: v.shape[1] for f, v in features.items()} == frozen.channels


@pytest.mark.parametrize("last", ["stem", "layer2"])
def test_frozen_are_those_weights_that_a_stage_depends_on_and_no_others(
    reference, own, images, last
):
    (name, _), own, seen = reference, copy.deepcopy(own), []
    (path,) = [path for path in own.backbone.stages[last] if path == own.backbone.stages[last][-1]]
    own.net.get_submodule(path).register_forward_hook(lambda *given: seen.append(given[2]))
    own(images / 255)
    seen[0].square().sum().backward()
    reached = {n for n, p in own.net.named_parameters() if p.grad is not None}
    if name == "vit_b_16" and last == "stem":
        reached |= {"class_token", "encoder.pos_embedding"}  # they join what the patches give
    own.freeze(last)
    assert {n for n, p in own.net.named_parameters() if not p.requires_grad} == reached


def test_norms_biases_and_the_head_are_all_that_is_trained_where_all_else_is_frozen(own):
    own = copy.deepcopy(own)
    own.freeze_all_but_norms()
    trained = {n: p for n, p in own.net.named_parameters() if p.requires_grad}
    head = {f"{own.backbone.head}.{n}" for n, _ in own.head.named_parameters()}
    assert head <= set(trained)
    layers = dict(own.net.named_modules())
    for name in {n.rpartition(".")[0] for n, _ in own.net.named_parameters()} - {""}:
        kinds = (nn.GroupNorm, nn.LayerNorm, FrozenStatisticsBatchNorm)
        if isinstance(layers[name], kinds):
            assert {f"{name}.weight", f"{name}.bias"} <= set(trained)
        elif isinstance(layers[name], nn.Conv2d | nn.Linear):
            assert (f"{name}.weight" in trained) == (f"{name}.weight" in head)
    whole = sum(p.numel() for p in own.net.parameters())
    of_head = sum(p.numel() for n, p in trained.items() if n in head)
    assert sum(p.numel() for p in trained.values()) - of_head < 0.02 * whole


@pytest.mark.parametrize("norm", ["group", "frozen_batch"])
def test_no_batch_norm_is_left_and_its_weights_can_start_another_run(reference, norm):
    name, net = reference
    if norm not in backbone(name).norms:
        pytest.skip("has LayerNorm")
    own = build_network(name, 5, norm, net.state_dict(), side=SIDE)
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in own.modules())
    again = build_network(name, 5, norm, own.exported(), side=SIDE)
    assert all(torch.equal(a, b) for a, b in zip(own.parameters(), again.parameters(), strict=True))


def test_it_computes_of_an_x_ray_what_torchxrayvisions_network_computes():
    """As its datasets.normalize and its DenseNet do: [-1024, 1024], one channel."""
    torch.manual_seed(0)
    net = densenet121(num_classes=18)
    net.features.conv0 = nn.Conv2d(1, 64, 7, 2, 3, bias=False)
    drawn(net)
    image = torch.randint(0, 256, (2, 1, SIDE, SIDE)).float()
    own = build_network("densenet121", 18, "frozen_batch", net.state_dict(), shown="xrv").eval()
    with torch.no_grad():
        expected = net((2 * (image / 255) - 1) * 1024)
        torch.testing.assert_close(own(image / 255), expected, rtol=1e-3, atol=1e-3)
    with pytest.raises(UserError, match=r"^model\.input=xrv: these weights take gray images"):
        refuse_colour("xrv", 3)


def test_each_network_has_one_file_of_code_and_one_of_config():
    configs = Path(__file__).parents[2] / "conf" / "model"
    assert sorted(path.stem for path in configs.glob("*.yaml")) == NAMES
