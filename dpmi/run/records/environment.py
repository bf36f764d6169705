"""What a run ran on."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from dpmi.run.records.code import code_digest

_PACKAGES = (
    "dpmi", "torch", "torchvision", "pytorch-lightning", "opacus", "dp-accounting", "torchmetrics",
    "hydra-core", "omegaconf", "wandb", "numpy", "scikit-learn", "medmnist", "pillow",
)  # fmt: skip


def environment(device: str | None) -> dict[str, Any]:
    """What the run ran on, without names of hosts or paths."""
    return {
        "packages": {name: _version(name) for name in _PACKAGES},
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpus": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "device": device,
        "git_commit": _git_commit(),
        "code": code_digest(),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git_commit() -> str | None:
    """Commit of the checkout that this code runs from, "+dirty" where it was changed since."""
    source = Path(__file__).resolve().parents[3]
    if not (source / ".git").exists():  # installed elsewhere: some outer repository is not ours
        return None
    try:
        head = _git(source, "rev-parse", "HEAD")
        return head + ("+dirty" if _git(source, "status", "--porcelain") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *words: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=10, check=True
    )
    return done.stdout.strip()
