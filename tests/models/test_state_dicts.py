import re

import pytest
import pytorch_lightning as L
import torch
from torch import nn
from torchvision.models import get_model
from torchvision.models.vision_transformer import interpolate_embeddings

from dpmi.backbones import backbone
from dpmi.base.errors import UserError
from dpmi.models.network import build_network
from dpmi.models.state_dicts import Read, chosen_input, translated
from dpmi.models.weights import read_state_dict

pytestmark = pytest.mark.usefixtures("one_thread")


def state_of(name, **options):
    torch.manual_seed(0)
    state = get_model(name, num_classes=4, **options).state_dict()
    return {k: v + 0.01 * torch.randn(v.shape) if v.dtype.is_floating_point else v
            for k, v in state.items()}  # fmt: skip


def loads(name, state, reference, **how):
    """Whether a backbone of 4 classes gets all the weights of the reference."""
    read = translated(name, state)
    net = build_network(name, 4, backbone(name).norms[0], read.state, **how)
    own = net.net.state_dict()
    return all(torch.equal(own[key], value) for key, value in reference.items())


def as_timm_names_convnext(key):
    key = re.sub(r"^features\.0\.", "stem.", key)
    key = re.sub(r"^features\.([246])\.", lambda m: f"stages.{int(m[1]) // 2}.downsample.", key)
    key = re.sub(r"^features\.([1357])\.", lambda m: f"stages.{int(m[1]) // 2}.blocks.", key)
    for own, timm in (
        ("block.0", "conv_dw"), ("block.2", "norm"), ("block.3", "mlp.fc1"),
        ("block.5", "mlp.fc2"), ("layer_scale", "gamma"),
        ("classifier.0", "head.norm"), ("classifier.2", "head.fc"),
    ):  # fmt: skip
        key = key.replace(own, timm)
    return key


def as_timm_names_vit(key):
    for own, timm in (
        ("class_token", "cls_token"), ("encoder.pos_embedding", "pos_embed"),
        ("conv_proj", "patch_embed.proj"), ("encoder.layers.encoder_layer_", "blocks."),
        ("self_attention.in_proj_", "attn.qkv."), ("self_attention.out_proj", "attn.proj"),
        ("ln_1", "norm1"), ("ln_2", "norm2"), ("mlp.0", "mlp.fc1"), ("mlp.3", "mlp.fc2"),
        ("encoder.ln", "norm"), ("heads.head", "head"),
    ):  # fmt: skip
        key = key.replace(own, timm)
    return key


TIMM = {"convnext_tiny": as_timm_names_convnext, "vit_b_16": as_timm_names_vit}


@pytest.mark.parametrize("name", TIMM)
def test_timms_names_are_read_where_they_differ(name):
    reference = state_of(name)
    state = {TIMM[name](key): value for key, value in reference.items()}
    assert not set(state) & {k for k in reference if "conv_proj" in k or "features" in k}
    state = {k: v.flatten() if k.endswith("gamma") else v for k, v in state.items()}
    assert translated(name, state).source == "timm"
    assert loads(name, state, reference)


@pytest.mark.parametrize("prefix", ["module.", "model.", "net.", "model.module.", "module.net."])
def test_wrapped_networks_are_read(prefix):
    reference = state_of("resnet18")
    assert loads("resnet18", {prefix + k: v for k, v in reference.items()}, reference)


def test_names_of_torchvisions_older_files_are_read():
    reference = state_of("densenet121")
    older = {re.sub(r"(norm|conv)([12])\.", r"\1.\2.", key): v for key, v in reference.items()}
    older = {key: v for key, v in older.items() if not key.endswith("num_batches_tracked")}
    assert len(set(older) & set(reference)) < len(older) / 2
    kept = {k: v for k, v in reference.items() if not k.endswith("num_batches_tracked")}
    assert loads("densenet121", older, kept)
    reference = state_of("vit_b_16")
    older = {
        k.replace("mlp.0", "mlp.linear_1").replace("mlp.3", "mlp.linear_2"): v
        for k, v in reference.items()
    }
    assert loads("vit_b_16", older, reference)


class Wrapped(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.save_hyperparameters({"learning_rate": 0.1})
        self.model = get_model("resnet18", num_classes=4)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def test_a_checkpoint_of_lightning_is_read(tmp_path):
    module = Wrapped()
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, max_epochs=1)
    trainer.strategy.connect(module)
    trainer.save_checkpoint(tmp_path / "epoch.ckpt")
    assert loads("resnet18", read_state_dict(tmp_path / "epoch.ckpt"), module.model.state_dict())


def test_a_pickled_network_is_never_unpickled(tmp_path):
    """As torchxrayvision's own files are."""
    torch.save(nn.Linear(2, 2), tmp_path / "whole.pt")
    with pytest.raises(UserError, match=r"weights_only=True.*torch\.save\(net\.state_dict"):
        read_state_dict(tmp_path / "whole.pt")


def test_another_networks_weights_are_refused_with_the_first_names_that_differ():
    with pytest.raises(UserError) as refusal:
        loads("resnet18", state_of("resnet34"), {})
    assert str(refusal.value).startswith(
        "model.weights: the state dict has unknown 96 entries (layer1.2.conv1.weight, "
        "layer1.2.bn1.weight, layer1.2.bn1.bias, ...); allowed is one of resnet18"
    )
    with pytest.raises(UserError, match=r"lacks \d+ entries \(features\.conv0\.weight, .*unknown"):
        loads("densenet121", {"model." + k: v for k, v in state_of("resnet18").items()}, {})


def test_position_embeddings_are_fitted_to_images_of_another_side():
    reference = state_of("vit_b_16", image_size=64)
    expected = interpolate_embeddings(96, 16, dict(reference))["encoder.pos_embedding"]
    assert expected.shape == (1, 37, 768)
    changed = reference | {"encoder.pos_embedding": expected}
    assert loads("vit_b_16", reference, changed, side=96)
    assert loads("vit_b_16", reference, reference, side=64)


GRAY, COLOUR = torch.zeros(64, 1, 7, 7), torch.zeros(64, 3, 7, 7)


def densenet(first, classes, **more):
    state = {"features.conv0.weight": first, "classifier.weight": torch.zeros(classes, 1024)}
    return translated("densenet121", state | more)


@pytest.mark.parametrize(
    ("name", "read", "stated", "shown"),
    [
        ("resnet18", Read({"conv1.weight": COLOUR}, "torchvision"), None, "imagenet"),
        ("resnet18", Read({"conv1.weight": COLOUR}, "torchvision"), "half", "half"),
        ("convnext_tiny", Read({}, "timm"), None, "imagenet"),
        ("densenet121", densenet(GRAY, 18), None, "xrv"),
        ("densenet121", densenet(GRAY, 7, op_threshs=torch.zeros(7)), None, "xrv"),
        ("densenet121", densenet(GRAY, 2), "xrv", "xrv"),
        ("densenet121", densenet(COLOUR, 18), None, "imagenet"),
    ],
)
def test_weights_are_shown_images_as_those_that_they_were_trained_on(name, read, stated, shown):
    assert chosen_input(name, "auto", read, stated) == shown


@pytest.mark.parametrize(
    ("name", "requested", "read", "stated", "refusal"),
    [
        ("vit_b_16", "auto", Read({}, "timm"), None, "vit_b_16 of timm comes with either"),
        ("densenet121", "auto", densenet(GRAY, 2), None, "takes 1 channels"),
        ("densenet121", "imagenet", densenet(GRAY, 18), None, "takes 1 channels"),
        ("resnet18", "xrv", Read({"conv1.weight": COLOUR}, "torchvision"), None, "takes 3 chan"),
        ("resnet18", "imagenet", Read({}, "torchvision"), "half", "were trained with model.input="),
    ],
)
def test_what_is_not_known_of_weights_or_contradicts_them_is_refused(
    name, requested, read, stated, refusal
):
    with pytest.raises(UserError, match=rf"^model\.input={requested}: .*{refusal}"):
        chosen_input(name, requested, read, stated)
