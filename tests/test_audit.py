"""``python -m dpmi.audit``: what it writes, what it says, how it exits."""

import dataclasses
import shutil

import pytest
from rich.console import Console

from dpmi import audit
from dpmi.auditing import command
from dpmi.run.job import Run
from dpmi.run.records.reading import read_record
from dpmi.run.records.record import RECORD_FILE
from dpmi.run.records.writing import write_record

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def runs(composed, tiny, tmp_path_factory):
    """A folder with a run of local DP, and one without privacy."""
    base = tmp_path_factory.mktemp("audited")
    for mechanism in ("ldp", "none"):
        (folder := base / "sweep" / mechanism).mkdir(parents=True)
        words = (*tiny, f"mechanism={mechanism}", f"cache_dir={base / 'cache'}")
        if mechanism == "ldp":  # noise for each pixel: 61,440 trials in one short run
            words = (*words, "mechanism.pool=1")
        Run(composed(*words), folder, Console(quiet=True)).execute()
    return base


@pytest.fixture
def run(runs, tmp_path):
    """A copy of it, to write in."""
    return shutil.copytree(runs / "sweep", tmp_path / "sweep")


def test_a_run_is_audited_by_its_own_config_and_its_records_say_so(runs, run, capsys):
    cache = runs / "cache"
    before = sorted(cache.rglob("*"))
    assert audit.main([str(run), "--seconds", "0"]) == 0
    found = read_record(run / "ldp" / RECORD_FILE).audit
    # Outside in fewer than one of 1000 runs: the bound is .962, and .932 at least in 200 simulated.
    assert 0.9 < found["lower_bound"] <= found["claimed"] == 1.0
    assert found["says"].startswith("audited: ε ≥ 0.")
    assert read_record(run / "none" / RECORD_FILE).audit is None
    assert "claims no ε" in capsys.readouterr().out
    assert sorted(cache.rglob("*")) == before  # nothing of the user's was touched


def test_a_claim_that_is_too_small_is_an_error_in_one_line(run, capsys):
    folder = run / "ldp"
    record = read_record(folder / RECORD_FILE)
    small = dataclasses.replace(record.guarantee, epsilon=0.25)
    write_record(record.model_copy(update={"guarantee": small}), folder)
    assert audit.main([str(folder), "--seconds", "0"]) == 1
    assert "the claim is refuted by trials: ε is at least 0." in " ".join(
        capsys.readouterr().out.split()
    )
    assert read_record(folder / RECORD_FILE).audit["refuted"]


@pytest.mark.parametrize(
    ("mechanism", "described"), [("ldp_features", {}), ("class_means", {"moment_scale": 2.0})]
)
def test_what_no_canary_reaches_is_reported_as_not_audited(run, capsys, mechanism, described):
    folder = run / "ldp"
    record = read_record(folder / RECORD_FILE)
    other = dataclasses.replace(record.guarantee, mechanism=mechanism)
    changed = {"guarantee": other, "mechanism": record.mechanism | described}
    write_record(record.model_copy(update=changed), folder)
    assert audit.main([str(folder), "--seconds", "0"]) == 2
    printed = capsys.readouterr()
    assert "are not audited" in " ".join(printed.out.split())
    assert "no run here states an ε that an audit can bound" in printed.err
    assert read_record(folder / RECORD_FILE).audit is None


def test_a_folder_without_runs_is_bad_input(tmp_path, capsys):
    assert audit.main([str(tmp_path)]) == 2
    assert "no run here states an ε" in capsys.readouterr().err


def test_ctrl_c_ends_it(monkeypatch, tmp_path, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "audit_folders", interrupted)
    assert audit.main([str(tmp_path)]) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_a_run_that_this_machine_cannot_repeat_is_refused_before_any_is_audited(run, capsys):
    folder = run / "ldp"
    record = read_record(folder / RECORD_FILE)
    config = record.config | {"model": record.config["model"] | {"weights": "no.pth"}}
    write_record(record.model_copy(update={"config": config}), folder)
    assert audit.main([str(run), "--seconds", "0"]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: model.weights=no.pth: no such file")


def test_a_record_of_another_versions_config_is_refused_in_one_line(run, capsys):
    folder = run / "ldp"
    record = read_record(folder / RECORD_FILE)
    config = record.config | {"model": dict(record.config["model"])}
    del config["model"]["frozen"]
    write_record(record.model_copy(update={"config": config}), folder)
    assert audit.main([str(folder), "--seconds", "0"]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert (
        "record.json: its config was written by another version of dpmi (model.frozen: Field req"
        in line
    )
