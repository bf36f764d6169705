"""Bugs that would break the guarantee, planted one at a time: a test must fail on each.

make planted                     # all of them
make planted ARGS='-k noise'     # those that have it in their name
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from planted_bugs import PLANTED, Planted

REPOSITORY = Path(__file__).resolve().parents[1]


def run_test(code: Path, test: str) -> subprocess.CompletedProcess[str]:
    """Run a test, a slow one too, on the code in a folder."""
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-m", "", "-p", "no:cacheprovider", test],
        cwd=code,
        env=os.environ | {"PYTHONPATH": str(code), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )


@pytest.mark.slow
@pytest.mark.parametrize("bug", PLANTED, ids=lambda bug: bug.name)
def test_a_planted_bug_is_caught(bug: Planted, tmp_path):
    for name in ("dpmi", "conf", "tests", "docs", "pyproject.toml", "README.md", "Makefile"):
        source = REPOSITORY / name
        if source.is_dir():
            shutil.copytree(source, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, tmp_path / name)
    planted_in = tmp_path / bug.file
    clean = planted_in.read_text()
    assert clean.count(bug.code) == 1, f"{bug.file} has changed: plant the bug anew"
    planted_in.write_text(clean.replace(bug.code, bug.planted))
    done = run_test(tmp_path, bug.caught_by)
    # A failed assertion, not a crash that any test at all would notice.
    assert done.returncode == 1, done.stdout[-3000:] + done.stderr[-1000:]
    assert re.search(r"\d+ failed", done.stdout), done.stdout[-3000:]


def test_no_bug_is_planted_twice():
    assert len({bug.name for bug in PLANTED}) == len(PLANTED)
    assert len({(bug.file, bug.code, bug.planted) for bug in PLANTED}) == len(PLANTED)


def test_each_bug_can_be_planted_in_the_program_as_it_is():
    """Planting them is slow and not part of every run of the tests; that the code is there is."""
    for bug in PLANTED:
        found = (REPOSITORY / bug.file).read_text(encoding="utf-8").count(bug.code)
        assert found == 1, f"{bug.file} has changed, {bug.name}: plant the bug anew"
        file, test = bug.caught_by.split("::")
        assert f"def {test.split('[')[0]}(" in (REPOSITORY / file).read_text(encoding="utf-8")


def test_the_documents_list_every_planted_bug():
    page = (REPOSITORY / "docs" / "audit.md").read_text(encoding="utf-8")
    for bug in PLANTED:
        assert f"| {bug.name} | `{bug.caught_by.removeprefix('tests/')}` |" in page
