"""The weights that a run starts from: where they come from, and what was taken for them before.

``model.safetensors`` may leave the house. With it goes, as JSON in its metadata, what its guarantee
covers: the guarantee, and what was taken from which account, under random names. So a run that
starts from it knows what was taken from its own images already. For who uses it, the names of the
classes go with it, as they do in ``public.json``, and of a head which network its features are of.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError
from rich.console import Console
from torch import Tensor

from dpmi.base.errors import UserError
from dpmi.mechanisms.base import PUBLIC_WEIGHTS, FirstWeights
from dpmi.models.weights import imagenet_state_dict, read_weights, weights_digest
from dpmi.pretraining.pretrain import PretrainRecipe, phantom_weights
from dpmi.privacy.guarantee import Guarantee
from dpmi.privacy.spending import Spending
from dpmi.privacy.total import total
from dpmi.run.records.kinds import Public
from dpmi.run.records.leaving import public_guarantee

_PLANNED = ("dpsgd", "class_means")  # an ε of an image, zero-out
_RELEASED = ("ldp", "ldp_features")  # noised images, replace-one


WEIGHTS_FILE = "model.safetensors"


class Share(Public):
    """What was taken from the images of one account."""

    account: str
    spending: Spending


class Provenance(Public):
    """What is told with the weights that a run leaves.

    Attributes:
        guarantee: what may be published of it, with the ``reason`` where there is none.
        taken: by the run, and by those before it whose weights it started from.
        classes: names of the classes, in the order of the biases.
        backbone: of a head, SHA-256 of the frozen network that it reads (``weights_digest``); None
            of a whole network.
    """

    version: Literal[1] = 1
    guarantee: dict[str, Any]
    taken: tuple[Share, ...]
    classes: tuple[str, ...] = ()
    backbone: str | None = None


@dataclass(frozen=True)
class Start:
    """Weights to start from.

    Attributes:
        name: as the config has it.
        state: a state dict; None where they are drawn.
        told: the file's metadata; None where it is no run's.
    """

    name: str | None
    state: dict[str, Tensor] | None
    told: Provenance | None

    @property
    def digest(self) -> str:
        """Of the weights and their metadata."""
        told = self.told.model_dump_json() if self.told else None
        return weights_digest(self.state, told) if self.state else "drawn"

    def first_weights(self, accounts: set[str], mechanism: str, unit: str) -> FirstWeights:
        """What was taken from the run's own images before it, and what is assumed.

        Args:
            accounts: names of those that have images of the run.
            mechanism: name of the run's.
            unit: what the run protects: "image" or "patient".

        Raises:
            UserError: it was such that no ε of the new run covers both.
        """
        if self.told is None:
            return PUBLIC_WEIGHTS
        own = total(share.spending for share in self.told.taken if share.account in accounts)
        others = total(share.spending for share in self.told.taken if share.account not in accounts)
        refusal = f"model.weights={self.name}: was trained on some of the same images"
        if mechanism in (*_RELEASED, *_PLANNED) and (without := own.without_epsilon):
            raise UserError(
                f"{refusal} without any ε ({without[0].run}: {without[0].reason}), so that no ε "
                "would hold for this run; start from other weights"
            )
        if (own.releases and mechanism in _PLANNED) or (own.models and mechanism in _RELEASED):
            by = "on noised ones, by LDP" if own.releases else "by sums with Gaussian noise"
            raise UserError(
                f"{refusal}, {by}, and this run is by {mechanism}: an ε of both has another unit; "
                "start from other weights"
            )
        if mechanism in (*_RELEASED, *_PLANNED) and any(s.unit != unit for s in own.spendings):
            raise UserError(
                f"{refusal}, and did not protect the same as this run ({unit}s): no ε of both is "
                "known; start from other weights, or give the privacy.unit that they were trained "
                "with"
            )
        assumptions = []
        if own.spendings:
            assumptions.append(
                "the weights before training took from the same images: ε is of both"
            )
        if others.spendings:
            assumptions.append(f"the weights before training carry, of other images: {others}")
        return FirstWeights(own.spendings, tuple(assumptions))

    def provenance(
        self,
        guarantee: Guarantee,
        account: str,
        spending: Spending,
        classes: tuple[str, ...],
        *,
        frozen: bool,
    ) -> str:
        """What is told with the weights of a run that started here.

        Args:
            guarantee: of the run.
            account: that it took from.
            spending: what it took.
            classes: names of its classes.
            frozen: whether it keeps a head alone, on the network as it was.
        """
        told = public_guarantee(guarantee).to_dict()
        own = Share(account=account, spending=spending)
        taken = (*(self.told.taken if self.told else ()), own)
        backbone = weights_digest(self.state) if frozen and self.state else None
        return Provenance(
            guarantee=told, taken=taken, classes=classes, backbone=backbone
        ).model_dump_json()


def load_start(name: str | None, channels: int, cache_dir: Path, console: Console) -> Start:
    """Read, download or make the weights that a config names.

    Args:
        name: ``model.weights``.
        channels: of the images, which phantoms are like.
        cache_dir: where weights are kept.
        console: where it is said and shown.

    Raises:
        UserError: they cannot be had, or another version of this program wrote the file.
    """
    if name is None:
        return Start(name, None, None)
    if name == "imagenet":
        return Start(name, imagenet_state_dict(cache_dir), None)
    if name == "phantom":
        recipe = PretrainRecipe("chests" if channels == 1 else "retinas")
        return Start(name, phantom_weights(cache_dir, console, recipe), None)
    state, told = read_weights(Path(name).expanduser())
    try:
        return Start(name, state, Provenance.model_validate_json(told) if told else None)
    except ValidationError as error:
        raise UserError(
            f"model.weights={name}: its metadata was written by another version of dpmi; "
            "train it again, or start from other weights"
        ) from error
