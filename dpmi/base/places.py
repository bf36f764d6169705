"""Places on disk: of the home folder, and where runs keep what they share if no config says so."""

from __future__ import annotations

import os
from pathlib import Path

_DEFAULT = "~/.cache/dpmi"  # as in conf/config.yaml


def from_home(place: str) -> str:
    """A path that may begin with ``~``, the user's home, or ``~name``, another's.

    Raises:
        ValueError: there is no user of that name.
    """
    path = os.path.expanduser(place)
    if path.startswith("~"):
        raise ValueError(f"no user here has a home folder {path.split('/')[0]}")
    return path


def cache_folder(named: str | Path | None = None) -> Path:
    """The ``cache_dir`` that is named, else DPMI_CACHE, else the default."""
    return Path(named or os.environ.get("DPMI_CACHE", _DEFAULT)).expanduser()
