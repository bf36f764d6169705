import sys

import numpy as np
import pytest
import torch

from dpmi.run.memory import PeakMemory

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="no other system forgets a peak")
CPU = torch.device("cpu")


def held(mb):
    return np.ones((mb, 2**20), np.uint8).sum()


def test_the_peak_is_that_of_training_and_not_of_what_came_before():
    memory = PeakMemory()
    assert memory.mb() is None
    held(600)  # such as decoding images
    memory.training_starts(CPU)
    held(200)
    assert 190 <= memory.mb() <= 300


def test_a_second_run_of_a_process_is_not_told_the_firsts_peak():
    for mb in (400, 100):
        memory = PeakMemory()
        memory.training_starts(CPU)
        held(mb)
        assert mb - 10 <= memory.mb() <= mb + 100


def test_where_the_system_cannot_forget_there_is_no_figure(monkeypatch, tmp_path):
    monkeypatch.setattr("dpmi.run.memory._CLEAR", tmp_path / "absent" / "clear_refs")
    memory = PeakMemory()
    memory.training_starts(CPU)
    assert memory.mb() is None
