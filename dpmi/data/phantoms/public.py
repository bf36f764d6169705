"""Phantoms with public labels, to pretrain on: ImageNet in miniature.

Pretraining may use whatever holds no patient. These drawings show the same chests and retinas as
the users' phantoms, from seeds that the users' can never meet, and ask for other things: a nodule,
a large heart, an effusion, a pacemaker; drusen, laser scars, a large cup, winding vessels. None of
them is pneumonia or a grade of retinopathy. Yet they are near: a filter that finds a nodule is of
use for an opacity. Results with these weights say how mechanisms compare, not what a hospital
would reach with weights from photographs.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dpmi.data.phantoms import fundus, xray
from dpmi.data.phantoms.canvas import Field, dots, edge, ellipse, ridge
from dpmi.data.phantoms.seeds import image_generator

Subject = Literal["chests", "retinas"]
CLASSES: dict[Subject, tuple[str, ...]] = {
    "chests": ("plain", "nodule", "large heart", "effusion", "pacemaker"),
    "retinas": ("plain", "drusen", "laser scars", "large cup", "winding vessels"),
}


def public_label(subject: Subject, index: int) -> int:
    """Class of a public phantom: all equally often."""
    return index % len(CLASSES[subject])


def draw_public(
    subject: Subject, seed: int, index: int, size: int
) -> tuple[NDArray[np.uint8], int]:
    """Draw one public phantom.

    Returns:
        (size, size, 3) 8-bit image (three equal channels for chests), and its class.
    """
    label = public_label(subject, index)
    name = CLASSES[subject][label]
    if subject == "chests":
        chest = _chest(name, size, image_generator("public", "xray", seed, index))
        return np.repeat(chest, 3, axis=2), label
    return _retina(name, size, image_generator("public", "fundus", seed, index)), label


def _chest(name: str, size: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    body = xray.anatomy(size, rng, heart_scale=1.45 if name == "large heart" else 1.0)
    shadows = xray.skeleton(body, rng) + 0.34 * xray.heart(body) + xray.vessels(body, rng)
    if name == "nodule":
        shadows = shadows + _nodules(body, rng)
    elif name == "effusion":
        shadows = shadows + _effusion(body, rng)
    elif name == "pacemaker":
        shadows = shadows + _pacemaker(body, rng)
    return xray.expose(body, np.asarray(shadows, np.float32), rng)


def _nodules(body: xray.Anatomy, rng: np.random.Generator) -> Field:
    """One to three round shadows with sharp rims."""
    total = np.zeros((body.frame.size, body.frame.size), np.float32)
    for _ in range(int(rng.integers(1, 4))):
        centre = (rng.choice([-1.0, 1.0]) * rng.uniform(0.28, 0.58), rng.uniform(-0.4, 0.4))
        radius = rng.uniform(0.06, 0.14)
        cover = ellipse(body.frame, centre, (radius, radius * rng.uniform(0.85, 1.15)), 0.03)
        total = np.maximum(total, np.float32(rng.uniform(0.12, 0.28)) * cover)
    return total * body.lungs


def _effusion(body: xray.Anatomy, rng: np.random.Generator) -> Field:
    """Fluid that fills one lung from below up to a level that rises towards the wall."""
    side = int(rng.integers(2))
    level = body.base[side] - rng.uniform(0.12, 0.45)
    frame = body.frame
    surface = level - 0.18 * np.clip(np.abs(frame.x) / body.width, 0, 1.2) ** 3
    fluid = edge(np.asarray(frame.y - surface, np.float32), 0.06)
    return np.float32(rng.uniform(0.22, 0.34)) * fluid * body.sides[side]


def _pacemaker(body: xray.Anatomy, rng: np.random.Generator) -> Field:
    """A metal case below a clavicle, and its lead into the heart."""
    frame, side = body.frame, rng.choice([-1.0, 1.0])
    case_x, case_y = side * rng.uniform(0.48, 0.60), rng.uniform(-0.60, -0.45)
    case = ellipse(frame, (case_x, case_y), (0.13, 0.10), 0.02)
    end = rng.uniform(0.2, 0.4)
    along = np.clip((frame.y - case_y) / (end - case_y), 0.0, 1.0)
    course = case_x + (0.12 - case_x) * along**0.6
    lead = ridge(frame.x - np.asarray(course, np.float32), 0.012, frame.pixel)
    lead = lead * ((frame.y > case_y) & (frame.y < end))
    return np.asarray(np.maximum(0.6 * case, 0.45 * lead), np.float32)


def _retina(name: str, size: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    retina = fundus.eye(
        size,
        rng,
        cup=0.85 if name == "large cup" else 0.45,
        winding=4.0 if name == "winding vessels" else 1.0,
    )
    image = retina.base
    if name == "drusen":
        image = _spotted(retina, image, 0.28, 24, np.array([0.95, 0.80, 0.40]), rng)
    elif name == "laser scars":
        image = _spotted(retina, image, 0.85, 40, np.array([0.80, 0.72, 0.50]), rng, hole=0.35)
    return fundus.expose(retina, image, rng)


def _spotted(retina: fundus.Eye, image: NDArray[np.float32], reach: float, most: int,
             colour: NDArray[np.float64], rng: np.random.Generator,
             hole: float = 0.0) -> NDArray[np.float32]:  # fmt: skip
    """Pale spots around the fovea, between ``hole`` and ``reach`` of it."""
    n = int(rng.integers(most // 2, most + 1))
    radius = np.sqrt(rng.uniform(hole**2, reach**2, n))
    angle = rng.uniform(0, 2 * np.pi, n)
    centres = np.array(retina.fovea) + np.stack(
        [radius * np.cos(angle), radius * np.sin(angle)], axis=1
    )
    width = rng.uniform(0.014, 0.034, n)
    cover = 0.8 * dots(retina.frame, centres.astype(np.float32), width.astype(np.float32))
    return np.asarray(image + cover[:, :, None] * (colour - image), np.float32)
