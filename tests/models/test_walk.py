import pytest
import torch

from dpmi.models.schedule import make_schedule
from dpmi.models.walk import noise_walk

WEIGHTS = 20_000


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize(("schedule", "steps"), [("cosine", 60), ("constant", 25), ("cosine", 1)])
def test_it_is_what_sgd_makes_of_noise(schedule, steps, momentum):
    # Five standard errors of a standard deviation: one false alarm in 300 000 runs of this test.
    rng = torch.Generator().manual_seed(4)
    weights = torch.zeros(WEIGHTS, requires_grad=True)
    sgd = torch.optim.SGD([weights], lr=1.0, momentum=momentum)
    rates = make_schedule(schedule, sgd, steps)
    for _ in range(steps):
        weights.grad = torch.randn(WEIGHTS, generator=rng)
        sgd.step()
        rates.step()
    found = float(weights.detach().square().mean().sqrt())
    assert noise_walk(schedule, steps, momentum) == pytest.approx(
        found, rel=5 / (2 * WEIGHTS) ** 0.5
    )


def test_without_momentum_at_a_constant_rate_it_is_the_root_of_the_steps():
    assert noise_walk("constant", 49, 0.0) == pytest.approx(7.0)
