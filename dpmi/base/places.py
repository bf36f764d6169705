"""Where runs keep what they share, where no config says so."""

from __future__ import annotations

import os
from pathlib import Path

_DEFAULT = "~/.cache/dpmi"  # as in conf/config.yaml


def cache_folder(named: str | Path | None = None) -> Path:
    """The ``cache_dir`` that is named, else DPMI_CACHE, else the default."""
    return Path(named or os.environ.get("DPMI_CACHE", _DEFAULT)).expanduser()
