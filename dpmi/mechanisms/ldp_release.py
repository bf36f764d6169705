"""Noised images: released once, and used by every run that trains on them.

One release serves all training for nothing more: its ε is spent when it is made, and what is done
with it is post-processing. A second release of the same images would spend the ε a second time. So
they are kept in ``cache_dir/releases/<key>/`` (see pixel_store), where the key is made of the clean
pixels and β: whatever the run, the same pixels under the same β are the same noised pixels.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from dpmi.data.decoding.image import is_gray
from dpmi.data.pixel_store import PixelWriter, stored_pixels
from dpmi.privacy.laplace import laplace_mechanism, mean_moves, pooled
from dpmi.privacy.randomness import NoiseSource

_BYTES_AT_ONCE = 1 << 26


@dataclass(frozen=True)
class Release:
    """Noised images.

    Attributes:
        pixels: uint8 (n, C, R, R), memory-mapped, read-only.
        id: random, of this release and no other.
        made: by this call, not found.
    """

    pixels: NDArray[np.uint8]
    id: str
    made: bool


def shared_release(
    pixels: NDArray[np.uint8],
    beta: float,
    pool: int,
    cache_dir: Path,
    announce: Callable[[str], None] | None = None,
) -> Release:
    """Return the one release of these images under Laplace(``beta``), making it where none is.

    Its key comes from the operating system, for this release alone, is written nowhere, and is gone
    when the release is made. Of a release that is cut short nothing is ever read. One that was
    damaged is made anew with noise of its own: a new release, with another id.

    Args:
        pixels: uint8 (n, C, R, R).
        beta: scale of the noise, a pixel being in [0, 1].
        pool: side of the blocks whose means are released.
        cache_dir: the cache's folder.
        announce: called with the id before any noise is drawn, or before an existing release is
            used; what it raises is raised, and then there is no release.

    Raises:
        UserError: it cannot be written.
    """

    def write(writer: PixelWriter) -> dict[str, Any]:
        name = secrets.token_hex(8)
        if announce:
            announce(name)
        for piece in noised(pixels, beta, pool, NoiseSource(None), "laplace_train"):
            writer.add(piece.tobytes(), len(piece))
        return {"id": name}

    found = stored_pixels(
        cache_dir / "releases" / _key(pixels, beta, pool),
        write,
        pixels.shape,
        verb="noised",
        again="its images were noised again: a second release, whose ε adds to the first one's",
    )
    if announce and not found.made:
        announce(found.facts["id"])
    return Release(found.pixels, found.facts["id"], found.made)


def noised(
    pixels: NDArray[np.uint8], beta: float, pool: int, noise: NoiseSource, purpose: str
) -> Iterator[NDArray[np.uint8]]:
    """Noise all images, the mean of each block once; yields them some at a time, in order.

    A gray image has one value a pixel, whether it is kept in one channel or in three equal ones:
    noise of its own for each channel would be three answers to one question, and spend 3/β.

    Args:
        pixels: uint8 (n, C, R, R).
        beta: scale of the noise, a pixel being in [0, 1].
        pool: side of a block; 1 noises each pixel.
        noise: where the randomness comes from.
        purpose: of the randomness, as the noise source knows it.
    """
    stream = noise.stream(purpose)
    for _, whole in _pieces(pixels):
        gray, clean = gray_images(whole), pooled(whole, pool)
        colour, one_channel = clean[~gray], clean[gray][:, :1]
        values = np.concatenate([colour.reshape(-1), one_channel.reshape(-1)])
        drawn = laplace_mechanism(values, beta, stream, mean_moves(pool))
        released = np.empty_like(clean)
        released[~gray] = drawn[: colour.size].reshape(colour.shape)
        released[gray] = drawn[colour.size :].reshape(one_channel.shape)  # the same in each channel
        yield spread(released, pool)


def coarse(pixels: NDArray[np.uint8], pool: int) -> NDArray[np.uint8]:
    """Clean images as the released ones are but for the noise: block means, and between them.

    Args:
        pixels: uint8 (n, C, R, R).
        pool: side of a block; at 1 they are returned as they are.
    """
    if pool == 1:
        return pixels
    seen = np.empty_like(pixels)
    for start, piece in _pieces(pixels):
        seen[start : start + len(piece)] = spread(pooled(piece, pool), pool)
    return seen


def spread(means: NDArray[np.uint8], pool: int) -> NDArray[np.uint8]:
    """(n, C, r, r) means of blocks, between whose middles all else is interpolated linearly.

    Returns:
        (n, C, r pool, r pool).
    """
    if pool == 1:
        return means
    values = torch.from_numpy(means).float()
    wide = functional.interpolate(values, scale_factor=pool, mode="bilinear", align_corners=False)
    return np.asarray(wide.round().clamp(0, 255).byte())


def _pieces(pixels: NDArray[np.uint8]) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    at_once = max(1, _BYTES_AT_ONCE // int(np.prod(pixels.shape[1:])))
    for start in range(0, len(pixels), at_once):
        yield start, pixels[start : start + at_once]


def gray_images(pixels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which of (n, C, R, R) images are gray: (n,)."""
    return np.fromiter((is_gray(image) for image in pixels), np.bool_, len(pixels))


def _key(pixels: NDArray[np.uint8], beta: float, pool: int) -> str:
    digest = hashlib.sha256(json.dumps([pixels.shape, float(beta), pool]).encode())
    for image in pixels:  # in one channel of three they may lie apart
        digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()[:32]
