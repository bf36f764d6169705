"""The wall time of a run, from the command to its record, and what a figure would take."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from dpmi.benchmarks.gpu.cells import FAILED
from dpmi.benchmarks.step import Shape, timed
from dpmi.data.readers.chest_xray import CLASSES
from dpmi.models.network import build_network
from dpmi.run.records.reading import read_records

EPOCHS = 2
CELLS, EPOCHS_OF_A_CELL = 14, 50  # of the poster's Figure 4: two data sets, seven cells each
# Kaggle's counts; of other sizes the bench is only tried.
_COUNTS = {"train": 5216, "val": 16, "test": 624}
_FEW = {"train": 16, "val": 4, "test": 8}
_KNOTS = 24  # of the made images, in either direction


@dataclass(frozen=True)
class WholeRun:
    """One cell of Figure 4, run as its command.

    Attributes:
        images: whose: real, or made.
        seconds: from the command to its end; None where there is a note.
        epochs: trained.
        timings: seconds of its parts, from its record.
        peak_mb: memory while it trained; None where it is not known.
        note: why there is no figure.
    """

    images: str
    epochs: int
    seconds: float | None = None
    timings: dict[str, float] | None = None
    peak_mb: float | None = None
    note: str = ""

    @property
    def cell_seconds(self) -> float | None:
        """Of one cell in full, extrapolated: all but its epochs takes what it takes here."""
        if self.seconds is None or self.timings is None:
            return None
        more = EPOCHS_OF_A_CELL - self.epochs
        return self.seconds + more * self.timings["train"] / self.epochs

    @property
    def figure_seconds(self) -> float | None:
        """Of all cells one after another, as if each were this one, which is DP-SGD."""
        cell = self.cell_seconds
        return None if cell is None else CELLS * cell


def run(device: torch.device, data: Path | None, shape: Shape | None, seconds: float) -> WholeRun:
    """Run one cell of ``experiment=figure4_pneumonia`` for a few epochs, its images resident.

    Args:
        device: where it trains.
        data: folder of the X-rays; None for as many made ones.
        shape: of a trial, with few images; None for the experiment's own.
        seconds: after which it is given up.
    """
    images = "made" if data is None else "real"
    with tempfile.TemporaryDirectory(prefix="dpmi-bench-") as name:
        folder = Path(name)
        if data is None:
            data = folder / "made"
            _make(data, _FEW if shape else _COUNTS, shape.image_size if shape else 256)
        weights = folder / "weights.pth"
        # Random ones, so that nothing is downloaded: they take as long.
        torch.save(build_network("resnet18", 1000, "batch", None).net.state_dict(), weights)
        command = [sys.executable, "-m", "dpmi.train", *_words(device, data, weights, shape)]
        command += [f"output_dir={folder / 'outputs'}", f"cache_dir={folder / 'cache'}"]
        try:
            took = timed(lambda: subprocess.run(
                command, capture_output=True, text=True, timeout=seconds, check=True
            ))  # fmt: skip
        except subprocess.TimeoutExpired:
            return WholeRun(images, EPOCHS, note=f"not measured: took more than {seconds:.0f} s")
        except subprocess.CalledProcessError as error:
            reasons = [record.reason for record in read_records(folder / "outputs")]
            last = (error.stderr.strip() or error.stdout.strip()).splitlines()[-1:]
            return WholeRun(images, EPOCHS, note=f"{FAILED}: {(reasons or last or [''])[0]}")
        (record,) = read_records(folder / "outputs")
        return WholeRun(images, EPOCHS, took, record.timings, record.peak_memory_mb)


def _words(device: torch.device, data: Path, weights: Path, shape: Shape | None) -> list[str]:
    words = [
        *("experiment=figure4_pneumonia", "mechanism=dpsgd", "beta=1", f"data.root={data}"),
        *(f"model.weights={weights}", f"trainer.max_epochs={EPOCHS}", "data.resident=true"),
        *("logger=csv", f"trainer.accelerator={'cpu' if device.type == 'cpu' else 'gpu'}"),
    ]
    if shape:
        words += [f"data.image_size={shape.image_size}", "data.resize=null"]
        words.append(f"data.batch_size={shape.batch_size}")
    return words


def _make(root: Path, counts: dict[str, int], side: int) -> None:
    """Write smooth noise, in the folders and the format of the X-rays."""
    rng = np.random.default_rng(0)
    for split, count in counts.items():
        for number in range(count):
            folder = root / split / CLASSES[number % len(CLASSES)]
            folder.mkdir(parents=True, exist_ok=True)
            knots = Image.fromarray(rng.integers(0, 256, (_KNOTS, _KNOTS), np.uint8))
            picture = knots.resize((side, side), Image.Resampling.BICUBIC)
            picture.save(folder / f"{split}{number}.jpeg", quality=90)
