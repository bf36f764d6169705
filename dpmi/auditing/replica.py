"""A run repeated as its user would, with the auditor's images, and observed."""

from __future__ import annotations

import copy
import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from dpmi.auditing.canaries import SIDE, Canaries, CanaryNet
from dpmi.auditing.transcript import LEARNING_RATE, Transcript
from dpmi.base.errors import UserError
from dpmi.config.schema import Config
from dpmi.config.sections import CsvLogger, DpsgdMechanism
from dpmi.mechanisms import batch_images
from dpmi.privacy.guarantee import Guarantee
from dpmi.run.durability.stopping import StoppedByRequest
from dpmi.run.given import Given
from dpmi.run.job import Run
from dpmi.run.processes.ddp import run_on_devices
from dpmi.run.records.record import RunRecord

Seen = TypeVar("Seen")

PIECE = 1024  # images in one pass, where the config leaves it to what the network takes


def replica(config: Config, folder: Path, **changes: dict[str, Any]) -> Config:
    """The config of a run, but for where it writes, and what an auditor must choose.

    Args:
        config: of the audited run.
        folder: for whatever the replica leaves: no cache or account of the user's is touched.
        changes: keys by section.
    """
    sections = {name: getattr(config, name).model_copy(update=c) for name, c in changes.items()}
    return config.model_copy(
        update={
            "noise_seed": None,
            "rerun": False,
            "output_dir": str(folder),
            "cache_dir": str(folder / "cache"),
            "logger": CsvLogger(name="csv", sample_images="none", nonprivate=False),
            **sections,
        }
    )


def on_own_network(config: Config) -> Config:
    """The config with all layers of an auditor's network trained, by all of the budget."""
    still = {"learning_rate": LEARNING_RATE, "weight_decay": 0.0, "momentum": 0.0}
    whole = {
        "train": "all",
        "frozen": None,
        "prior": "train",
        "average": "none",
        "schedule": "constant",
    }
    mechanism = config.mechanism
    if isinstance(mechanism, DpsgdMechanism):  # which would lower that learning rate
        mechanism = mechanism.model_copy(update={"noise_walk": None})
    model = config.model.model_copy(update=still | whole)
    return config.model_copy(update={"model": model, "mechanism": mechanism})


def again(
    run: Callable[[int], Seen], seconds: float, progress: Callable[[int, float], None]
) -> list[Seen]:
    """What runs gave, as many as end within ``seconds``; one is made in any case.

    Args:
        run: makes one, given the number of those before.
        seconds: that may pass.
        progress: called after each, with their number and the seconds that passed.
    """
    started = time.monotonic()
    seen: list[Seen] = []
    while True:
        begun = time.monotonic()
        seen.append(run(len(seen)))
        now = time.monotonic()
        progress(len(seen), now - started)
        if now - started + (now - begun) > seconds:
            return seen


class Claimed(NamedTuple):
    """What a run says of itself: ε at δ, of one unit."""

    epsilon: float
    delta: float
    unit: str


def claim(guarantee: Guarantee | None, stated: float | None) -> Claimed:
    """The claim of a guarantee.

    Args:
        guarantee: of a replica.
        stated: ε that the audited run states, which is then what counts.

    Raises:
        UserError: it claims none.
    """
    if (
        guarantee is None
        or guarantee.epsilon is None
        or guarantee.delta is None
        or guarantee.unit is None
    ):
        raise UserError(f"the run has no ε to audit ({guarantee})")
    epsilon = guarantee.epsilon if stated is None else stated
    return Claimed(epsilon, guarantee.delta, guarantee.unit)


def execute(config: Config, folder: Path, given: Given) -> RunRecord:
    """Run it whole; where its process dies, give the same command again.

    Raises:
        UserError: it did not complete.
    """
    console, first = Console(quiet=True), copy.deepcopy(given.net)
    while True:
        try:
            if config.trainer.devices > 1:
                record = run_on_devices(config, folder, console, given)
            else:
                record = Run(config, folder, console, given=given).execute()
        except StoppedByRequest:  # in a new process the network would be new, too
            given = dataclasses.replace(given, net=copy.deepcopy(first))
            continue
        if record.status != "completed":
            raise UserError(f"the audited run {record.status}: {record.reason}")
        return record


def watched(
    config: Config, canaries: Canaries, interrupted: bool
) -> tuple[RunRecord, NDArray[np.float64]]:
    """Train on canaries; return the record, and what each step released along each canary.

    Args:
        config: of the audited run.
        canaries: to train on.
        interrupted: let the process die in the middle, after a step that is on no checkpoint.

    Returns:
        The record, and (releases, m) in units of the clipping norm: 1 for a canary that was
        included and drawn, plus noise.

    Raises:
        UserError: the run did not complete.
    """
    with TemporaryDirectory(prefix="dpmi-audit-") as name:
        folder = Path(name)
        piece = config.max_physical_batch_size
        own = replica(
            on_own_network(config),
            folder,
            data={"image_size": SIDE, "resize": None},
            trainer={"checkpoint_seconds": 0.0} if interrupted else {},
        ).model_copy(update={"max_physical_batch_size": PIECE if piece == "auto" else piece})
        steps = max(1, round(canaries.n / batch_images(own, canaries.n)))
        alone = own.trainer.devices == 1
        lost = (steps * own.trainer.max_epochs + 1) // 2 if interrupted and alone else None
        transcript = Transcript(folder / "transcript", canaries.labels, lost)
        net = CanaryNet(canaries.cells, own.max_grad_norm)
        record = execute(own, folder, Given(canaries.data, net, (transcript,)))
        plan = record.mechanism["plan"]
        unit = plan["max_grad_norm"] / plan["expected_batch_size"]
        return record, transcript.releases() / unit
