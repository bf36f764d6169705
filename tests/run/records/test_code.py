from pathlib import Path

import dpmi
from dpmi.run.records.code import _MATTERS, code_digest

PACKAGE = Path(dpmi.__file__).parent
# What runs, shows, launches or uses what the others compute; of base and run some files matter.
ELSEWHERE = {
    *("attacking", "auditing", "base", "benchmarks", "cards", "config", "launch", "reporting"),
    *("run", "search", "using"),
}
OF_BASE = {"__init__", "errors", "loading", "places", "redaction", "threads"}  # compute nothing


def test_each_folder_of_the_program_is_in_the_digest_or_known_to_compute_nothing_of_a_run():
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert folders - {name for name in _MATTERS if "/" not in name} == ELSEWHERE


def test_each_file_of_the_ground_is_in_the_digest_or_known_to_compute_nothing_of_a_run():
    files = {f"base/{path.name}" for path in (PACKAGE / "base").glob("*.py")}
    assert files - set(_MATTERS) == {f"base/{name}.py" for name in OF_BASE}


def test_all_that_is_listed_is_there_and_a_change_to_a_network_is_another_code(monkeypatch):
    assert all((PACKAGE / name).exists() for name in _MATTERS)
    before, read = code_digest(), Path.read_bytes
    network = PACKAGE / "backbones" / "resnet18.py"
    monkeypatch.setattr(
        Path, "read_bytes", lambda path: read(path) + (b"#" if path == network else b"")
    )
    assert code_digest() != before
