"""The adversary who knows all images but one: the honest program passes, a fault is refuted.

Both bounds hold at once with the confidence asked for, here 99.9 %: the honest program is falsely
accused in no more than one of a thousand audits.
"""

import pytest

from dpmi.auditing.bounds import Rates
from dpmi.auditing.others import N, audit_others, planned
from dpmi.data import datamodule
from dpmi.privacy.accounting import epsilon
from dpmi.privacy.spending import LedgerEntry

pytestmark = pytest.mark.usefixtures("one_thread")

# One step of all images, claimed 0.999 at δ = 1e-4.
WORDS = (
    *("mechanism=dpsgd", "mechanism.accountant=pld", "mechanism.delta=1e-4", "beta=1.001"),
    *(f"data.batch_size={N}", "trainer.max_epochs=1", "data.augment=affine"),
    "trainer.accelerator=cpu",
)


@pytest.fixture
def audited(composed):
    """The claim, and what was found, with 99.9 % confidence."""
    config = composed(*WORDS)
    plan = planned(config, N)
    entry = LedgerEntry(plan.noise_multiplier, plan.sample_rate, plan.steps)
    claimed = epsilon([entry], plan.delta, plan.accountant)
    return lambda: (claimed, audit_others(config, N, seconds=0, confidence=0.999).bounds)


def test_one_image_more_or_less_stays_within_the_claim(audited):
    claimed, bounds = audited()
    assert claimed == pytest.approx(0.999, abs=1e-2)
    assert all(bound.epsilon <= claimed for bound in bounds.values()), bounds


def test_an_augmentation_by_place_in_the_batch_is_refuted_without_a_model(audited, monkeypatch):
    by_index = datamodule.draw_affine
    monkeypatch.setattr(
        datamodule,
        "draw_affine",
        lambda indices, *more: by_index(range(len(indices)), *more),
    )
    claimed, bounds = audited()
    assert bounds["known others, trials"].epsilon > 2.5 * claimed, bounds
    assert bounds["known others"].epsilon > 2.5 * claimed, bounds


@pytest.mark.parametrize("rate", [0.03, 0.5, 1.0])
def test_sampling_leaves_of_a_bound_no_more_than_amplification_does(rate):
    """Randomised response with ε = 2, of an image that is drawn at a rate: ln(1 + q (e^2 - 1))."""
    p, q = 0.88079708, 0.11920292
    told = Rates(p, q, p - q).sampled(rate).epsilon(0.0)
    amplified = {0.03: 0.17544, 0.5: 1.43378, 1.0: 2.0}[rate]
    assert told <= amplified + 1e-4
    if rate == 1.0:
        assert told == pytest.approx(2.0, abs=1e-4)
