"""What must fit together in a config, by its β: the noise, and a budget that it cannot keep."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dpmi.config.sections import DpsgdMechanism

if TYPE_CHECKING:
    from dpmi.config.schema import Config

# Noise multipliers of DP-SGD. Below the least the grids of PRV and PLD grow without bound, for an ε
# in the hundreds; the most fits the lattice of the noise with a hundred million parameters.
LEAST_NOISE, MOST_NOISE = 0.1, 1e5
# Mechanisms of one release of ε = 1/β, which is whole or not at all, and what that ε is of.
_RELEASED_WHOLE = {"ldp": "pixel", "ldp_features": "image", "class_means": "image"}


def check_beta(config: Config) -> None:
    """Refuse noise that cannot be drawn or accounted for, and a release beyond the budget.

    Raises:
        ValueError: names the key, its value and what is allowed.
    """
    budget, unit = config.privacy.max_epsilon, _RELEASED_WHOLE.get(config.mechanism.name)
    if budget is not None and unit and 1 / config.beta > budget:
        raise ValueError(
            f"privacy.max_epsilon={budget:g}: mechanism={config.mechanism.name} releases once, "
            f"with ε = 1/beta = {1 / config.beta:.3g} of each {unit}; allow more, or set beta to "
            f"{1 / budget:.3g} or more"
        )
    mechanism = config.mechanism
    if not isinstance(mechanism, DpsgdMechanism) or mechanism.calibration != "noise_multiplier":
        return
    if config.beta > MOST_NOISE or (config.beta < LEAST_NOISE and mechanism.accountant != "rdp"):
        raise ValueError(
            f"beta={config.beta:g}: as a noise multiplier (mechanism.calibration=noise_multiplier) "
            f"allowed is {LEAST_NOISE:g} to {MOST_NOISE:g}, or less with mechanism.accountant=rdp"
        )
    model = config.model
    if (
        model.prior != "train"
        or model.train == "head_then_all"
        or (model.train == "head" and model.features.centre)
    ):
        raise ValueError(
            "mechanism.calibration=noise_multiplier: there is no ε of which statistics released "
            "beside the steps could have a share; allowed is epsilon, or model.prior=train with "
            "model.features.centre=false, and not model.train=head_then_all"
        )
