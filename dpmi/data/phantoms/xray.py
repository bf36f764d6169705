"""Chest radiographs drawn from a seed: ribs, clavicles, spine, lungs, heart, and pneumonia.

Shadows add up as in a radiograph: what absorbs more is brighter. No image of a patient went into
this; the shapes are a textbook's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dpmi.data.phantoms.canvas import (
    Field,
    Frame,
    edge,
    ellipse,
    place,
    ridge,
    smooth_noise,
    to_bytes,
)

CLASSES = ("NORMAL", "PNEUMONIA")
SMALL_CHEST = 0.97  # of the frame that a chest is drawn in: half of them are smaller
PNEUMONIA_SHARE = 0.5  # an even share: a threshold moved by noise costs accuracy either way


@dataclass(frozen=True)
class Anatomy:
    """One person's chest in one exposure; lengths in units of half the image's side."""

    frame: Frame
    width: float  # half-distance of the lungs' outer walls
    apex: float  # y of the lungs' tops
    base: tuple[float, float]  # y of the left and right diaphragm domes
    heart: float  # half-width of the heart
    lungs: Field  # coverage from 0 to 1
    sides: tuple[Field, Field]  # coverage of the left and right lung of the image


def anatomy(size: int, rng: np.random.Generator, heart_scale: float = 1.0) -> Anatomy:
    """Draw the proportions of a chest and find its lungs."""
    shift, angle, scale = _pose(rng)
    frame = place(size, shift=shift, angle=angle, scale=scale)
    width, apex = rng.uniform(0.70, 0.82), rng.uniform(-0.82, -0.70)
    floor = rng.uniform(0.50, 0.72)
    base = (floor + rng.uniform(0.0, 0.08), floor)
    heart = rng.uniform(0.26, 0.36) * heart_scale
    left = _lung(frame, -1.0, width, apex, base[0])
    right = _lung(frame, 1.0, width, apex, base[1])
    return Anatomy(frame, width, apex, base, heart, np.maximum(left, right), (left, right))


def _pose(rng: np.random.Generator) -> tuple[tuple[float, float], float, float]:
    """How a chest lies in its image: shift, angle and scale."""
    shift = rng.normal(0, 0.05), rng.normal(0, 0.05)
    return shift, rng.normal(0, 0.05), rng.uniform(0.86, 1.08)


def _lung(frame: Frame, side: float, width: float, apex: float, base: float) -> Field:
    """One lung: narrow at the top, wide at the bottom, cut by the dome of the diaphragm."""
    x = frame.x * np.float32(side)  # outwards is positive
    down = np.clip((frame.y - np.float32(apex)) / np.float32(base - apex), 0.0, 1.3)
    outer = width * (0.62 + 0.38 * np.sin(0.5 * np.pi * np.minimum(down * 1.3, 1.0)))
    inner = np.float32(0.13) + np.float32(0.05) * down
    middle, half = 0.5 * (outer + inner), 0.5 * (outer - inner)
    across = half - np.abs(x - middle)
    top = frame.y - np.float32(apex) - np.float32(0.22) * ((x - middle) / half) ** 2
    dome = np.float32(base) - frame.y + np.float32(0.10) - 0.9 * np.abs(x - 0.9 * middle) ** 2
    inside = np.minimum(np.minimum(across, top), dome)
    return edge(np.asarray(inside, np.float32), 0.07)


def skeleton(body: Anatomy, rng: np.random.Generator) -> Field:
    """Ribs behind and in front, clavicles and spine: brightness they add, 0 to about 0.3."""
    frame, pixel = body.frame, body.frame.pixel
    out = np.abs(frame.x)
    step, first = rng.uniform(0.155, 0.185), body.apex + rng.uniform(0.0, 0.08)
    fall, bend = rng.uniform(0.10, 0.30), rng.uniform(0.25, 0.45)
    strength, thick = rng.uniform(0.08, 0.15), rng.uniform(0.020, 0.028)
    wall = edge(np.float32(body.width + 0.08) - out, 0.08)
    # A rib's height above its course, modulo the step: all ribs of a kind in one field.
    behind = frame.y - first - fall * out - bend * (out - 0.35) ** 2
    in_front = frame.y - first - 0.05 - 0.75 * (body.width - out) ** 1.0
    total = np.zeros_like(out)
    for course, weight, start in ((behind, 1.0, 0.10), (in_front, 0.5, 0.34)):
        phase = course - step * np.rint(np.clip(course / step, 0, 8))
        rims = ridge(np.abs(phase) - np.float32(thick), 0.011, pixel)
        filled = edge(np.float32(thick) - np.abs(phase), max(0.02, pixel))
        total = total + weight * (0.55 * filled + 0.45 * rims) * edge(out - np.float32(start), 0.1)
    ribs = strength * total * wall
    tilt = rng.uniform(0.12, 0.28)
    clavicle_y = body.apex + rng.uniform(0.06, 0.14) - tilt * (out - 0.1) + 0.12 * (out - 0.4) ** 2
    clavicles = 0.16 * edge(np.float32(0.035) - np.abs(frame.y - clavicle_y), 0.03)
    clavicles = clavicles * edge(out - 0.07, 0.05) * edge(0.80 - out, 0.1)
    vertebrae = 0.5 + 0.5 * np.cos((frame.y + rng.uniform(0, 1)) * 2 * np.pi / 0.17)
    spine = edge(np.float32(0.085) - out, 0.06) * (0.04 + 0.06 * vertebrae)
    return np.asarray(ribs + clavicles + spine, np.float32)


def heart(body: Anatomy) -> Field:
    """Heart, aortic knob and mediastinum: coverage from 0 to 1."""
    frame, half = body.frame, body.heart
    low = body.base[1]
    ventricles = ellipse(frame, (0.45 * half, low - 0.20), (half * 1.15, 0.36), 0.10, angle=0.45)
    knob = ellipse(frame, (0.12, body.apex + 0.42), (0.09, 0.12), 0.06)
    column = edge(np.float32(0.14) - np.abs(frame.x), 0.12)
    return np.maximum(np.maximum(ventricles, knob), 0.68 * column)


def vessels(body: Anatomy, rng: np.random.Generator) -> Field:
    """Markings of the lungs, dense at the hila and fading outwards."""
    size, frame = body.frame.size, body.frame
    texture = np.abs(smooth_noise(size, 9, rng)) + 0.7 * np.abs(smooth_noise(size, 17, rng))
    strands = np.exp(-2.2 * texture)  # thin bright lines where the noise crosses zero
    hilum = np.exp(-(((np.abs(frame.x) - 0.20) / 0.26) ** 2 + ((frame.y + 0.05) / 0.36) ** 2))
    return np.asarray(body.lungs * (0.22 * strands * (0.35 + hilum) + 0.12 * hilum), np.float32)


def opacities(body: Anatomy, rng: np.random.Generator) -> Field:
    """Pneumonia: one to three soft-edged consolidations within the lungs, 0 to about 0.35."""
    size, frame = body.frame.size, body.frame
    rim = smooth_noise(size, 8, rng)
    grain = 1.0 + 0.25 * smooth_noise(size, 14, rng)
    total = np.zeros((size, size), np.float32)
    for _ in range(int(rng.integers(1, 4))):
        side = rng.choice([-1.0, 1.0])
        centre = (side * rng.uniform(0.28, 0.58), rng.uniform(-0.40, body.base[1] - 0.08))
        radius = rng.uniform(0.12, 0.27)
        stretch = rng.uniform(0.75, 1.35)
        strength = rng.uniform(0.15, 0.34)
        distance = np.hypot((frame.x - centre[0]) / stretch, (frame.y - centre[1]) * stretch)
        cover = edge(np.asarray(radius * (1.0 + 0.30 * rim) - distance, np.float32), 0.16)
        total = np.maximum(total, np.float32(strength) * cover)
    return np.asarray(total * grain * body.lungs, np.float32)


def expose(body: Anatomy, shadows: Field, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Turn added-up shadows into an image: soft tissue, haze, exposure, contrast, detector noise.

    Args:
        body: whose chest it is.
        shadows: brightness that bones, heart and lesions add, (size, size).
        rng: draws the exposure.

    Returns:
        (size, size, 1), 8 bits.
    """
    frame, size = body.frame, body.frame.size
    shoulders = 0.98 - 0.35 * np.exp(-(((frame.y + 1.15) / 0.45) ** 2))
    torso = edge(np.asarray(shoulders - np.abs(frame.x), np.float32), 0.10)
    belly = edge(frame.y - np.float32(min(body.base)), 0.35)
    haze = rng.uniform(0.02, 0.06) * smooth_noise(size, 3, rng)
    tissue = torso * (0.52 + 0.16 * belly - (0.36 + rng.normal(0, 0.03)) * body.lungs)
    values = tissue + torso * (shadows + haze)
    values = 0.5 + rng.uniform(0.85, 1.15) * (values - 0.5) + rng.normal(0, 0.05)
    values = np.clip(values, 0.0, 1.0) ** rng.uniform(0.85, 1.2)
    noise = rng.uniform(0.008, 0.025)
    return to_bytes(values + noise * rng.standard_normal((size, size), np.float32))[:, :, None]


def xray_label(rng: np.random.Generator) -> int:
    """Draw the class: the first number of an image's generator."""
    return int(rng.random() < PNEUMONIA_SHARE)


def xray_groups(rng: np.random.Generator) -> dict[str, str]:
    """The groups of an image whose label was drawn: ``chest``, "small" or "large"."""
    _, _, scale = _pose(rng)
    return {"chest": "small" if scale < SMALL_CHEST else "large"}


def draw_xray(size: int, rng: np.random.Generator) -> tuple[NDArray[np.uint8], int]:
    """Draw one radiograph.

    Args:
        size: pixels a side.
        rng: a generator of this image alone.

    Returns:
        (size, size, 1) 8-bit image, and its class: 0 normal, 1 pneumonia.
    """
    label = xray_label(rng)
    body = anatomy(size, rng)
    shadows = skeleton(body, rng) + 0.34 * heart(body) + vessels(body, rng)
    disease = opacities(body, rng)  # drawn for both classes: the rest of the image is alike
    return expose(body, shadows + disease * np.float32(label), rng), label
