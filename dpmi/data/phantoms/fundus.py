"""Retinas drawn from a seed: disc, fovea, branching vessels, and lesions that grow over grades.

The grades follow the international scale of diabetic retinopathy (Wilkinson et al. 2003): 0 none,
1 microaneurysms alone, 2 more, with haemorrhages and exudates, 3 many haemorrhages and
cotton-wool spots, 4 new vessels. No image of a patient went into this.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from dpmi.data.phantoms.canvas import (
    Field,
    Frame,
    blob,
    dots,
    edge,
    ellipse,
    place,
    smooth_noise,
    to_bytes,
)

CLASSES = ("0 none", "1 mild", "2 moderate", "3 severe", "4 proliferative")
SHARES = (0.40, 0.15, 0.20, 0.13, 0.12)  # majority 40 %; APTOS has 49 %
_OVERSAMPLING = 4  # vessels are drawn by Pillow without antialiasing, this many times larger

_VESSEL = np.array([0.62, 0.28, 0.20], np.float32)  # what is left of red, green, blue
_BLOOD = np.array([0.55, 0.22, 0.20], np.float32)
_EXUDATE = np.array([0.98, 0.90, 0.45], np.float32)
_COTTON = np.array([0.95, 0.88, 0.72], np.float32)
_DISC = np.array([0.99, 0.86, 0.58], np.float32)


@dataclass(frozen=True)
class Eye:
    """One eye in one exposure.

    Attributes:
        frame: coordinates of the eye; the retina is the unit disc.
        side: 1.0 where the optic disc is right of the fovea, else -1.0.
        disc, fovea: centres.
        vessels: coverage from 0 to 1, (size, size).
        base: the retina without lesions, (size, size, 3).
    """

    frame: Frame
    side: float
    disc: tuple[float, float]
    fovea: tuple[float, float]
    vessels: Field
    base: NDArray[np.float32]


def eye(size: int, rng: np.random.Generator, cup: float = 0.45, winding: float = 1.0) -> Eye:
    """Draw a healthy retina.

    Args:
        size: pixels a side.
        rng: draws the person and the exposure.
        cup: size of the pale cup within the optic disc.
        winding: how much the vessels wind, 1 being usual.
    """
    frame = place(
        size,
        shift=(rng.normal(0, 0.02), rng.normal(0, 0.02)),
        angle=rng.normal(0, 0.10),
        scale=rng.uniform(0.90, 0.98),
    )
    side = float(rng.choice([-1.0, 1.0]))
    disc = (side * rng.uniform(0.42, 0.54), rng.uniform(-0.10, 0.10))
    fovea = (disc[0] - side * rng.uniform(0.48, 0.56), disc[1] + rng.uniform(0.02, 0.10))
    pigment = np.array(
        [rng.uniform(0.72, 0.90), rng.uniform(0.34, 0.50), rng.uniform(0.12, 0.24)], np.float32
    )
    radius = np.hypot(frame.x, frame.y)
    light = 1.0 - 0.30 * radius**2 + 0.05 * smooth_noise(size, 3, rng)
    light = light + 0.035 * smooth_noise(size, 12, rng)
    light = light - 0.28 * blob(frame, fovea, (0.15, 0.15))
    base = light[:, :, None] * pigment
    vessels = _vessels(frame, disc, fovea, side, winding, rng)
    base = base * (1.0 - 0.75 * vessels[:, :, None] * (1.0 - _VESSEL))
    rim = ellipse(frame, disc, (0.125, 0.145), 0.05)
    middle = ellipse(frame, disc, (0.125 * cup, 0.145 * cup), 0.04)
    base = _over(base, 0.80 * rim * (1.0 - 0.5 * vessels), _DISC)
    base = _over(base, 0.75 * middle, np.array([1.0, 0.96, 0.82], np.float32))
    return Eye(frame, side, disc, fovea, vessels, np.asarray(base, np.float32))


def _over(image: NDArray[np.float32], cover: Field, colour: NDArray[np.float32]) -> NDArray:
    return image + cover[:, :, None] * (colour - image)


def _vessels(frame: Frame, disc: tuple[float, float], fovea: tuple[float, float], side: float,
             winding: float, rng: np.random.Generator) -> Field:  # fmt: skip
    """Four arcades from the disc around the fovea, each with branches."""
    lines: list[tuple[NDArray[np.float64], float]] = []
    t = np.linspace(0.0, 1.0, 14)
    for up in (-1.0, 1.0):
        for towards_fovea in (1.0, -0.55):
            for width in (0.020, 0.013):  # a vein and an artery
                reach = rng.uniform(1.15, 1.45) * towards_fovea
                height = rng.uniform(0.50, 0.70) * up
                x = disc[0] - side * reach * t**1.25
                y = disc[1] + height * np.sin(np.pi * np.minimum(0.62 * t, 1.0)) + 0.1 * up * t
                lines += _tree(x, y, width, up, 2, winding, rng)
    for _ in range(3):  # small vessels that point at the fovea
        start = rng.uniform(-0.10, 0.10)
        x = disc[0] - side * rng.uniform(0.30, 0.42) * t
        y = disc[1] + start + (fovea[1] - disc[1] + 1.5 * start) * t
        lines += _tree(x, y, 0.007, 1.0, 0, winding, rng)
    return _stroke(frame, lines)


def _tree(
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    width: float,
    up: float,
    branches: int,
    winding: float,
    rng: np.random.Generator,
) -> list[tuple[NDArray[np.float64], float]]:
    """A winding line and, from points along it, thinner ones."""
    t = np.linspace(0.0, 1.0, len(x))
    phase, waves = rng.uniform(0, 2 * np.pi), rng.uniform(1.5, 3.0)
    wave = winding * 0.020 * np.sin(waves * winding**0.5 * 2 * np.pi * t + phase) * t
    line = np.stack([x + 0.5 * wave, y + wave], axis=1)
    lines = [(line, width)]
    for k in range(branches):
        start = int(rng.integers(3, len(x) - 3))
        outwards = up if k % 2 else -up * 0.4
        direction = line[start] - line[start - 1]
        length = rng.uniform(0.30, 0.55)
        heading = direction / max(float(np.hypot(*direction)), 1e-6)
        heading = heading + np.array([0.0, 0.9 * outwards])
        s = np.linspace(0.0, 1.0, 9)[:, None]
        twig = line[start] + length * s * heading + 0.02 * np.sin(9 * s + phase) * s
        lines.append((twig, 0.55 * width))
    return lines


def _stroke(frame: Frame, lines: list[tuple[NDArray[np.float64], float]]) -> Field:
    """Draw lines with Pillow in the eye's coordinates, tapering towards their ends."""
    large = frame.size * _OVERSAMPLING
    canvas = Image.new("L", (large, large), 0)
    pen = ImageDraw.Draw(canvas)
    # The frame maps pixels to the eye; four corners' worth of it inverts to an affine map.
    system = np.array(
        [[frame.x[0, 0], frame.y[0, 0]], [frame.x[0, -1], frame.y[0, -1]],
         [frame.x[-1, 0], frame.y[-1, 0]]], np.float64
    )  # fmt: skip
    span = np.linalg.inv(np.stack([system[1] - system[0], system[2] - system[0]]))
    for points, width in lines:
        pixels = ((points - system[0]) @ span) * (frame.size - 1) * _OVERSAMPLING
        pixels = pixels + 0.5 * _OVERSAMPLING
        steps = len(pixels) - 1
        for k in range(steps):
            drawn = 2 * width * (1.0 - 0.55 * k / steps) * 0.5 * large
            pen.line([tuple(pixels[k]), tuple(pixels[k + 1])], fill=255, width=max(1, round(drawn)))
    small = canvas.resize((frame.size, frame.size), Image.Resampling.BOX)
    return np.asarray(small, np.float32) / np.float32(255.0)


def lesions(retina: Eye, grade: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """The retina with the lesions of a grade, (size, size, 3)."""
    frame, image = retina.frame, retina.base
    counts = {  # microaneurysms, haemorrhages, exudate clusters, cotton-wool spots
        0: (0, 0, 0, 0), 1: (6, 0, 0, 0), 2: (12, 5, 2, 0), 3: (20, 16, 3, 3), 4: (18, 12, 2, 2),
    }[grade]  # fmt: skip
    aneurysms, bleeds, clusters, cotton = (
        round(n * rng.uniform(0.7, 1.3)) if n else 0 for n in counts
    )
    red = dots(frame, _spots(aneurysms, 0.80, rng), rng.uniform(0.012, 0.020, aneurysms))
    image = _over(image, 0.75 * red, _BLOOD * image.max())
    ragged = smooth_noise(frame.size, 14, rng)
    for x, y in _spots(bleeds, 0.85, rng):
        radii = rng.uniform(0.028, 0.075, 2)
        spot = np.clip(1.3 * blob(frame, (x, y), tuple(radii)) * (1 + 0.4 * ragged), 0, 1)
        image = _over(image, np.asarray(0.8 * spot, np.float32), _BLOOD * 0.75)
    for x, y in _spots(clusters, 0.55, rng):
        n = int(rng.integers(6, 14))
        around = np.asarray(np.array([x, y]) + rng.normal(0, 0.08, (n, 2)), np.float32)
        image = _over(image, 0.9 * dots(frame, around, rng.uniform(0.012, 0.026, n)), _EXUDATE)
    for x, y in _spots(cotton, 0.70, rng):
        fluff = blob(frame, (x, y), tuple(rng.uniform(0.05, 0.09, 2)))
        image = _over(image, 0.75 * fluff, _COTTON)
    if grade == 4:
        vessels = _new_vessels(retina, rng)[:, :, None]
        image = np.asarray(image * (1.0 - 0.75 * vessels * (1.0 - _VESSEL)), np.float32)
    return np.asarray(image, np.float32)


def _spots(n: int, reach: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """(n, 2) places within ``reach`` of the centre, evenly over the area."""
    radius, angle = reach * np.sqrt(rng.random(n)), 2 * np.pi * rng.random(n)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1).astype(np.float32)


def _new_vessels(retina: Eye, rng: np.random.Generator) -> Field:
    """Tangles of thin vessels on the disc and elsewhere."""
    lines = []
    for centre in (np.array(retina.disc), _spots(1, 0.6, rng)[0].astype(np.float64)):
        for _ in range(9):
            steps = np.cumsum(rng.normal(0, 0.05, (10, 2)), axis=0)
            lines.append((centre + steps, 0.007))
    return _stroke(retina.frame, lines)


def expose(retina: Eye, image: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Cut to the camera's round field, and add exposure and noise: (size, size, 3), 8 bits."""
    frame = retina.frame
    field = edge(np.asarray(0.99 - np.hypot(frame.x, frame.y), np.float32), 0.03)
    gain = np.array([1.0, rng.uniform(0.93, 1.07), rng.uniform(0.9, 1.1)], np.float32)
    values = image * gain * rng.uniform(0.85, 1.12)
    noise = rng.uniform(0.006, 0.018) * rng.standard_normal((frame.size, frame.size, 3), np.float32)
    return to_bytes((values + noise) * field[:, :, None])


def fundus_label(rng: np.random.Generator) -> int:
    """Draw the grade: the first number of an image's generator."""
    return int(np.searchsorted(np.cumsum(SHARES)[:-1], rng.random(), side="right"))


def draw_fundus(size: int, rng: np.random.Generator) -> tuple[NDArray[np.uint8], int]:
    """Draw one retina.

    Args:
        size: pixels a side.
        rng: a generator of this image alone.

    Returns:
        (size, size, 3) 8-bit image, and its grade from 0 to 4.
    """
    grade = fundus_label(rng)
    retina = eye(size, rng)
    return expose(retina, lesions(retina, grade, rng), rng), grade
