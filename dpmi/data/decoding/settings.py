"""How a file becomes pixels: what a config says of it, and what is wrong with a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dpmi.config.data_sets import CsvData, FolderData

# Part of the cache's key: raise it whenever a change in decoding changes a pixel.
PREPROCESSING_VERSION = 3


class BadImageError(Exception):
    """An image that cannot be decoded; the message says why, not which."""


@dataclass(frozen=True)
class Decoding:
    """Public choices: the same for all images, and none of them read from an image's values.

    Otherwise each pixel would depend on all others of its image, and noise that hides a pixel's
    value would not hide what the range gives away of it.

    Attributes:
        channels: 1 (luma) or 3 (RGB).
        bit_depth: bits that gray values of more than 8 bits use; None takes what the format
            declares (PNG: 16; TIFF: BitsPerSample; DICOM: Bits Stored).
        window: centre and width of the window on gray DICOM images, in the units of their rescaled
            values (CT: Hounsfield units); None takes what the file declares.
        value_range: what becomes black and what becomes white of floats and 32-bit integers.
    """

    channels: int
    bit_depth: int | None = None
    window: tuple[float, float] | None = None
    value_range: tuple[float, float] | None = None

    @classmethod
    def of(cls, config: FolderData | CsvData) -> Decoding:
        """As a config of a user's own images says."""
        depth = None if config.bit_depth == "auto" else config.bit_depth
        return cls(config.channels, depth, config.window, config.value_range)

    @classmethod
    def of_values(cls, channels: int, data: Mapping[str, Any]) -> Decoding:
        """As the ``data`` section of a record's config says; what it does not say is open."""
        depth = data.get("bit_depth", "auto")
        window, value_range = (
            None if (pair := data.get(name)) is None else (float(pair[0]), float(pair[1]))
            for name in ("window", "value_range")
        )
        return cls(channels, None if depth == "auto" else int(depth), window, value_range)

    @property
    def key(self) -> dict[str, Any]:
        """What the same files' pixels depend on beside ``channels``, in JSON's values."""
        chosen = {
            "bit_depth": self.bit_depth,
            "window": self.window,
            "value_range": self.value_range,
        }
        return {name: value for name, value in chosen.items() if value is not None}
