import json
import os

import pytest

from dpmi.base.errors import UserError
from dpmi.privacy.guarantee import Claim, Guarantee
from dpmi.run.records.environment import environment
from dpmi.run.records.public import PUBLIC_FILE
from dpmi.run.records.reading import read_record, read_records
from dpmi.run.records.record import RECORD_FILE, ImageSample, RunRecord
from dpmi.run.records.writing import write_record


def record(**changes):
    values = {
        "run": "phantom_xray-dpsgd-beta1-seed42",
        "config_digest": "0123456789ab",
        "keyed_config": "0" * 64,
        "keyed_data": "1" * 64,
        "status": "completed",
        "reason": None,
        "stopped": None,
        "restarts": 0,
        "config": {
            "beta": 1.0,
            "data": {"name": "folder", "root": "/bilder/größe"},
            "noise_seed": None,
            "logger": {"nonprivate": False},
        },
        "data": {"sha256": "00", "counts": {"train": 3}, "largest_images_per_patient": None},
        "guarantee": Guarantee(
            "dpsgd", 0.99, 1e-4, "image", "zero-out", "prv", assumptions=("n is public", "ε")
        ),
        "mechanism": {"ledger": [{"steps": 3, "noise_multiplier": 1.5, "sample_rate": 0.1}]},
        "metrics": {"test/accuracy": 0.1 + 0.2, "test/auroc": float("nan")},
        "curves": {"epsilon": [0.5, 0.99], "nonprivate/accuracy": [0.1 + 0.2, float("nan")]},
        "sample": ImageSample(label="NORMAL", side=256, every=2, before="cG5n", after=None),
        "timings": {"total": 1.5},
        "peak_memory_mb": 812.5,
        "environment": environment("cpu"),
    }
    return RunRecord(**(values | changes))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"status": "failed", "reason": "no data [/x]", "guarantee": None, "data": None},
        {"status": "interrupted", "reason": "by the user", "metrics": {}},
        {"audit": {"lower_bound": 0.48, "confidence": 0.95}},
        {"guarantee": Guarantee.none("none", "no mechanism")},
        {"guarantee": Guarantee.none("x", "why", Claim(1.0, 1e-4, "image", "some authors"))},
    ],
    ids=["completed", "failed", "interrupted", "audited", "no guarantee", "a claim"],
)
def test_what_is_written_is_what_is_read(tmp_path, changes):
    written = record(**changes)
    path = write_record(written, tmp_path)
    assert path == tmp_path / RECORD_FILE
    read = read_record(path)
    assert read.model_dump_json() == written.model_dump_json()
    assert read.guarantee == written.guarantee


def test_a_record_is_plain_json_that_says_first_that_it_is_private(tmp_path):
    content = json.loads(write_record(record(), tmp_path).read_text(), parse_constant=pytest.fail)
    assert list(content)[:3] == ["private", "schema_name", "version"]
    assert "that no ε covers" in content["private"]
    assert (content["schema_name"], content["version"]) == ("dpmi.run-record", 4)
    assert content["guarantee"]["assumptions"] == ["n is public", "ε"]


def broken(path, **changes):
    content = json.loads(write_record(record(), path).read_text()) | changes
    (path / RECORD_FILE).write_text(json.dumps(content))
    return path / RECORD_FILE


@pytest.mark.parametrize(
    "changes", [{"version": 1}, {"version": 3}, {"schema_name": "other.record"}, {"version": None}]
)
def test_another_schema_or_version_is_refused_by_name(tmp_path, changes):
    path = broken(tmp_path, **changes)
    with pytest.raises(UserError, match=r"this dpmi reads dpmi\.run-record version 4") as refusal:
        read_record(path)
    assert str(path) in str(refusal.value)
    for value in changes.values():
        assert str(value) in str(refusal.value)


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"status": "done"}, "status"),
        ({"extra": 1}, "extra"),
        ({"metrics": {"a": "b"}}, "metrics.a"),
    ],
)
def test_a_record_with_a_wrong_field_is_refused_in_one_line_naming_it(tmp_path, changes, key):
    path = broken(tmp_path, **changes)
    with pytest.raises(UserError) as refusal:
        read_record(path)
    assert str(refusal.value).startswith(f"{path}: {key}: ")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "text", ["", "{", '{"run": ', "[1, 2]", "null", "\x00\xff"], ids=lambda text: repr(text)
)
def test_a_broken_file_is_refused_in_one_line(tmp_path, text):
    path = tmp_path / RECORD_FILE
    path.write_bytes(text.encode("latin1"))
    with pytest.raises(UserError) as refusal:
        read_record(path)
    assert str(refusal.value).startswith(f"{path}: ")
    assert "\n" not in str(refusal.value)


def test_a_missing_record_is_refused_in_one_line(tmp_path):
    with pytest.raises(UserError, match="not a readable run record"):
        read_record(tmp_path / RECORD_FILE)


def test_a_write_that_fails_leaves_the_record_that_was_there(tmp_path, monkeypatch):
    write_record(record(), tmp_path)
    before = (tmp_path / RECORD_FILE).read_text()

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr(os, "replace", full)
        with pytest.raises(OSError, match="No space"):
            write_record(record(status="failed", reason="x"), tmp_path)
    assert (tmp_path / RECORD_FILE).read_text() == before
    assert {path.name for path in tmp_path.iterdir()} == {RECORD_FILE, PUBLIC_FILE}
    write_record(record(status="failed", reason="x"), tmp_path)
    assert read_record(tmp_path / RECORD_FILE).status == "failed"


def test_the_records_of_a_sweep_are_those_of_its_jobs(tmp_path):
    for name in ("b", "a", "empty"):
        (tmp_path / name).mkdir()
    write_record(record(run="second"), tmp_path / "b")
    write_record(record(run="first"), tmp_path / "a")
    assert [r.run for r in read_records(tmp_path)] == ["first", "second"]


def test_the_environment_names_versions_and_no_host():
    found = environment("cpu")
    assert found["packages"]["torch"]
    assert found["packages"]["dp-accounting"]
    assert found["cpus"] >= 1
    assert os.uname().nodename not in json.dumps(found)
