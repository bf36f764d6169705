"""Which runs are the same run: the keys that change the result, not where or how fast it runs."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from omegaconf import DictConfig

from dpmi.base.errors import UserError
from dpmi.base.places import from_home
from dpmi.config.schema import GIVEN, Config, load_config, plain_values
from dpmi.config.sections import MECHANISMS

# Keys that change where a run writes or how fast it goes, not what it computes.
NOT_IDENTITY = {
    "output_dir",
    "cache_dir",
    "logger",
    "rerun",
    "privacy.max_total_epsilon",
    "trainer.checkpoint_seconds",
    "data.resident",
    "data.max_left_out",
    "trainer.devices",
}
_OF_SEARCH = ("metric", "seed")  # keys of a sweeper that decide which runs it chooses
# Root keys that mean something to some mechanisms only.
_OF_MECHANISMS = frozenset().union(*(its.uses for its in MECHANISMS.values()))


def cell_name(config: Config) -> str:
    """Name of a run as people say it: dataset-mechanism-β-seed; β only where there is one."""
    beta = "" if config.mechanism.name == "none" else f"-beta{config.beta:g}"
    return f"{config.data.name}-{config.mechanism.name}{beta}-seed{config.seed}"


def config_digest(config: Config) -> str:
    """Twelve hexadecimal digits that two runs share when they compute the same.

    Keys that the mechanism does not use are left out: the original is one run in a sweep over β.
    So is the number of a ``noise_seed``, which could be found from the digest by trying.
    """
    unused = _OF_MECHANISMS - config.mechanism.uses
    left_out: dict[str, Any] = {}
    for key in NOT_IDENTITY | unused:
        section, _, name = key.partition(".")
        left_out[section] = left_out.get(section, set()) | {name} if name else True
    return _digest(plain_values(config, left_out))


def _digest(values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]


def output_dir(composed: DictConfig) -> str:
    """Where runs write; a value that the schema refuses stands as it is, for the run to report."""
    try:
        return from_home(str(composed.output_dir))
    except ValueError:
        return str(composed.output_dir)


def job_folder(composed: DictConfig) -> str:
    """Name of a job's folder within its sweep: the cell, and a digest of its config.

    Falls back to "invalid" for a config that fails the schema, which the run then reports.
    """
    try:
        config = load_config(composed)
    except UserError:
        return "invalid"
    return f"{cell_name(config)}-{config_digest(config)[:6]}"


def without_noise_seed(override: str) -> str:
    """An override of the command line, without the number where it gives a ``noise_seed``."""
    key, _, value = override.partition("=")
    if key.lstrip("+~") != "noise_seed" or value == "null":
        return override
    return f"{key}={GIVEN}"


def sweep_folder(composed: DictConfig) -> str:
    """Name of a sweep's folder: the same for the same sweep, so that it continues."""
    return f"sweep-{_digest(sweep_terms(composed))[:8]}"


def sweep_terms(composed: DictConfig) -> list[str]:
    """What a sweep computes: its overrides that change that; of a search also what it goes by."""
    overrides = [without_noise_seed(str(override)) for override in composed.hydra.overrides.task]
    keys = [override.split("=")[0].lstrip("+~") for override in overrides]
    cells = sorted(
        override
        for key, override in zip(keys, overrides, strict=True)
        if not {key, key.split(".")[0]} & NOT_IDENTITY
    )
    sweeper = composed.hydra.sweeper
    return cells + [f"hydra.sweeper.{key}={sweeper[key]}" for key in _OF_SEARCH if key in sweeper]
