"""Everything around the training step: preparing, loading and noising images, starting."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from dpmi.benchmarks.step import PLAIN, Options, Shape, measure
from dpmi.config.data_sets import FolderData
from dpmi.data.datamodule import ImageDataModule
from dpmi.data.decoding.image import decode_image
from dpmi.data.decoding.settings import Decoding
from dpmi.data.parallel import cpu_count
from dpmi.data.phantoms.xray import draw_xray
from dpmi.data.prepare import PreparedData, prepare
from dpmi.models.gradient import MeanGradient
from dpmi.models.network import build_network
from dpmi.privacy.engines.bookkeeping import BookKeeping
from dpmi.privacy.engines.rules import Sums
from dpmi.privacy.laplace import laplace_mechanism
from dpmi.privacy.lattice import lattice_gaussian
from dpmi.privacy.noise import GaussianNoise
from dpmi.privacy.randomness import NoiseSource
from dpmi.run.records.reading import read_records

_FILES, _FILE_SIDE, _SIDE, _BATCH = 600, 500, 64, 64
_NOISED = (2000, 1, 64, 64)
_PARAMETERS = 11_170_000  # about a ResNet-18's
_STEPS_IN_STD = 2.0**24  # about what its noise has at a noise multiplier of 1
# The command's first step, with weights and images that take no time to make.
_COMMAND = (
    *("-m", "dpmi.train", "mechanism=none", "model.weights=null", "logger=csv"),
    *("data.train_images=64", "data.val_images=0", "data.test_images=8", "data.batch_size=64"),
)


@dataclass(frozen=True)
class Figure:
    """One measured figure; ``ratio`` is to what ``beside`` says, measured in the same call."""

    part: str
    what: str
    value: float
    unit: str
    beside: str | None = None
    ratio: float | None = None


def data(rounds: int) -> list[Figure]:
    """Decoding and resizing beside Pillow, and the loader beside the step that it feeds."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        files = _write_images(folder / "images")
        contents = [file.read_bytes() for file in files]
        prepared, seconds = [], []
        pillow = []
        for number in range(rounds):
            pillow.append(_seconds(lambda: [decode_image(c, _SIDE, Decoding(1)) for c in contents]))
            started = time.perf_counter()
            prepared.append(_prepare(folder, number))
            seconds.append(time.perf_counter() - started)
        limit = _FILES / statistics.median(pillow) * cpu_count()
        rate = _FILES / statistics.median(seconds)
        loading = _loader_rate(prepared[0], rounds)
    (step,) = measure(Shape(_SIDE, _BATCH), Options(), rounds, (PLAIN,))
    taken = step.images_per_second
    return [
        Figure(
            *("data", f"preparing {_FILES} JPEGs of {_FILE_SIDE} px to {_SIDE} px", rate),
            *("images/s", "Pillow alone on one thread, times the cores", rate / limit),
        ),
        Figure(
            *("data", f"loader alone, {_SIDE} px, batch {_BATCH}, affine", loading),
            *("images/s", "what a plain step takes", loading / taken),
        ),
    ]


def _write_images(folder: Path) -> list[Path]:
    files = []
    for index in range(_FILES):
        pixels, label = draw_xray(_FILE_SIDE, np.random.default_rng(index))
        file = folder / str(label) / f"{index}.jpeg"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels[:, :, 0]).save(file, quality=90)
        files.append(file)
    return files


def _prepare(folder: Path, number: int) -> PreparedData:
    config = FolderData(
        name="folder", root=str(folder / "images"), channels=1, graded=False,
        many_classes=False, val_fraction=0.0, test_fraction=0.1, split_seed=0,
        image_size=_SIDE, resize=None, batch_size=_BATCH,
        augment="affine", multiplicity=1, on_corrupt="error", num_workers=0, resident="auto",
        groups=None, bit_depth="auto", window=None, value_range=None, max_left_out=0.1,
    )  # fmt: skip
    return prepare(config, folder / f"cache{number}")


def _loader_rate(prepared: PreparedData, rounds: int) -> float:
    module = ImageDataModule(
        prepared, image_size=_SIDE, batch_size=_BATCH, augment="affine", num_workers=0, seed=0
    )
    images = len(prepared.splits["train"].labels)
    loader = module.train_dataloader()
    return images / statistics.median(
        _seconds(lambda: [len(labels) for _, labels in loader]) for _ in range(rounds)
    )


def noise(rounds: int) -> list[Figure]:
    """LDP's release of images and DP-SGD's of a sum, beside the noise alone of other generators."""
    pixels = np.random.default_rng(0).integers(0, 256, _NOISED, np.uint8)
    rng = np.random.default_rng(1)
    stream = NoiseSource(None).stream("laplace_train")
    ours, theirs = [], []
    for _ in range(rounds):
        ours.append(_seconds(lambda: laplace_mechanism(pixels, 1.0, stream)))
        theirs.append(_seconds(lambda: _numpy_laplace(rng)))
    ratio = statistics.median(t / o for t, o in zip(theirs, ours, strict=True))
    rate = pixels.size / statistics.median(ours) / 1e6
    beside = "numpy.random.Generator.laplace, one thread"
    return [
        Figure("noise", "LDP: noised, clipped and rounded", rate, "M values/s", beside, ratio),
        _gaussian_noise(rounds),
    ]


def _gaussian_noise(rounds: int) -> Figure:
    sums, draws = torch.zeros(_PARAMETERS), GaussianNoise(NoiseSource(None))
    law = lattice_gaussian(_STEPS_IN_STD)
    ours, theirs = [], []
    for step in range(rounds):
        ours.append(_seconds(partial(draws.release, sums, law, 1.0, step)))
        theirs.append(_seconds(sums.normal_))
    ratio = statistics.median(t / o for t, o in zip(theirs, ours, strict=True))
    rate = _PARAMETERS / statistics.median(ours) / 1e6
    what, beside = "DP-SGD: rounded, noised and scaled", "torch's normal_, one thread"
    return Figure("noise", what, rate, "M values/s", beside, ratio)


def _numpy_laplace(rng: np.random.Generator) -> NDArray[np.float64]:
    return rng.laplace(0.0, 1.0, _NOISED)


def start(rounds: int) -> list[Figure]:
    """From the command to the first step: all that it takes but what its record accounts for."""
    seconds = []
    with tempfile.TemporaryDirectory() as temporary:
        for number in range(rounds):
            outputs = Path(temporary) / str(number)
            words = (f"output_dir={outputs}", f"cache_dir={temporary}/cache")
            started = time.perf_counter()
            done = subprocess.run(
                [sys.executable, *_COMMAND, *words], capture_output=True, text=True, check=False
            )
            took = time.perf_counter() - started
            if done.returncode:
                raise RuntimeError(f"{' '.join(_COMMAND)} failed: {done.stderr.strip()[-500:]}")
            (record,) = read_records(outputs)
            after = (record.timings[name] for name in ("train", "evaluate", "save"))
            seconds.append(took - sum(after))
    return [Figure("start", "from the command to the first step", statistics.median(seconds), "s")]


def operations(shape: Shape) -> Figure:
    """Multiplications and additions of a private step over those of a plain one: the floor.

    Of one image: of several, the examples' gradients are the groups of a convolution, which the
    counter takes for a full one. Every operation that it counts is an image's.
    """
    images = torch.rand(1, 1, shape.image_size, shape.image_size)
    labels = torch.zeros(1, dtype=torch.int64)
    net = build_network("resnet18", 2, "group", None)
    plain = _counted(lambda: MeanGradient(net)(images, labels))
    net.zero_grad()  # those that the engine finds it takes for those of a layer without a rule
    sums: Sums = {p: torch.zeros(p.shape) for p in net.parameters()}
    engine = BookKeeping(net, 1.0, {})
    private = _counted(lambda: engine.add_clipped_sum(images, labels, sums, 1.0))
    what = f"fast, {shape.image_size} px"
    ratio = private / plain
    return Figure("operations", what, private / 1e9, "Gflop/image", "the plain step", ratio)


def _counted(work: Callable[[], object]) -> int:
    counter = FlopCounterMode(display=False)
    with counter:
        work()
    return counter.get_total_flops()


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
