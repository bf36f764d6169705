"""What a run keeps in its folder until it is complete: the key of its noise, and where it ran."""

from __future__ import annotations

import hashlib
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from dpmi.base.errors import UserError
from dpmi.config.identity import config_digest
from dpmi.config.schema import Config
from dpmi.privacy.journal import sync_folder
from dpmi.privacy.randomness import new_key
from dpmi.run.records.code import code_digest
from dpmi.run.records.entry_file import STATE_FILE
from dpmi.run.records.kinds import Secret


class RunState(Secret):
    """Written before training, removed when the run is complete; readable by its owner alone.

    Attributes:
        noise_key: of the noise source, in hexadecimal: a secret.
        data: fingerprint of the data set.
        place: what the arithmetic depends on to the last bit.
        attempt: how often the run was resumed where its steps could not be repeated to the bit.
        reserved: releases that attempts before this one may have made.
        restarts: how often the run was resumed at all.
        release: id of the noised images that local DP trains on; None before, and without them.
        tracker_id: of the run where its metrics are tracked.
        picked: what the run picked where its config leaves it open; None before.
    """

    noise_key: str
    data: str
    place: dict[str, str]
    attempt: int = 0
    reserved: int = 0
    restarts: int = 0
    release: str | None = None
    tracker_id: str
    picked: dict[str, Any] | None = None

    def write(self, folder: Path) -> None:
        """Write whole or not at all, and flush: the key must outlive what is drawn with it."""
        path = folder / STATE_FILE
        part = path.with_suffix(".part")
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(self.model_dump_json(indent=1))
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
        sync_folder(folder)


def read_state(folder: Path) -> RunState | None:
    """The state in a job's folder; None where there is none.

    Raises:
        UserError: it is damaged.
    """
    path = folder / STATE_FILE
    if not path.is_file():
        return None
    try:
        return RunState.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValidationError, ValueError) as error:
        raise UserError(
            f"{path}: damaged, so the run cannot be resumed and what it spent is not known; "
            "give rerun=true to start over"
        ) from error


def noise_key(config: Config, data: str, place: dict[str, str]) -> bytes:
    """256 bits: of the operating system, or of ``noise_seed`` and all of the run.

    Two runs with the same noise on the same images would give them away: whoever has both results
    solves two equations for two unknowns. So a ``noise_seed`` repeats the noise of the same run
    alone, and two cells of a sweep with it have nothing in common.
    """
    if config.noise_seed is None:
        return new_key()
    seeds = f"{config.noise_seed} {config_digest(config)} {data} {place['code']} {place['weights']}"
    return hashlib.sha256(seeds.encode()).digest()


def place_of(device: str, processes: int, weights: str) -> dict[str, str]:
    """What the arithmetic of a run depends on to the last bit.

    Args:
        device: what trains: "cpu", or the name of a GPU.
        processes: how many train.
        weights: digest of the weights that training starts from.
    """
    return {
        "device": device,
        "processes": str(processes),
        "weights": weights,
        "code": code_digest(),
        "torch": torch.__version__,
        "numpy": version("numpy"),
        "opacus": version("opacus"),
        "threads": str(torch.get_num_threads()),
        "processor": f"{_processor()} {torch.backends.cpu.get_cpu_capability()}",
    }


def _processor() -> str:
    """Its model: kernels are chosen by it, and round otherwise on another."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()
