import json
import sys

import pytest

from dpmi import bench
from dpmi.run.step_benchmark import METHODS


@pytest.mark.parametrize("norm", ["group", pytest.param("frozen_batch", marks=pytest.mark.slow)])
def test_the_bench_measures_each_method_and_writes_rows(tmp_path, monkeypatch, norm, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["bench", "--rounds", "1", "--sizes", "32:4", "--norm", norm]
    monkeypatch.setattr(sys, "argv", words)
    bench.main()
    told = json.loads((tmp_path / bench.OUTPUT).read_text())
    rows = {row["method"]: row for row in told["rows"]}
    assert tuple(rows) == METHODS
    for row in rows.values():
        assert (row["image_size"], row["batch_size"]) == (32, 4)
        assert row["images_per_second"] > 0
        assert row["peak_mb"] > 0
    assert rows["non-private"]["speed_ratio"] == rows["non-private"]["memory_ratio"] == 1
    assert {"device", "threads", "precision", "torch", "opacus"} <= told["machine"].keys()
    assert "fast" in capsys.readouterr().out


def test_a_size_that_is_none_is_refused_in_one_line(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["bench", "--sizes", "64"])
    with pytest.raises(SystemExit) as refusal:
        bench.main()
    assert refusal.value.code == 2
    assert "give PIXELS:BATCH" in capsys.readouterr().err
