"""A trained model with its preprocessing and its decision rule, ready to be shown images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from dpmi.base.errors import UserError
from dpmi.base.targets import probabilities
from dpmi.data.decoding.image import decode_image, opened
from dpmi.data.decoding.settings import BadImageError, Decoding
from dpmi.data.parallel import in_threads
from dpmi.data.pixel_cache import bombs_are_errors
from dpmi.features.network import ImageFeatures
from dpmi.models.finding_metrics import PRESENT
from dpmi.models.prior import DecidingNetwork
from dpmi.privacy.guarantee import Guarantee
from dpmi.using.pixels import Pixels

_BATCH = 32
NONE = "none"  # of the findings is decided to be present


@dataclass(frozen=True)
class Prediction:
    """What a model says of one image.

    Attributes:
        path: as it was given.
        probabilities: by class, or finding; None where the image cannot be read.
        decision: the class of the highest probability; or the findings of a probability of 0.5 or
            more, as "Effusion|Mass", "none" of none. None where the image cannot be read.
        error: why it cannot be read; None where it can.
    """

    path: str
    probabilities: dict[str, float] | None = None
    decision: str | None = None
    error: str | None = None


class TrainedModel(nn.Module):
    """A run's network in evaluation, as its test images were evaluated.

    The decision rule of the run (its prior, and under local DP the correction for clean images) is
    in the biases: the class of the highest probability is the decision. Of several findings each
    has a probability of its own, and is present from 0.5 on.

    Args:
        net: with the kept weights.
        features: what it reads, of a head; None of a network that reads images.
        pixels: from decoded pixels to images.
        decoding: of image files, as in the run.
        classes: names of the K classes, or findings.
        multilabel: they are findings.
        guarantee: what holds of the training images.
        run: name of the run.

    Attributes:
        image_size: side of the images that it reads, in pixels.
    """

    def __init__(
        self,
        net: DecidingNetwork,
        features: ImageFeatures | None,
        pixels: Pixels,
        *,
        decoding: Decoding,
        classes: tuple[str, ...],
        multilabel: bool,
        guarantee: Guarantee,
        run: str,
    ) -> None:
        super().__init__()
        self.net, self.features, self.pixels = net, features, pixels
        self.decoding, self.channels, self.classes = decoding, decoding.channels, classes
        self.multilabel = multilabel
        self.guarantee, self.run, self.image_size = guarantee, run, pixels.image_size
        self.requires_grad_(False)
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 1 or 3, S, S) in [0, 1], as ``preprocess`` makes them, to probabilities.

        Returns:
            (B, K) float32; each row of its image alone, and of sum 1, unless they are of findings.
        """
        logits: Tensor = self.net(images if self.features is None else self.features(images))
        return probabilities(logits, multilabel=self.multilabel)

    def preprocess(self, image: str | Path | Image.Image) -> Tensor:
        """Decode, resize, crop and scale one image as the run's were.

        Returns:
            (1 or 3, S, S) float32 in [0, 1], on the CPU.

        Raises:
            UserError: the image cannot be read.
        """
        return self.shown(self.decode(image)[None])[0]

    def decode(self, image: str | Path | Image.Image) -> Tensor:
        """Decode and resize one image alone, as an exported graph is given it.

        Of a JPEG in colour that a model of gray images is given, Pillow's own conversion of an
        opened image may differ by a gray value from the file's luma, which a path gives.

        Returns:
            (1 or 3, R, R) uint8.

        Raises:
            UserError: the image cannot be read.
        """
        try:
            return self._decoded(image)
        except BadImageError as error:
            name = "the image" if isinstance(image, Image.Image) else f"{image}: the image"
            raise UserError(f"{name} cannot be read: {error}") from error

    def predict(self, paths: Iterable[str | Path]) -> list[Prediction]:
        """Decide on images in files, each by itself; one that cannot be read is no exception.

        On the device that the model is on.
        """
        return list(self.predictions(paths))

    def predictions(self, paths: Iterable[str | Path]) -> Iterator[Prediction]:
        """The same one after another, in their order."""

        def decode(path: str) -> Tensor | BadImageError:
            try:
                return self._decoded(path)
            except BadImageError as error:
                return error

        named = [str(path) for path in paths]
        with bombs_are_errors():
            decoded = zip(named, in_threads(decode, named), strict=True)
            while some := list(islice(decoded, _BATCH)):
                yield from self._of_batch(some)

    @torch.no_grad()
    def shown(self, pixels: Tensor) -> Tensor:
        """Decoded uint8 (B, C, R, R) to images as the network reads them, on the same device."""
        images: Tensor = self.pixels(pixels)
        return images

    def _of_batch(self, some: list[tuple[str, Tensor | BadImageError]]) -> Iterator[Prediction]:
        device = next(self.net.parameters()).device
        readable = [pixels for _, pixels in some if isinstance(pixels, Tensor)]
        rows: Iterator[list[float]] = iter(())
        if readable:
            with torch.no_grad():
                rows = iter(self(self.shown(torch.stack(readable).to(device))).tolist())
        for path, pixels in some:
            if isinstance(pixels, BadImageError):
                yield Prediction(path, error=str(pixels))
                continue
            row = next(rows)
            found = dict(zip(self.classes, row, strict=True))
            yield Prediction(path, found, self._decided(found))

    def _decided(self, found: dict[str, float]) -> str:
        if not self.multilabel:
            return max(found, key=found.__getitem__)
        return "|".join(name for name, p in found.items() if p >= PRESENT) or NONE

    def _decoded(self, image: str | Path | Image.Image) -> Tensor:
        """uint8 (C, R, R); raises BadImageError."""
        side = self.pixels.side
        if isinstance(image, Image.Image):
            pixels = opened(image, side, self.decoding)
        else:
            try:
                pixels = decode_image(Path(image).read_bytes(), side, self.decoding)
            except OSError as error:
                raise BadImageError(error.strerror or str(error)) from error
        return torch.from_numpy(pixels.transpose(2, 0, 1).copy())
