import copy
import math

import pytest
import torch

from dpmi.models.schedule import make_schedule


def sgd(peak=0.5):
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=peak)


def taken(optimizer, schedule, steps):
    """Learning rates of so many steps."""
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return rates


@pytest.mark.parametrize("steps", [1, 2, 9, 40, 125])
def test_the_learning_rate_rises_to_its_peak_and_ends_at_nothing(steps):
    optimizer = sgd()
    rates = taken(optimizer, make_schedule("cosine", optimizer, steps), steps)
    warm = round(steps / 10)
    rise = [0.5 * (step + 1) / (warm + 1) for step in range(warm)]
    fall = [0.25 * (1 + math.cos(math.pi * step / (steps - warm))) for step in range(steps - warm)]
    assert rates == pytest.approx([*rise, *fall], rel=1e-6)
    assert max(rates) == pytest.approx(0.5)
    assert min(rates) > 0  # no step is wasted
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0, abs=1e-12)  # none is left


def test_a_constant_learning_rate_stays_as_it_is():
    optimizer = sgd()
    assert taken(optimizer, make_schedule("constant", optimizer, 20), 20) == [0.5] * 20


@pytest.mark.parametrize("stopped", [1, 4, 5, 17])  # within the rise, at its end, in the fall
def test_a_schedule_that_is_resumed_goes_on_to_the_bit(stopped):
    optimizer = sgd()
    schedule = make_schedule("cosine", optimizer, 40)
    whole = sgd()
    expected = taken(whole, make_schedule("cosine", whole, 40), 40)
    assert taken(optimizer, schedule, stopped) == expected[:stopped]
    kept = copy.deepcopy((optimizer.state_dict(), schedule.state_dict()))
    later = sgd()
    resumed = make_schedule("cosine", later, 40)
    later.load_state_dict(kept[0])
    resumed.load_state_dict(kept[1])
    assert taken(later, resumed, 40 - stopped) == expected[stopped:]


def test_another_schedule_is_refused():
    with pytest.raises(ValueError, match="allowed are constant, cosine"):
        make_schedule("steps", sgd(), 10)
