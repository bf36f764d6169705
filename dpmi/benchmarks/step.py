"""One training step with each clipping method, in turn, on the same network and batch."""

from __future__ import annotations

import importlib.metadata
import multiprocessing
import platform
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch

from dpmi.backbones import backbone
from dpmi.benchmarks import ghost
from dpmi.mechanisms.dpsgd import DPSGD
from dpmi.models.gradient import MeanGradient
from dpmi.models.network import build_network
from dpmi.privacy.gradients import PrivateGradient
from dpmi.privacy.plan import PrivacyPlan
from dpmi.privacy.randomness import NoiseSource
from dpmi.run.memory import keep_freed_memory, peak_resident_mb

PLAIN = "non-private"
METHODS = (PLAIN, "fast", "opacus hooks", "opacus ghost")
# Opacus keeps a gradient for each image: more at once than this, and a small machine swaps.
_OPACUS_PIECE = 16
_CLASSES = 2


@dataclass(frozen=True)
class Shape:
    """What is measured: (batch_size, 1, image_size, image_size)."""

    image_size: int
    batch_size: int


@dataclass(frozen=True)
class Options:
    """How all methods are run; Opacus' are float32 and not compiled whatever these say."""

    norm: str = "group"  # or "frozen_batch"; of networks with BatchNorm
    model: str = "resnet18"
    precision: str = "32-true"  # or "bf16-mixed"
    channels_last: bool = False
    compiled: bool = False


@dataclass(frozen=True)
class Step:
    """One training step, on images of its own.

    Attributes:
        run: gradient, and SGD's update.
        images_in_a_pass: of the batch; fewer from when memory ran out.
    """

    run: Callable[[], object]
    images_in_a_pass: Callable[[], int]


@dataclass(frozen=True)
class Row:
    """One method at one shape; ratios are to the plain step, in the same call."""

    method: str
    image_size: int
    batch_size: int
    images_per_second: float
    speed_ratio: float
    peak_mb: float
    memory_ratio: float


def measure(shape: Shape, options: Options, rounds: int, methods: tuple[str, ...]) -> list[Row]:
    """Time the methods in alternation, then find each one's peak in a process of its own.

    Args:
        shape: image and batch.
        options: of all methods.
        rounds: timed rounds, after one that warms up.
        methods: of METHODS; the plain one is added where it is missing, and Opacus' are left out
            where it makes no gradients of all layers.
    """
    names = (PLAIN, *[m for m in methods if m != PLAIN])
    if not backbone(options.model).samplers:
        names = tuple(m for m in names if not m.startswith("opacus"))
    peaks = {name: _peak_in_own_process(name, shape, options) for name in names}
    keep_freed_memory()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    steps = {name: make_step(name, shape, options, device).run for name in names}
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for step in steps.values():
        step()
    for _ in range(rounds):
        for name, step in steps.items():
            seconds[name].append(timed(step))
    return [
        Row(
            method=name,
            image_size=shape.image_size,
            batch_size=shape.batch_size,
            images_per_second=shape.batch_size / statistics.median(seconds[name]),
            speed_ratio=statistics.median(
                plain / own for plain, own in zip(seconds[PLAIN], seconds[name], strict=True)
            ),
            peak_mb=peaks[name],
            memory_ratio=peaks[name] / peaks[PLAIN],
        )
        for name in names
    ]


def timed(work: Callable[[], object]) -> float:
    """Seconds until it is done, also on a GPU, which works on when a call returns."""
    _wait()
    started = time.perf_counter()
    work()
    _wait()
    return time.perf_counter() - started


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def make_step(
    method: str,
    shape: Shape,
    options: Options,
    device: torch.device,
    piece: int | Literal["auto"] | None = None,
) -> Step:
    """A method on a network, images and labels of its own.

    Args:
        method: of METHODS.
        shape: of the batch.
        options: of all methods.
        device: where.
        piece: most images in a pass of the private methods, "auto" (not for ghost clipping) as
            training chooses it; None for the whole batch, or 16 of Opacus' hooks.
    """
    # Opacus' hooks sit on the first layer too, whose input needs no gradient.
    warnings.filterwarnings("ignore", message="Full backward hook is firing")
    torch.manual_seed(0)
    side, norms = shape.image_size, backbone(options.model).norms
    start = build_network(options.model, _CLASSES, norms[0], None, side=side).net.state_dict()
    norm = options.norm if options.norm in norms else norms[0]
    net = build_network(options.model, _CLASSES, norm, start, side=side).train().to(device)
    if options.channels_last:
        net = net.to(memory_format=torch.channels_last)
    images = torch.rand(shape.batch_size, 1, shape.image_size, shape.image_size, device=device)
    labels = torch.arange(shape.batch_size, device=device) % _CLASSES
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3, weight_decay=1e-3)
    if method == "opacus ghost":
        pieces = shape.batch_size if piece is None else int(piece)
        clipping = ghost.prepared(net, optimizer, shape.batch_size)
        return Step(partial(ghost.step, *clipping, images, labels, pieces), lambda: pieces)
    if method == PLAIN:
        gradient: MeanGradient | PrivateGradient = MeanGradient(net)
    else:
        plan = PrivacyPlan(
            n=100 * shape.batch_size, expected_batch_size=shape.batch_size, max_grad_norm=1.0,
            noise_multiplier=1.0, steps=100, delta=1e-6, accountant="rdp",
        )  # fmt: skip
        fast = method == "fast"
        gradient = DPSGD(
            plan,
            steps_per_epoch=100,
            max_physical_batch_size=piece or (shape.batch_size if fast else _OPACUS_PIECE),
            input_shape=(3, shape.image_size, shape.image_size),
            engine="fast" if fast else "opacus",
            learning_rate=optimizer.param_groups[0]["lr"],
            noise=NoiseSource(0),
        ).make_gradient(net)

    ours = method in (PLAIN, "fast")
    if ours and options.compiled:
        net.compile(dynamic=True)
    bfloat16 = ours and options.precision == "bf16-mixed"

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
            gradient(images, labels)
        optimizer.step()

    if isinstance(gradient, PrivateGradient):
        private = gradient
        return Step(step, lambda: min(private.physical_batch_size, shape.batch_size))
    return Step(step, lambda: shape.batch_size)


def _peak_in_own_process(method: str, shape: Shape, options: Options) -> float:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak_mb, (method, shape, options))


def _peak_mb(method: str, shape: Shape, options: Options) -> float:
    """Most memory that two steps held, less what the process held before it had a network."""
    cuda = torch.cuda.is_available()
    before = 0.0 if cuda else peak_resident_mb()
    step = make_step(method, shape, options, torch.device("cuda" if cuda else "cpu"))
    for _ in range(2):
        step.run()
    return torch.cuda.max_memory_allocated() / 2**20 if cuda else peak_resident_mb() - before


def machine() -> dict[str, object]:
    """What the figures hold for."""
    cuda = torch.cuda.is_available()
    packages = ("torch", "opacus")
    return {
        "device": torch.cuda.get_device_name() if cuda else platform.machine(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
    } | {name: importlib.metadata.version(name) for name in packages}
