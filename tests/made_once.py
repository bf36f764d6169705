"""What several processes of one run of the tests need, made by the first that asks."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock


def made_once(
    tmp_path_factory: pytest.TempPathFactory, name: str, fill: Callable[[Path], Any]
) -> Path:
    """A folder that is filled once for all processes of this run of the tests; they only read."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    with FileLock(f"{folder}.lock"):
        if not (done := Path(f"{folder}.done")).exists():
            folder.mkdir(parents=True)
            fill(folder)
            done.touch()
    return folder
