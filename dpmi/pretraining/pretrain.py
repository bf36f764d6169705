"""Pretrain a network once on public phantoms: the poster's ImageNet weights in miniature.

On chests for gray images, on retinas for images in colour: half of the time that both would take.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
from filelock import FileLock
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from torch import Tensor, nn

from dpmi.base.errors import UserError
from dpmi.data.phantoms.public import CLASSES, Subject
from dpmi.data.readers.phantom import DRAWING_VERSION
from dpmi.models.network import ImageNetwork
from dpmi.models.weights import SUFFIX, read_state_dict, write_state_dict
from dpmi.pretraining.drawn import draw_images


@dataclass(frozen=True)
class PretrainRecipe:
    """All that the weights depend on; its digest is part of their file's name."""

    subject: Subject
    network: str = "resnet18"
    images: int = 5000
    size: int = 48  # pixels a side
    epochs: int = 3
    batch_size: int = 32
    peak_learning_rate: float = 0.002  # of AdamW, one cycle
    weight_decay: float = 0.02
    largest_noise: float = 1.5  # scale of Laplace noise on half of the images, drawn from 0 to this
    seed: int = 2005
    drawing_version: int = DRAWING_VERSION

    @property
    def file_name(self) -> str:
        """Name of the file of weights."""
        recipe = asdict(self)
        network = recipe.pop("network")
        digest = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()
        of = "" if network == "resnet18" else f"{network}-"
        return f"phantom-{of}{digest[:12]}{SUFFIX}"


def phantom_weights(cache_dir: Path, console: Console, recipe: PretrainRecipe) -> dict[str, Tensor]:
    """Find or make the weights; several processes that ask at once pretrain once.

    A damaged file is reported and made again.

    The caller's random state is left as it was. The weights depend on public drawings only: no
    patient's image is touched and no privacy is spent.

    Args:
        cache_dir: the weights are kept in ``cache_dir/weights``.
        console: shows the progress.
        recipe: how to pretrain.

    Returns:
        A state dict of torchvision's network.

    Raises:
        UserError: the cache cannot be written.
    """
    path = cache_dir / "weights" / recipe.file_name
    if (state := _read(path, console)) is not None:
        return state
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):
            if path.is_file():  # made by another process in the meantime, or damaged
                with contextlib.suppress(UserError):
                    return read_state_dict(path)
            console.print(
                f"model.weights=phantom: pretraining {recipe.network} once on {recipe.images} "
                f"drawn public {recipe.subject} (no patient, no privacy spent); kept in {path}"
            )
            state = pretrain(recipe, console)
            write_state_dict(state, path)
    except OSError as error:
        raise UserError(
            f"cache_dir={cache_dir}: the pretrained weights cannot be kept there "
            f"({error.strerror}); name a folder that can be written"
        ) from error
    return state


def _read(path: Path, console: Console) -> dict[str, Tensor] | None:
    """Weights that are there and whole."""
    if not path.is_file():
        return None
    try:
        return read_state_dict(path)
    except UserError:
        console.print(f"{path}: damaged; made anew", style="yellow", markup=False)
        return None


def pretrain(recipe: PretrainRecipe, console: Console) -> dict[str, Tensor]:
    """Train on public phantoms and return a state dict of torchvision's network."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with _progress(console) as progress, torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        task = progress.add_task(f"drawing public {recipe.subject}", total=recipe.images)
        images, labels = draw_images(
            recipe.subject, recipe.seed, recipe.images, recipe.size, partial(progress.advance, task)
        )
        classes = len(CLASSES[recipe.subject])
        model = ImageNetwork(recipe.network, classes, side=recipe.size).to(device).train()
        steps = -(-recipe.images // recipe.batch_size) * recipe.epochs
        optimizer = torch.optim.AdamW(
            model.parameters(),
            lr=recipe.peak_learning_rate,
            weight_decay=recipe.weight_decay,
            fused=True,  # else it takes a tenth of the step on a CPU
        )
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, recipe.peak_learning_rate, total_steps=steps
        )
        task = progress.add_task("pretraining", total=steps)
        for batch in _batches(recipe):
            x = _augment(images[batch].to(device).float() / 255, recipe.largest_noise)
            loss = nn.functional.cross_entropy(model(x), labels[batch].to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            progress.advance(task)
    return {name: value.cpu() for name, value in model.net.state_dict().items()}


def _augment(images: Tensor, largest_noise: float) -> Tensor:
    """Mirror a batch or not, and put Laplace noise of a random scale on half of its images.

    Without noise in pretraining, the filters would know clean images only, and local DP would
    start from nothing.
    """
    if torch.rand(()) < 0.5:  # mirrored chests and eyes are chests and eyes
        images = images.flip(3)
    b, _, h, w = images.shape
    uniform = torch.rand(b, 3, h, w, device=images.device) - 0.5
    noise = -uniform.sign() * torch.log1p(-2 * uniform.abs().clamp(max=0.4999999))
    gray = (images[:, 0] == images[:, 1]).flatten(1).all(1)  # one value, one noise
    noise[gray] = noise[gray, :1]
    scale = (torch.rand(b, device=images.device) * 2 - 1).clamp(min=0) * largest_noise
    return (images + scale.view(b, 1, 1, 1) * noise).clamp(0, 1)


def _batches(recipe: PretrainRecipe) -> Iterator[Tensor]:
    for _ in range(recipe.epochs):
        yield from torch.randperm(recipe.images).split(recipe.batch_size)


def _progress(console: Console) -> Progress:
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )
