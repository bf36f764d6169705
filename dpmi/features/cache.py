"""Features on disk: computed once for a data set, a view and weights, shared by every run.

``cache_dir/features/<key>.safetensors`` holds, for each split and each stage up to the deepest
asked, the channel means of every image. The key is made of the data set's fingerprint (which is of
contents and order), the digest of the weights, the crop, the view and the exposure: of all that the
features depend on, and of nothing else.
"""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from torch import Tensor

from dpmi.data.prepare import PreparedData
from dpmi.errors import UserError
from dpmi.features.backbone import STAGES, FrozenBackbone, seen, stages_to
from dpmi.models.weights import SUFFIX, read_state_dict, weights_digest, write_state_dict

VERSION = 1  # of what is computed; another number leaves old files alone
_BATCH = 32

Pooled = dict[str, dict[str, Tensor]]  # split to stage to (n, C) float32


@dataclass(frozen=True)
class FeatureRequest:
    """What the features of one view depend on.

    Attributes:
        data: decoded images.
        image_size: side of the square cut from their centre, in pixels.
        state: the backbone's weights.
        deepest: the last stage that is wanted.
        view, exposure: how an image is shown (``backbone.seen``).
    """

    data: PreparedData
    image_size: int
    state: dict[str, Tensor]
    deepest: str
    view: str
    exposure: str

    def key(self, deepest: str) -> str:
        """Name of the file that these features are kept in, with those of stages to ``deepest``."""
        asked = [VERSION, self.data.fingerprint.sha256, self.image_size, deepest]
        asked += [weights_digest(self.state), self.view, self.exposure]
        return hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:32]


def pooled_features(
    request: FeatureRequest, cache_dir: Path, console: Console, device: str = "cpu"
) -> Pooled:
    """Return the features of one view, from the cache where they are there, else computing them.

    Of several processes that ask at once one computes, the others wait for it. A file is written
    whole or not at all; one that was damaged since is told, and made anew.

    Args:
        request: which.
        cache_dir: they are kept in ``cache_dir/features``.
        console: where it is said and shown.
        device: that computes them.

    Raises:
        UserError: the cache cannot be written.
    """
    folder = cache_dir / "features"
    for deepest in list(STAGES)[len(stages_to(request.deepest)) - 1 :]:  # a deeper file serves, too
        path = folder / f"{request.key(deepest)}{SUFFIX}"
        if (found := _read(path, request, console)) is not None:
            return found
    path = folder / f"{request.key(request.deepest)}{SUFFIX}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):
            if (found := _read(path, request, None)) is None:  # not made by another meanwhile
                found = _compute(request, console, device)
                named = {f"{s}/{stage}": x for s, of in found.items() for stage, x in of.items()}
                write_state_dict(named, path)
    except OSError as error:
        raise UserError(
            f"cache_dir={cache_dir}: the features cannot be kept there "
            f"({error.strerror or error}); make room, or name a folder that can be written"
        ) from error
    return found


def _read(path: Path, request: FeatureRequest, console: Console | None) -> Pooled | None:
    """Features that are there and whole."""
    if not path.is_file():
        return None
    try:
        named = read_state_dict(path)
    except UserError:
        if console:
            console.print(f"{path}: damaged; computed anew", style="yellow", markup=False)
        return None
    stages = stages_to(request.deepest)
    return {s: {stage: named[f"{s}/{stage}"] for stage in stages} for s in request.data.splits}


def _compute(request: FeatureRequest, console: Console, device: str) -> Pooled:
    """One pass over all images of all splits."""
    started = time.perf_counter()
    backbone = FrozenBackbone(request.state, request.deepest).to(device)
    splits = request.data.splits
    total = sum(len(split.labels) for split in splits.values())
    if not console.is_terminal:
        console.print(f"computing the features of {total} images ({request.view}), once")
    pooled: Pooled = {}
    with _progress(console) as progress, torch.inference_mode():
        task = progress.add_task(f"features ({request.view})", total=total)
        for name, split in splits.items():
            parts: dict[str, list[Tensor]] = {stage: [] for stage in stages_to(request.deepest)}
            for start in range(0, len(split.labels), _BATCH):
                images = _cropped(split.pixels[start : start + _BATCH], request.image_size)
                for stage, values in backbone(
                    seen(images.to(device), request.view, request.exposure)
                ).items():
                    parts[stage].append(values.cpu())
                progress.advance(task, len(images))
            pooled[name] = {stage: torch.cat(values) for stage, values in parts.items()}
    console.print(
        f"features of {total} images ({request.view}): {time.perf_counter() - started:.0f} s"
    )
    return pooled


def _cropped(pixels: np.ndarray, size: int) -> Tensor:
    """(B, C, R, R) 8-bit values to the centre (B, C, size, size) in [0, 1]."""
    edge = round((pixels.shape[-1] - size) / 2)  # as torchvision's CenterCrop
    cut = pixels[..., edge : edge + size, edge : edge + size]
    return torch.from_numpy(cut.astype(np.float32)).div_(255)


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    return Progress(
        *columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal
    )
