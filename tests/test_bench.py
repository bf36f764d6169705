import json
import sys

import pytest

from dpmi import bench
from dpmi.benchmarks import feed
from dpmi.benchmarks.step import METHODS


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["group", "frozen_batch"])
def test_the_bench_measures_each_method_and_writes_rows(tmp_path, monkeypatch, norm, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["bench", "--rounds", "1", "--sizes", "32:4", "--norm", norm]
    monkeypatch.setattr(sys, "argv", words)
    bench.main()
    written = json.loads((tmp_path / bench.OUTPUT).read_text())
    rows = {row["method"]: row for row in written["rows"]}
    assert tuple(rows) == METHODS
    for row in rows.values():
        assert (row["image_size"], row["batch_size"]) == (32, 4)
        assert row["images_per_second"] > 0
        assert row["peak_mb"] > 0
    assert rows["non-private"]["speed_ratio"] == rows["non-private"]["memory_ratio"] == 1
    assert {"device", "threads", "precision", "compiled", "torch", "opacus"} <= written[
        "machine"
    ].keys()
    assert "fast" in capsys.readouterr().out


def test_a_size_that_is_none_is_refused_in_one_line(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["bench", "--sizes", "64"])
    with pytest.raises(SystemExit) as refusal:
        bench.main()
    assert refusal.value.code == 2
    assert "give PIXELS:BATCH" in capsys.readouterr().err


@pytest.mark.slow
def test_options_change_how_a_step_runs_and_are_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ("--rounds", "1", "--sizes", "32:4", "--methods", "fast", "--channels-last")
    monkeypatch.setattr(sys, "argv", ["bench", *words, "--precision", "bf16-mixed"])
    bench.main()
    written = json.loads((tmp_path / bench.OUTPUT).read_text())
    assert [row["method"] for row in written["rows"]] == ["non-private", "fast"]
    assert written["machine"]["precision"] == "bf16-mixed"
    assert written["machine"]["channels_last"] is True


@pytest.mark.slow
def test_another_network_is_measured_beside_what_can_train_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ("--rounds", "1", "--sizes", "32:2", "--model", "convnext_tiny")
    monkeypatch.setattr(sys, "argv", ["bench", *words])
    bench.main()
    written = json.loads((tmp_path / bench.OUTPUT).read_text())
    assert [row["method"] for row in written["rows"]] == ["non-private", "fast"]
    assert written["machine"]["model"] == "convnext_tiny"
    assert "one training step of convnext_tiny" in capsys.readouterr().out


@pytest.mark.slow
def test_the_other_parts_measure_what_stands_around_the_step(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(feed, "_FILES", 40)
    words = ("--rounds", "1", "--sizes", "64:8", "--parts", *bench.PARTS[1:])
    monkeypatch.setattr(sys, "argv", ["bench", *words])
    bench.main()
    written = json.loads((tmp_path / bench.OUTPUT).read_text())
    assert written["rows"] == []
    parts = [figure["part"] for figure in written["figures"]]
    assert parts == ["operations", "data", "data", "noise", "noise", "start"]
    assert all(figure["value"] > 0 for figure in written["figures"])
    # Beyond the plain step are the Gram matrices alone: 15 of 869 million operations.
    assert 1.01 < written["figures"][0]["ratio"] < 1.03
