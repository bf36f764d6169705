"""Where configs lie, and what they say where nothing else is given."""

from __future__ import annotations

import os
from pathlib import Path


def config_dir() -> str:
    """``conf/`` of the checkout, or the copy that the installed package carries."""
    package = Path(__file__).resolve().parents[1]
    checkout = package.parent / "conf"
    return str(checkout if (checkout / "config.yaml").is_file() else package / "conf")


def default_cache() -> Path:
    """The ``cache_dir`` of conf/config.yaml: DPMI_CACHE, or a folder in the user's home."""
    return Path(os.environ.get("DPMI_CACHE", "~/.cache/dpmi")).expanduser()
