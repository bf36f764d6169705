"""Fixtures that every folder of tests may use."""

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared():
    """Real images and weights that are no part of the project: DPMI_SHARED, or ../shared."""
    folder = Path(os.environ.get("DPMI_SHARED", REPOSITORY.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"no real images or weights: {folder} is absent (set DPMI_SHARED)")
    return folder
