import multiprocessing
import sys
import weakref
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest
import torch

from dpmi.run.memory import PeakMemory

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="no other system forgets a peak")
CPU = torch.device("cpu")


def held(mb):
    return np.ones((mb, 2**20), np.uint8).sum()


def peak(before, in_training):
    """In MB, of a run that holds so much before it trains, and while it does."""
    memory = PeakMemory()
    assert memory.mb() is None
    held(before)
    memory.training_starts(CPU)
    held(in_training)
    return memory.mb()


@pytest.fixture(scope="module")
def peaks():
    """Of two runs of one process, in which nothing else holds memory or gives it back."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return [process.submit(peak, *mb).result() for mb in ((600, 200), (0, 100))]


def test_the_peak_is_that_of_training_and_not_of_what_came_before(peaks):
    assert 190 <= peaks[0] <= 300


def test_a_second_run_of_a_process_does_not_report_the_firsts_peak(peaks):
    assert 90 <= peaks[1] <= 160


def test_where_the_system_cannot_forget_there_is_no_figure(monkeypatch, tmp_path):
    monkeypatch.setattr("dpmi.run.memory._CLEAR", tmp_path / "absent" / "clear_refs")
    memory = PeakMemory()
    memory.training_starts(CPU)
    assert memory.mb() is None


class Network:
    """As Lightning leaves one: it and its trainer hold each other."""

    def __init__(self):
        self.trainer = self


def test_an_earlier_runs_network_is_freed_before_the_next_one_and_no_part_of_its_peak():
    left = weakref.ref(Network())
    memory = PeakMemory()
    assert left() is None
    pretrained = weakref.ref(Network())
    memory.training_starts(CPU)
    assert pretrained() is None
