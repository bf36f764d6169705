"""What ``python -m dpmi.evaluate`` does: a run's model on labelled images, as in the run itself."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from dpmi.base.errors import UserError
from dpmi.base.targets import probabilities
from dpmi.config.sections import FeatureSettings
from dpmi.data.catalogue import Labels
from dpmi.features.extract import vectors_of
from dpmi.features.projection import Projection
from dpmi.models.by_group import by_group
from dpmi.models.groups import worst_groups
from dpmi.models.metrics import counted_images, metrics_of, named, reliability
from dpmi.models.network import Pretrained
from dpmi.run.first_weights import WEIGHTS_FILE
from dpmi.run.left import Left, read_left
from dpmi.run.records.environment import environment
from dpmi.using.evaluation import Evaluation
from dpmi.using.images import LabelledImages, labelled_images
from dpmi.using.loading import backbone_of, built, device_of
from dpmi.using.model import TrainedModel
from dpmi.using.progress import progress

_BATCH = 64


def evaluate(
    run: Path, words: Sequence[str], output: Path | None, backbone: Path | None, console: Console
) -> tuple[Evaluation, Path]:
    """Measure a run's model on labelled images, and write what was found.

    Args:
        run: the folder of a run.
        words: KEY=VALUE of the images; none: the run's own test images.
        output: a file; None: beside the run.
        backbone: of a head, the file of the network that it reads.
        console: where progress is shown.

    Returns:
        What was found, and the file that holds it.

    Raises:
        UserError: the run or the images cannot be used, or the file cannot be written.
    """
    left = read_left(run)
    reads = backbone_of(left, backbone)
    labelled = labelled_images(left, words)
    device = device_of(left)
    model = built(left, reads).to(device)
    batches = _probabilities(left, model, reads, labelled, device, console)
    found = _measured(left, labelled, batches, device)
    path = output or run / found.file_name
    try:
        found.write(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror or error})") from error
    return found, path


@torch.no_grad()
def _probabilities(
    left: Left,
    model: TrainedModel,
    backbone: Pretrained | None,
    labelled: LabelledImages,
    device: str,
    console: Console,
) -> list[Tensor]:
    """(B, K) of batch after batch; of the run's own images in the batches of the run."""
    data = labelled.data
    if backbone is not None:
        settings = FeatureSettings.model_validate(left.record.config["model"]["features"])
        how = settings, model.image_size, backbone, labelled.cache_dir, console, device
        vectors, projection = vectors_of(data, *how)["test"], Projection.kept(left.state)
        vectors = projection(vectors) if projection else vectors
        logits = model.net(vectors.to(device))
        return [probabilities(logits, multilabel=model.multilabel)]
    pixels, size = data.splits["test"].pixels, _batch_size(left) if labelled.own else _BATCH
    found = []
    with progress(console, "evaluating", len(pixels)) as advance:
        for start in range(0, len(pixels), size):
            batch = torch.from_numpy(np.array(pixels[start : start + size])).to(device)
            found.append(model(model.shown(batch)))
            advance(len(batch))
    return found


def _batch_size(left: Left) -> int:
    """Of the run's own evaluation: another may round otherwise."""
    assert left.private
    assert left.private.data
    size = left.private.config["data"]["batch_size"]
    return int(left.private.data["counts"]["train"] if size == "all" else size)


def _not_labelled(labels: Labels, classes: Sequence[str]) -> tuple[str, ...]:
    if labels.ndim == 1:
        return ()
    return tuple(np.asarray(classes)[np.isnan(labels).all(0)].tolist())


def _measured(
    left: Left, labelled: LabelledImages, batches: list[Tensor], device: str
) -> Evaluation:
    data, classes = labelled.data, left.provenance.classes
    split = data.splits["test"]
    labels = torch.from_numpy(split.labels).to(device)
    metrics = metrics_of(len(classes), data.graded, multilabel=data.multilabel).to(device)
    start = 0
    for batch in batches:
        metrics.update(batch, labels[start : start + len(batch)])
        start += len(batch)
    values = {name: float(value) for name, value in named(metrics, classes).items()}
    tested = counted_images(metrics)
    (whole,) = by_group(tested, {"": ("",) * len(labels)}, split.patients, classes)
    groups = by_group(tested, split.groups, split.patients, classes) if split.groups else []
    guarantee = left.record.guarantee
    assert guarantee is not None  # of a run that completed
    with (left.folder / WEIGHTS_FILE).open("rb") as file:
        weights = hashlib.file_digest(file, "sha256").hexdigest()
    return Evaluation(
        run=left.record.run,
        weights=weights,
        guarantee=guarantee,
        dataset=data.name,
        images=hashlib.sha256(data.fingerprint.sha256.encode()).hexdigest(),
        own=labelled.own,
        count=len(labels),
        patients=whole.patients,
        class_counts=whole.class_counts,
        not_labelled=_not_labelled(split.labels, classes),
        skipped=data.fingerprint.corrupt_skipped,
        trained_on=labelled.trained_on,
        metrics=values,
        intervals=whole.measures,
        reliability=reliability(metrics),
        groups=groups,
        worst_groups=worst_groups(groups),
        environment=environment(device),
    )
