import pickle

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from dpmi.base.ranks import Ranks
from dpmi.data.batches import (
    NumberedBatch,
    ShuffledBatches,
    StepSampler,
    step_seed,
)


class Numbers(Dataset):
    """Serves the indices themselves, and the step."""

    def __len__(self):
        return 10

    def __getitems__(self, batch):
        return list(batch), batch.step


def loader(first_step=0, workers=0):
    batches = ShuffledBatches(10, 4, seed=1)
    return DataLoader(
        Numbers(),
        batch_sampler=StepSampler(batches, first_step),
        num_workers=workers,
        collate_fn=lambda batch: batch,
    )


@pytest.mark.parametrize(
    ("n", "size", "sizes"), [(9, 4, [4, 5]), (5, 4, [5]), (1, 4, [1]), (3, 1, [1, 1, 1])]
)
def test_a_single_image_left_over_joins_the_batch_before(n, size, sizes):
    batches = ShuffledBatches(n, size, seed=1)
    epoch = [batches.draw(step) for step in range(batches.steps_per_epoch)]
    assert [len(members) for members in epoch] == sizes
    assert sorted(index for members in epoch for index in members) == list(range(n))


def test_an_epoch_serves_each_image_once_and_the_next_in_another_order():
    loading = loader()
    epochs = [list(loading) for _ in range(3)]
    for epoch in epochs:
        assert [len(indices) for indices, _ in epoch] == [4, 4, 2]
        assert sorted(i for indices, _ in epoch for i in indices) == list(range(10))
    assert epochs[0] != epochs[1] != epochs[2]
    assert [step for epoch in epochs for _, step in epoch] == list(range(9))


def test_a_batch_is_that_of_its_step_whatever_was_drawn_before():
    batches = ShuffledBatches(10, 4, seed=1)
    forward = [batches.draw(step) for step in range(9)]
    assert [batches.draw(step) for step in reversed(range(9))] == forward[::-1]


@pytest.mark.parametrize(("first", "workers"), [*((first, 0) for first in range(9)), (4, 1)])
def test_a_loader_begins_at_any_step_and_goes_on_with_whole_epochs(first, workers):
    whole = loader()
    expected = [batch for _ in range(4) for batch in whole]
    loading, end = loader(first, workers), (first // 3 + 1) * 3
    assert list(loading) == expected[first:end]
    assert list(loading) == expected[end : end + 3]


def test_a_numbered_batch_keeps_its_step_on_the_way_to_a_worker():
    batch = pickle.loads(pickle.dumps(NumberedBatch([3, 1], 7)))
    assert (list(batch), batch.step) == ([3, 1], 7)


@pytest.mark.parametrize("size", [2, 3, 7])
def test_the_parts_of_all_processes_are_the_batch_each_image_once(size):
    batches = ShuffledBatches(10, 4, seed=1)  # a part may be empty
    whole = list(StepSampler(batches))
    parts = [list(StepSampler(batches, 0, Ranks(rank, size))) for rank in range(size)]
    for batch, *shared in zip(whole, *parts, strict=True):
        assert sorted(i for part in shared for i in part) == sorted(batch)
        assert {part.step for part in shared} == {batch.step}


def test_seeds_of_steps_are_all_different():
    seeds = {step_seed(seed, step) for seed in range(50) for step in range(200)}
    assert len(seeds) == 50 * 200
    torch.Generator().manual_seed(max(seeds))
