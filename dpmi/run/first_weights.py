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

from pydantic import ConfigDict, ValidationError
from rich.console import Console

from dpmi.base.errors import UserError
from dpmi.config.sections import MECHANISMS, ModelSettings
from dpmi.mechanisms.base import PUBLIC_WEIGHTS, FirstWeights
from dpmi.models.network import Pretrained, refuse_colour
from dpmi.models.preprocessing import IMAGENET, INPUTS
from dpmi.models.state_dicts import Read, chosen_input, translated
from dpmi.models.weights import imagenet_state_dict, read_weights, weights_digest
from dpmi.pretraining.pretrain import PretrainRecipe, phantom_weights
from dpmi.privacy.guarantee import Guarantee
from dpmi.privacy.spending import Spending
from dpmi.privacy.total import total
from dpmi.run.records.kinds import Public
from dpmi.run.records.leaving import public_guarantee

_RELEASED = ("ldp", "ldp_features")  # noised images, replace-one


WEIGHTS_FILE = "model.safetensors"


class Share(Public):
    """What was taken from the images of one account."""

    account: str
    spending: Spending


class Provenance(Public):
    """Metadata of the weights that a run leaves.

    Attributes:
        guarantee: what may be published of it, with the ``reason`` where there is none.
        taken: by the run, and by those before it whose weights it started from.
        classes: names of the classes, in the order of the biases.
        backbone: of a head, SHA-256 of the frozen network that it reads (``weights_digest``); None
            of a whole network.
        input: how the weights are shown images.
    """

    model_config = ConfigDict(ser_json_inf_nan="constants")  # an ε may be infinite

    version: Literal[1] = 1
    guarantee: dict[str, Any]
    taken: tuple[Share, ...]
    classes: tuple[str, ...] = ()
    backbone: str | None = None
    input: str = IMAGENET


@dataclass(frozen=True)
class Start:
    """Weights to start from.

    Attributes:
        name: as the config has it.
        pretrained: the network, with a state dict or none, where they are drawn.
        origin: provenance of the weights; None where they are of no run.
    """

    name: str | None
    pretrained: Pretrained
    origin: Provenance | None

    @property
    def digest(self) -> str:
        """Of the weights and their metadata."""
        metadata = self.origin.model_dump_json() if self.origin else None
        state = self.pretrained.state
        return weights_digest(state, metadata) if state else "drawn"

    def network(self) -> dict[str, Any]:
        """What a record says of the network: its name, and how it is shown images."""
        shown = self.pretrained.input
        return {"name": self.pretrained.name, "input": shown} | INPUTS[shown].to_dict()

    def first_weights(self, accounts: set[str], mechanism: str, unit: str) -> FirstWeights:
        """What was taken from the run's own images before it, and what is assumed.

        Args:
            accounts: names of those that have images of the run.
            mechanism: name of the run's.
            unit: what the run protects: "image" or "patient".

        Raises:
            UserError: it was such that no ε of the new run covers both.
        """
        if self.origin is None:
            return PUBLIC_WEIGHTS
        own = total(share.spending for share in self.origin.taken if share.account in accounts)
        others = total(
            share.spending for share in self.origin.taken if share.account not in accounts
        )
        refusal = f"model.weights={self.name}: was trained on some of the same images"
        has_epsilon = MECHANISMS[mechanism].has_epsilon
        if has_epsilon and (without := own.without_epsilon):
            raise UserError(
                f"{refusal} without any ε ({without[0].run}: {without[0].reason}), so that no ε "
                "would hold for this run; start from other weights"
            )
        noised_images = mechanism in _RELEASED
        if has_epsilon and (own.models if noised_images else own.releases):
            by = "on noised ones, by LDP" if own.releases else "by sums with Gaussian noise"
            raise UserError(
                f"{refusal}, {by}, and this run is by {mechanism}: an ε of both has another unit; "
                "start from other weights"
            )
        if has_epsilon and any(s.unit != unit for s in own.spendings):
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
        """Metadata of the weights of a run that started here.

        Args:
            guarantee: of the run.
            account: that it took from.
            spending: what it took.
            classes: names of its classes.
            frozen: whether it keeps a head alone, on the network as it was.
        """
        stated = public_guarantee(guarantee).to_dict()
        own = Share(account=account, spending=spending)
        taken = (*(self.origin.taken if self.origin else ()), own)
        start = self.pretrained
        backbone = weights_digest(start.state) if frozen and start.state else None
        return Provenance(
            guarantee=stated, taken=taken, classes=classes, backbone=backbone, input=start.input
        ).model_dump_json()


def load_start(model: ModelSettings, channels: int, cache_dir: Path, console: Console) -> Start:
    """Read, download or make the weights that a config names.

    Args:
        model: of the config.
        channels: of the images, which phantoms are like.
        cache_dir: where weights are kept.
        console: shows the progress.

    Raises:
        UserError: they cannot be had, another version of this program wrote the file, or they are
            not for such images.
    """
    name, read, origin = model.weights, None, None
    if name == "imagenet":
        read = translated(model.name, imagenet_state_dict(model.name, cache_dir))
    elif name == "phantom":
        recipe = PretrainRecipe("chests" if channels == 1 else "retinas", model.name)
        read = Read(phantom_weights(cache_dir, console, recipe), "torchvision")
    elif name is not None:
        state, metadata = read_weights(Path(name))
        read, origin = translated(model.name, state), _provenance(name, metadata)
    if read is None:
        shown = IMAGENET if model.input == "auto" else model.input
    else:
        shown = chosen_input(model.name, model.input, read, origin.input if origin else None)
    refuse_colour(shown, channels)
    return Start(name, Pretrained(model.name, read.state if read else None, shown), origin)


def drawn(model: ModelSettings) -> Start:
    """Where no weights are read: the network is given."""
    return Start(None, Pretrained(model.name, None), None)


def _provenance(name: str, metadata: str | None) -> Provenance | None:
    try:
        return Provenance.model_validate_json(metadata) if metadata else None
    except ValidationError as error:
        raise UserError(
            f"model.weights={name}: its metadata was written by another version of dpmi; "
            "train it again, or start from other weights"
        ) from error
