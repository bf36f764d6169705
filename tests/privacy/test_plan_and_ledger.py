import dataclasses

import pytest

from dpmi.privacy.accounting import epsilon
from dpmi.privacy.guarantee import Guarantee
from dpmi.privacy.ledger import Ledger
from dpmi.privacy.plan import PrivacyPlan, delta_for

PLAN = PrivacyPlan(
    n=1000, expected_batch_size=50, max_grad_norm=1.0, noise_multiplier=2.0, steps=40, delta=1e-4,
    accountant="prv",
)  # fmt: skip


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"delta": 1e-3}, "delta"),
        ({"delta": 0.0}, "delta"),
        ({"expected_batch_size": 1001}, "expected_batch_size"),
        ({"expected_batch_size": 0}, "expected_batch_size"),
        ({"steps": 0}, "steps"),
        ({"noise_multiplier": 0.0}, "noise_multiplier"),
        ({"noise_multiplier": float("nan")}, "noise_multiplier"),
        ({"max_grad_norm": float("inf")}, "max_grad_norm"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(change, named):
    with pytest.raises(ValueError, match=named):
        dataclasses.replace(PLAN, **change)


def test_a_plan_cannot_be_changed_after_it_is_made():
    with pytest.raises(dataclasses.FrozenInstanceError):
        PLAN.noise_multiplier = 0.1


def test_a_ledger_of_the_whole_plan_describes_what_the_plan_describes():
    ledger = Ledger()
    for _ in range(PLAN.steps):
        ledger.record(PLAN.noise_multiplier, PLAN.sample_rate)
    assert ledger.steps == PLAN.steps
    assert ledger.event() == PLAN.event()


def test_a_change_of_noise_in_mid_run_is_accounted_as_such():
    ledger = Ledger()
    for noise_multiplier in (2.0, 2.0, 1.0, 2.0):
        ledger.record(noise_multiplier, PLAN.sample_rate)
    assert [entry.steps for entry in ledger.entries] == [2, 1, 1]
    honest = epsilon(ledger.entries, 1e-4, "pld")
    planned = Ledger()
    for _ in range(4):
        planned.record(2.0, PLAN.sample_rate)
    assert honest > epsilon(planned.entries, 1e-4, "pld")


def test_a_guarantee_without_epsilon_has_a_reason():
    assert "no privacy guarantee" in str(Guarantee.none("none", "because"))
    with pytest.raises(ValueError, match="reason"):
        Guarantee("none", None, None, None, None, None)
    with pytest.raises(ValueError, match="reason"):
        Guarantee("dpsgd", 1.0, 1e-4, "image", "zero-out", "prv", reason="both")


@pytest.mark.parametrize(
    ("n", "delta"), [(60, 1e-3), (100, 1e-4), (99, 1e-3), (4000, 1e-5), (5216, 1e-5), (10**6, 1e-8)]
)
def test_delta_is_the_largest_power_of_ten_below_a_tenth_of_one_over_n(n, delta):
    assert delta_for(n) == delta < 1 / (10 * n) <= 10 * delta
