import math

import dp_accounting
import pytest
from dp_accounting import pld, rdp
from opacus.accountants import PRVAccountant

from dpmi.privacy.accounting import (
    CALIBRATION_TOLERANCE,
    PRV_ERROR,
    EpsilonSchedule,
    calibrate_noise_multiplier,
    epsilon,
    steps_within,
)
from dpmi.privacy.ledger import LedgerEntry
from dpmi.privacy.plan import PrivacyPlan

DELTA = 1e-4
RUNS = [  # noise multiplier, sample rate, steps
    LedgerEntry(3.67, 128 / 5216, 2050),  # the poster's pneumonia cell at ε = 1
    LedgerEntry(12.8, 128 / 5216, 2050),  # and at ε = 1/4
    LedgerEntry(2.0, 0.1, 24),
]


def independent_epsilon(accountant, entry):
    """ε by dp-accounting alone, under the adjacency that the guarantee states."""
    accountant.compose(
        dp_accounting.PoissonSampledDpEvent(
            entry.sample_rate, dp_accounting.GaussianDpEvent(entry.noise_multiplier)
        ),
        entry.steps,
    )
    return accountant.get_epsilon(DELTA)


ZERO_OUT = dp_accounting.NeighboringRelation.REPLACE_SPECIAL


@pytest.mark.parametrize("entry", RUNS)
def test_the_three_accountants_agree_within_their_known_gaps(entry):
    by = {name: epsilon([entry], DELTA, name) for name in ("prv", "rdp", "pld")}
    # Each is an upper bound; PLD is tight, PRV adds its stated error, RDP loses up to a fifth.
    assert by["pld"] <= by["prv"] <= by["pld"] + 2 * PRV_ERROR
    assert by["prv"] < by["rdp"] < 1.2 * by["pld"]


@pytest.mark.parametrize("entry", RUNS)
def test_epsilon_equals_what_dp_accounting_computes(entry):
    tight = independent_epsilon(pld.PLDAccountant(ZERO_OUT), entry)
    assert epsilon([entry], DELTA, "pld") == pytest.approx(tight, rel=1e-9)
    loose = independent_epsilon(rdp.RdpAccountant(neighboring_relation=ZERO_OUT), entry)
    assert epsilon([entry], DELTA, "rdp") == pytest.approx(loose, rel=0.02)


def test_a_large_epsilon_is_counted_on_a_coarser_grid_to_a_thousandth():
    entry = LedgerEntry(0.3, 0.3, 20)
    tight = independent_epsilon(pld.PLDAccountant(ZERO_OUT), entry)
    assert tight > 75
    for name in ("pld", "prv"):
        assert tight <= epsilon([entry], DELTA, name) <= tight * 1.001


def test_where_the_numbers_of_prv_overflow_it_states_no_epsilon():
    entry = LedgerEntry(0.02, 0.3, 1)  # Opacus' own call states 709
    assert 1400 < epsilon([entry], DELTA, "pld") < epsilon([entry], DELTA, "prv") == math.inf
    with pytest.raises(ValueError, match="accountant=prv states no ε so large; pld does"):
        calibrate_noise_multiplier(2000.0, DELTA, 0.3, 20, "prv")


@pytest.mark.parametrize("accountant", ["prv", "rdp", "pld"])
def test_no_epsilon_is_below_zero(accountant):
    assert epsilon([LedgerEntry(2.9, 0.002, 1)], 0.008, accountant) == 0.0  # δ covers all of it


def test_where_an_accountant_gives_no_number_epsilon_is_infinite(monkeypatch):
    monkeypatch.setattr(PRVAccountant, "get_epsilon", lambda *_, **__: math.nan)
    assert epsilon([LedgerEntry(1.7, 0.03, 11)], DELTA, "prv") == math.inf


def test_nothing_released_costs_nothing():
    assert epsilon([], DELTA, "prv") == 0.0


STATISTICS = (LedgerEntry(2000.0, 1.0, 2), LedgerEntry(900.0, 0.1, 3))


@pytest.mark.parametrize(
    ("accountant", "target", "rate", "before"),
    [
        *((name, target, 0.05, ()) for name in ("prv", "rdp", "pld") for target in (0.25, 1.0)),
        ("rdp", 8.0, 0.05, STATISTICS),
        ("prv", 100.0, 0.05, STATISTICS),
        ("pld", 1000.0, 0.05, ()),
        *(("prv", 1.0, rate, STATISTICS) for rate in (0.05, 1.0)),
        *((name, 0.01, 0.05, STATISTICS) for name in ("prv", "pld")),  # of RDP 0.07 is the least
    ],
)
def test_calibrated_noise_reaches_the_target_from_below(accountant, target, rate, before):
    steps = 60
    sigma = calibrate_noise_multiplier(target, DELTA, rate, steps, accountant, before)
    reached = epsilon([*before, LedgerEntry(sigma, rate, steps)], DELTA, accountant)
    assert target * (1 - CALIBRATION_TOLERANCE) <= reached <= target


def test_an_epsilon_out_of_reach_is_refused():
    with pytest.raises(ValueError, match=r"no noise up to 1e\+06 gives ε = 0\.001"):
        calibrate_noise_multiplier(PRV_ERROR / 2, DELTA, 0.05, 60, "prv")


def test_the_schedule_never_states_less_than_was_spent():
    plan = PrivacyPlan(
        n=1000, expected_batch_size=50, max_grad_norm=1.0, noise_multiplier=1.5, steps=37,
        delta=DELTA, accountant="prv",
    )  # fmt: skip
    schedule = EpsilonSchedule(plan)
    found = [schedule.at(step) for step in range(1, plan.steps + 1)]
    spent = [
        epsilon([LedgerEntry(1.5, plan.sample_rate, step)], DELTA, "prv")
        for step in range(1, plan.steps + 1)
    ]
    assert all(a >= b for a, b in zip(found, spent, strict=True))
    assert found[-1] == spent[-1]
    with pytest.raises(ValueError, match="past the last"):
        schedule.at(plan.steps + 1)


@pytest.mark.parametrize("budget", [1e-3, 0.2, 0.5, 100.0])
def test_a_budget_allows_as_many_steps_as_fit_and_not_one_more(budget):
    plan = PrivacyPlan(
        n=1000, expected_batch_size=50, max_grad_norm=1.0, noise_multiplier=1.5, steps=37,
        delta=DELTA, accountant="rdp",
    )  # fmt: skip
    allowed = steps_within(budget, plan)

    def spent(steps):
        return epsilon([LedgerEntry(1.5, plan.sample_rate, steps)] if steps else [], DELTA, "rdp")

    assert 0 <= allowed <= plan.steps
    assert spent(allowed) <= budget
    assert allowed == plan.steps or spent(allowed + 1) > budget
