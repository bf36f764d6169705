"""Where the configs lie."""

from __future__ import annotations

from pathlib import Path


def config_dir() -> str:
    """``conf/`` of the checkout, or the copy that the installed package carries."""
    package = Path(__file__).resolve().parents[1]
    checkout = package.parent / "conf"
    return str(checkout if (checkout / "config.yaml").is_file() else package / "conf")
