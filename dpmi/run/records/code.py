"""The version of the code that matters."""

from __future__ import annotations

import hashlib
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[2]
# What decides what is computed; not how it is launched, shown and reported.
_MATTERS = (
    *("backbones", "base/devices.py", "base/ranks.py", "base/targets.py", "base/views.py"),
    *("data", "features", "mechanisms", "models", "pretraining", "privacy"),
    *("run/average.py", "run/first_weights.py", "run/job.py", "run/matching.py", "run/parts.py"),
    *("run/durability/state.py", "run/privacy_callback.py", "run/processes", "run/stages"),
)


def code_digest() -> str:
    """Twelve hexadecimal digits of the source files that decide what a run computes."""
    sha256 = hashlib.sha256()
    for name in _MATTERS:
        place = _PACKAGE / name
        for file in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
            sha256.update(f"{file.relative_to(_PACKAGE).as_posix()} ".encode())
            sha256.update(hashlib.sha256(file.read_bytes()).digest())
    return sha256.hexdigest()[:12]
