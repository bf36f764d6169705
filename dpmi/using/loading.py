"""From the folder of a run to its trained model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dpmi.base.errors import UserError
from dpmi.config.sections import FeatureSettings
from dpmi.data.decoding.settings import Decoding
from dpmi.data.readers import CHANNELS
from dpmi.features.network import ImageFeatures
from dpmi.features.projection import Projection
from dpmi.models.head import FeatureHead
from dpmi.models.network import ImageNetwork, Pretrained
from dpmi.models.norms import convert_norms
from dpmi.models.prior import DecidingNetwork
from dpmi.models.state_dicts import translated
from dpmi.models.weights import imagenet_state_dict, read_state_dict, weights_digest
from dpmi.run.first_weights import WEIGHTS_FILE
from dpmi.run.left import Left, read_left
from dpmi.using.model import TrainedModel
from dpmi.using.pixels import Pixels

_WEIGHTS = (".safetensors", ".pth", ".pt")


def load(run: str | Path, backbone: str | Path | None = None) -> TrainedModel:
    """Load the trained model of a run, from ``public.json`` and ``model.safetensors`` alone.

    Args:
        run: the folder of a run that completed.
        backbone: of a head, the file of the frozen network that it reads; None looks where the
            run had it from, and in the cache.

    Raises:
        UserError: no such run, no or other weights, or no backbone.
    """
    left = read_left(Path(run).expanduser())
    return built(left, backbone_of(left, Path(backbone).expanduser() if backbone else None))


def built(left: Left, backbone: Pretrained | None) -> TrainedModel:
    """The model of what a run left.

    Args:
        left: by the run.
        backbone: of a head, the network that it reads.

    Raises:
        UserError: the weights are not what the config says.
    """
    config, weights = left.record.config, left.folder / WEIGHTS_FILE
    data, mechanism, model = config["data"], config["mechanism"], config["model"]
    try:
        net = _network(left, model, data["image_size"])
    except (RuntimeError, KeyError) as error:
        first = str(error).splitlines()[0]
        raise UserError(f"{weights}: not the weights of this run's network ({first})") from error
    features = None
    if backbone is not None:
        settings = FeatureSettings.model_validate(model["features"])
        projection = Projection.kept(left.state)
        features = ImageFeatures(backbone, settings, projection, data["image_size"])
    if config["trainer"]["channels_last"]:
        net = net.to(memory_format=torch.channels_last)
    guarantee = left.record.guarantee
    assert guarantee is not None  # of a run that completed
    return TrainedModel(
        net,
        features,
        Pixels(
            data["resize"] or data["image_size"],
            data["image_size"],
            mechanism["pool"] if mechanism["name"] == "ldp" else 1,
        ),
        decoding=Decoding.of_values(channels_of(data), data),
        classes=left.provenance.classes,
        multilabel=is_multilabel(data),
        guarantee=guarantee,
        run=left.record.run,
    )


def channels_of(data: dict[str, Any]) -> int:
    """Of decoded images, by the ``data`` section of a config."""
    return CHANNELS[data["name"]] if data["name"] in CHANNELS else int(data["channels"])


def is_multilabel(data: dict[str, Any]) -> bool:
    """Whether classes are findings, by the ``data`` section of a config; not all sets have both."""
    return data.get("task") == "multilabel"


def _network(left: Left, model: dict[str, Any], side: int) -> DecidingNetwork:
    classes, state = len(left.provenance.classes), left.state
    if model["train"] == "head":
        head = FeatureHead(len(state["centre"]), classes, "linear")
        head.centre.copy_(state["centre"])
        head.set_weights(state["weight"], state["bias"])
        return head
    net = ImageNetwork(model["name"], classes, side=side, shown=left.provenance.input)
    if model["norm"] != "layer":
        convert_norms(net.net, model["norm"])
    net.net.load_state_dict(state)
    return net


def device_of(left: Left) -> str:
    """Where commands use the model: on a GPU where there is one, unless the run was kept off it."""
    on_cpu = left.record.config["trainer"]["accelerator"] == "cpu"
    return "cpu" if on_cpu or not torch.cuda.is_available() else "cuda"


def backbone_of(left: Left, given: Path | None) -> Pretrained | None:
    """The frozen network that a head reads, by its digest; None of a run that kept a whole network.

    Args:
        left: by the run.
        given: its file; None looks for it.

    Raises:
        UserError: it is not to be had, or another is given.
    """
    wanted, name = left.provenance.backbone, left.record.config["model"]["name"]
    if wanted is None:
        if given is not None:
            raise UserError(
                f"{given}: not needed, {left.folder} kept a whole network; leave it out"
            )
        if left.record.config["model"]["train"] == "head":
            raise UserError(
                f"{left.folder}: of an older version of dpmi, which did not say which network its "
                "head reads; run it again with rerun=true"
            )
        return None
    if given is not None:
        if not given.is_file():
            raise UserError(f"{given}: no such file; give that of the network that the head reads")
        state = translated(name, read_state_dict(given)).state
        if weights_digest(state) != wanted:
            raise UserError(
                f"{given}: not the network that the head of {left.folder} reads; give the file "
                f"that the run had as model.weights (SHA-256 of its tensors {wanted})"
            )
        return Pretrained(name, state, left.provenance.input)
    for at_hand in _at_hand(left):
        state = translated(name, at_hand).state
        if weights_digest(state) == wanted:
            return Pretrained(name, state, left.provenance.input)
    raise UserError(
        f"{left.folder}: a head alone, and the network that it reads is not at hand, neither where "
        f"the run had it from nor in {left.cache_dir / 'weights'}; give its file with "
        f"--backbone FILE, or backbone=FILE in Python (SHA-256 of its tensors {wanted})"
    )


def _at_hand(left: Left) -> Iterator[dict[str, Tensor]]:
    """State dicts that are here: the run's own first weights, then all of the cache."""
    name = left.config["model"]["weights"]
    if name == "imagenet":
        yield imagenet_state_dict(left.record.config["model"]["name"], left.cache_dir)
        return
    own = [] if name in ("phantom", "a file") else [Path(name)]
    for path in (*own, *sorted((left.cache_dir / "weights").glob("*"))):
        if path.suffix in _WEIGHTS and path.is_file():
            try:
                yield read_state_dict(path)
            except UserError:  # damaged, or something else: it cannot be the one
                continue
