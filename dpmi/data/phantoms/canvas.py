"""What both kinds of phantom are drawn with: a frame, soft shapes, smooth random fields.

Coordinates run from -1 to 1, x to the right and y downwards, whatever the size in pixels, so that
the same drawing exists at every size. Nothing here draws random numbers but from the generator it
is given, and no number of draws depends on the size, except for the detector's noise, which is
drawn last.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]  # (size, size), or broadcastable to it


@dataclass(frozen=True)
class Frame:
    """The body's coordinates at every pixel: the image's, moved, turned and scaled.

    Attributes:
        x, y: (size, size) coordinates of the body.
        size: pixels a side.
    """

    x: Field
    y: Field
    size: int

    @property
    def pixel(self) -> float:
        """Width of a pixel in coordinates: nothing sharper can be drawn."""
        return 2.0 / self.size


@lru_cache(maxsize=8)
def _image_coordinates(size: int) -> tuple[Field, Field]:
    centres = ((np.arange(size) + 0.5) * (2.0 / size) - 1.0).astype(np.float32)
    return np.broadcast_to(centres, (size, size)), np.broadcast_to(centres[:, None], (size, size))


def place(size: int, shift: tuple[float, float], angle: float, scale: float) -> Frame:
    """Put the body into the image: turned by ``angle`` radians, scaled, then shifted."""
    x, y = _image_coordinates(size)
    x, y = (
        (x - np.float32(shift[0])) / np.float32(scale),
        (y - np.float32(shift[1])) / np.float32(scale),
    )
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return Frame(cos * x + sin * y, cos * y - sin * x, size)


def edge(inside: NDArray[np.floating[Any]], softness: float) -> Field:
    """Turn a signed distance (positive inside) into coverage from 0 to 1."""
    t = np.clip(inside * np.float32(0.5 / softness) + np.float32(0.5), 0.0, 1.0)
    return np.asarray(t * t * (3.0 - 2.0 * t), np.float32)


def ellipse(frame: Frame, centre: tuple[float, float], radii: tuple[float, float],
            softness: float, angle: float = 0.0) -> Field:  # fmt: skip
    """Coverage of an ellipse with a soft rim ``softness`` wide."""
    x, y = frame.x - np.float32(centre[0]), frame.y - np.float32(centre[1])
    if angle:
        cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
        x, y = cos * x + sin * y, cos * y - sin * x
    radius = np.sqrt((x / np.float32(radii[0])) ** 2 + (y / np.float32(radii[1])) ** 2)
    return edge((1.0 - radius) * np.float32(min(radii)), max(softness, frame.pixel))


def blob(frame: Frame, centre: tuple[float, float], radii: tuple[float, float]) -> Field:
    """A Gaussian hill of height 1."""
    square = ((frame.x - np.float32(centre[0])) / np.float32(radii[0])) ** 2
    square = square + ((frame.y - np.float32(centre[1])) / np.float32(radii[1])) ** 2
    return np.asarray(np.exp(-0.5 * square), np.float32)


def dots(
    frame: Frame, centres: NDArray[np.floating[Any]], radius: NDArray[np.floating[Any]]
) -> Field:
    """The highest of many small hills, none narrower than a pixel; dimmer where it had to widen.

    Args:
        frame: where to draw.
        centres: (n, 2).
        radius: (n,), of each.
    """
    total = np.zeros((frame.size, frame.size), np.float32)
    for (cx, cy), wanted in zip(centres, radius, strict=True):
        drawn = max(float(wanted), 0.6 * frame.pixel)
        height = min(1.0, (float(wanted) / drawn) ** 2)
        np.maximum(total, np.float32(height) * blob(frame, (cx, cy), (drawn, drawn)), out=total)
    return total


def ridge(distance: Field, width: float, pixel: float) -> Field:
    """A line of Gaussian profile along the zeros of ``distance``, at least a pixel wide."""
    drawn = max(width, 0.5 * pixel)
    return np.asarray(
        np.float32(min(1.0, width / drawn)) * np.exp(-0.5 * (distance / np.float32(drawn)) ** 2),
        np.float32,
    )


@lru_cache(maxsize=32)
def _cubic_basis(size: int, knots: int) -> Field:
    """(size, knots + 3): cubic B-splines over ``knots`` intervals, at the pixel centres."""
    position = (np.arange(size) + 0.5) / size * knots
    cell, t = np.floor(position).astype(int), position - np.floor(position)
    weights = np.stack(
        [(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3], axis=1
    ) / 6.0  # fmt: skip
    basis = np.zeros((size, knots + 3))
    for k in range(4):
        basis[np.arange(size), cell + k] = weights[:, k]
    return basis.astype(np.float32)


def smooth_noise(size: int, knots: int, rng: np.random.Generator) -> Field:
    """A random field of standard deviation near 1 that bends ``knots`` times across the image."""
    basis = _cubic_basis(size, knots)
    grid = rng.standard_normal((knots + 3, knots + 3)).astype(np.float32)
    return np.asarray(2.1 * basis @ grid @ basis.T, np.float32)


def to_bytes(values: Field) -> NDArray[np.uint8]:
    """[0, 1] to 8 bits, clipped."""
    return np.asarray(np.rint(np.clip(values, 0.0, 1.0) * 255.0), np.uint8)
