"""The adversary who knows all images but one: the honest program passes, a fault is refuted.

All bounds hold at once with the confidence asked for, here 99.9 %: the honest program is falsely
accused in no more than one of a thousand audits.
"""

import pytest

from dpmi.auditing.bounds import Rates
from dpmi.auditing.dpsgd import audit_dpsgd
from dpmi.data import datamodule

pytestmark = pytest.mark.usefixtures("one_thread")

N = 128
# One step of all images, claimed 2 at δ = 1e-4.
WORDS = (
    *("mechanism=dpsgd", "mechanism.accountant=pld", "mechanism.delta=1e-4", "beta=0.5"),
    *(f"data.batch_size={N}", "trainer.max_epochs=1", "data.augment=affine"),
    "trainer.accelerator=cpu",
)


@pytest.fixture
def audited(composed):
    return lambda: audit_dpsgd(composed(*WORDS), N, seconds=0, confidence=0.999)


@pytest.mark.slow
def test_one_image_more_or_less_stays_within_the_claim(audited):
    audit = audited()
    assert audit.claimed == pytest.approx(2, abs=1e-2)
    assert not audit.refuted, audit
    assert {"known others", "known others, trials", "one run"} <= audit.bounds.keys()


@pytest.mark.slow
def test_an_augmentation_by_place_in_the_batch_is_refuted(audited, monkeypatch):
    by_index = datamodule.draw_affine
    monkeypatch.setattr(
        datamodule,
        "draw_affine",
        lambda indices, *more: by_index(range(len(indices)), *more),
    )
    audit = audited()
    assert audit.refuted, audit.bounds
    assert audit.method == "known others"


@pytest.mark.parametrize("rate", [0.03, 0.5, 1.0])
def test_sampling_leaves_of_a_bound_no_more_than_amplification_does(rate):
    """Randomised response with ε = 2, of an image that is drawn at a rate: ln(1 + q (e^2 - 1))."""
    p, q = 0.88079708, 0.11920292
    stated = Rates(p, q, p - q).sampled(rate).epsilon(0.0)
    amplified = {0.03: 0.17544, 0.5: 1.43378, 1.0: 2.0}[rate]
    assert stated <= amplified + 1e-4
    if rate == 1.0:
        assert stated == pytest.approx(2.0, abs=1e-4)
