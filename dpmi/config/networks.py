"""What must fit together in a config, by the network that it names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dpmi.backbones import backbone
from dpmi.config.sections import DpsgdMechanism

if TYPE_CHECKING:
    from dpmi.config.schema import Config


def check_network(config: Config) -> None:
    """Refuse what the network has not, or cannot be given.

    Raises:
        ValueError: names the key, its value and what is allowed.
    """
    model = config.model
    own = backbone(model.name)
    if config.mechanism.name == "dpsgd_published" and not own.batch_norm:
        raise ValueError(
            f"model.name={model.name}: mechanism=dpsgd_published is what the poster's authors ran, "
            f"with BatchNorm, which {model.name} has none of; allowed is resnet18"
        )
    if model.norm not in own.norms:
        why = "has no LayerNorm" if own.batch_norm else "has LayerNorm, which DP-SGD can live with"
        raise ValueError(
            f"model.norm={model.norm}: {model.name} {why}; allowed is {', '.join(own.norms)}"
        )
    if config.data.image_size % own.patch:
        raise ValueError(
            f"data.image_size={config.data.image_size}: {model.name} cuts an image into patches of "
            f"{own.patch} px; allowed are multiples of {own.patch}"
        )
    if model.train == "head" and (
        without := [s for s in model.features.stages if s not in own.features]
    ):
        raise ValueError(
            f"model.features.stages={','.join(without)}: the stages of {model.name} give no maps "
            f"of channels; allowed is {', '.join(own.features)}"
        )
    opacus = isinstance(config.mechanism, DpsgdMechanism) and config.mechanism.engine == "opacus"
    if opacus and not own.samplers and model.train != "head":
        raise ValueError(
            f"mechanism.engine=opacus: Opacus makes no examples' gradients of all layers of "
            f"{model.name}; allowed is fast"
        )
