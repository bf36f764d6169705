"""A backbone on images in [0, 1], as a classifier of the task's classes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dpmi.backbones import Backbone, backbone
from dpmi.backbones._out_of_place import without_operations_in_place
from dpmi.base.errors import UserError
from dpmi.models.norms import convert_norms
from dpmi.models.preprocessing import IMAGENET, INPUTS
from dpmi.models.prior import DecidingNetwork
from dpmi.models.state_dicts import fitted, has_statistics
from dpmi.models.whitening import Whitening

SIDE = 224  # pixels, of the images of ImageNet


@dataclass(frozen=True)
class Pretrained:
    """A network before it is trained on the user's images.

    Attributes:
        name: of the backbone.
        state: its weights, under torchvision's names; None where they are drawn.
        input: how it is shown images, of ``INPUTS``.
    """

    name: str
    state: dict[str, Tensor] | None
    input: str = IMAGENET


class ImageNetwork(DecidingNetwork):
    """A backbone on images in [0, 1] of one or three channels, with random weights.

    Args:
        name: of the backbone.
        num_classes: logits of the head.
        side: of the images, in pixels; most backbones take any.
        shown: how it is shown images, of ``INPUTS``.
    """

    input_mean: Tensor
    input_std: Tensor

    def __init__(
        self, name: str, num_classes: int, *, side: int = SIDE, shown: str = IMAGENET
    ) -> None:
        super().__init__(num_classes)
        self.backbone: Backbone = backbone(name)
        self.net = self.backbone.make(num_classes, side)
        without_operations_in_place(self.net)
        preprocessing = INPUTS[shown]
        if preprocessing.channels != 3:
            _take_channels(self.net, preprocessing.channels)
        for buffer, values in (("mean", preprocessing.mean), ("std", preprocessing.std)):
            self.register_buffer(f"input_{buffer}", torch.tensor(values).view(1, -1, 1, 1))

    @property
    def head(self) -> nn.Linear:
        """The last layer."""
        head = self.net.get_submodule(self.backbone.head)
        if isinstance(head, nn.Sequential):  # behind the whitening
            head = head[-1]
        assert isinstance(head, nn.Linear)
        return head

    @property
    def whitening(self) -> Whitening | None:
        """Of what the last layer is given."""
        head = self.net.get_submodule(self.backbone.head)
        first = head[0] if isinstance(head, nn.Sequential) else None
        return first if isinstance(first, Whitening) else None

    def forward(self, images: Tensor) -> Tensor:
        """(B, 1 or 3, H, W) in [0, 1] to logits (B, num_classes). Gray is repeated to RGB."""
        return self.decided(self.net((images - self.input_mean) / self.input_std))

    def freeze(self, last: str) -> None:
        """Keep the weights of all layers up to one and its own.

        Args:
            last: of the backbone's stages.
        """
        stages = self.backbone.stages
        of_stages = [names for stage, names in stages.items()][: [*stages].index(last) + 1]
        frozen = [name for names in of_stages for name in names]
        for name, parameter in self.net.named_parameters():
            if any(name == own or name.startswith(f"{own}.") for own in frozen):
                parameter.requires_grad_(False)

    def freeze_all_but_norms(self) -> None:
        """Keep all weights but the head's and those that are vectors.

        These are scales and shifts of normalisation layers and biases: BiTFiT (Bu et al. 2022,
        arXiv 2210.00036), of a ten-thousandth to a thousandth of the weights.
        """
        head = {id(parameter) for parameter in self.head.parameters()}
        for parameter in self.net.parameters():
            if parameter.squeeze().dim() > 1 and id(parameter) not in head:
                parameter.requires_grad_(False)

    @torch.no_grad()
    def whiten(self, images: Iterable[Tensor]) -> None:
        """Whiten what the last layer is given; what the network computes stays the same.

        Args:
            images: public ones, in batches (B, C, H, W) in [0, 1].
        """
        head, given, training = self.head, list[Tensor](), self.training
        hook = head.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0].cpu()))
        self.eval()
        for batch in images:
            self(batch)
        self.train(training)
        hook.remove()
        weight, bias = head.weight.clone(), head.bias.clone()
        whitening = Whitening(torch.cat(given)).to(weight.device)
        self.net.set_submodule(self.backbone.head, nn.Sequential(whitening, head))
        self.set_head(weight, bias)

    @torch.no_grad()
    def set_head(self, weight: Tensor, bias: Tensor) -> None:
        """Take a head over: (K, D) and (K,), of features as they are."""
        if whitening := self.whitening:
            weight, bias = whitening.unfolded(weight, bias)
        self.head.weight.copy_(weight)
        self.head.bias.copy_(bias)

    @torch.no_grad()
    def fold(self) -> None:
        """Into weight and bias of the last layer, which is given features as they are from here."""
        head = self.head
        weight, bias = self._plain_head()
        self.net.set_submodule(self.backbone.head, head)
        self.set_head(weight, bias)
        self.log_shares.zero_()

    def _plain_head(self) -> tuple[Tensor, Tensor]:
        """(K, D) and (K,) that decide the same on features as they are."""
        weight, bias = self.head.weight.detach(), self.head.bias.detach() - self.log_shares
        return self.whitening.folded(weight, bias) if self.whitening else (weight, bias)

    def exported(self) -> dict[str, Tensor]:
        """A state dict of torchvision's network."""
        of_head = f"{self.backbone.head}."
        state = {n: v for n, v in self.net.state_dict().items() if not n.startswith(of_head)}
        weight, bias = self._plain_head()
        return state | {f"{of_head}weight": weight, f"{of_head}bias": bias}


def build_network(
    name: str,
    num_classes: int,
    norm: str,
    state: dict[str, Tensor] | None,
    *,
    side: int = SIDE,
    shown: str = IMAGENET,
) -> ImageNetwork:
    """A backbone from pretrained weights, with its norm layers converted.

    Args:
        name: of the backbone.
        num_classes: classes of the task. A head for other classes is dropped, and the new one
            starts at zero: every class equally likely, no direction to unlearn under noise.
        norm: of ``Backbone.norms``.
        state: torchvision's state dict, half precision accepted; for "group" also without
            BatchNorm's statistics, as a run with "group" leaves it. None starts from torchvision's
            random initialisation.
        side: of the images, in pixels.
        shown: how the weights are shown images, of ``INPUTS``.

    Raises:
        UserError: the state dict is not of this network.
    """
    net = ImageNetwork(name, num_classes, side=side, shown=shown)
    if norm == "layer":
        norm = "batch"  # which leaves other layers than BatchNorm as they are
    converted = norm == "group" and state is not None and not has_statistics(state)
    if converted:
        convert_norms(net.net, norm)
    if state is not None:
        given, head_fits = fitted(name, state, net.net.state_dict(), side)
        net.net.load_state_dict(given, strict=False)
        if not head_fits:
            nn.init.zeros_(net.head.weight)
            nn.init.zeros_(net.head.bias)
    if not converted:
        convert_norms(net.net, norm)
    return net


def refuse_colour(shown: str, channels: int) -> None:
    """Refuse images in colour for weights that take gray ones.

    Raises:
        UserError: they are.
    """
    if INPUTS[shown].channels < channels:
        raise UserError(
            f"model.input={shown}: these weights take gray images, and the data set has "
            f"{channels} channels; allowed is a data set of one channel, or other model.weights"
        )


def _take_channels(net: nn.Module, channels: int) -> None:
    """Replace the first convolution by one of so many channels, with random weights."""
    path, first = next((n, m) for n, m in net.named_modules() if isinstance(m, nn.Conv2d))
    taking = nn.Conv2d(
        channels,
        first.out_channels,
        first.kernel_size,  # type: ignore[arg-type]
        first.stride,  # type: ignore[arg-type]
        first.padding,  # type: ignore[arg-type]
        bias=first.bias is not None,
    )
    net.set_submodule(path, taking)
