"""The audit of local DP: the honest program passes, and planted bugs are refuted (at 99.9 %)."""

import pytest

from dpmi.auditing.releases import audit_releases
from dpmi.mechanisms import ldp
from dpmi.mechanisms.ldp import LocalDP

pytestmark = pytest.mark.usefixtures("one_thread")

WORDS = ("mechanism=ldp", "trainer.accelerator=cpu", "trainer.max_epochs=2")


@pytest.fixture
def audited(composed):
    return lambda *words: audit_releases(composed(*WORDS, *words), 128, seconds=0, confidence=0.999)


@pytest.mark.parametrize(("beta", "pool", "found"), [(1, 1, 0.75), (4, 1, 0.75), (1, 4, 0.5)])
def test_the_bound_of_an_honest_release_is_near_its_epsilon_and_not_above(
    audited, beta, pool, found
):
    audit = audited(f"beta={beta}", f"mechanism.pool={pool}")
    assert not audit.refuted, audit
    assert audit.claimed == 1 / beta
    assert audit.epsilon > found / beta


def test_training_on_the_clean_images_is_refuted(audited, monkeypatch):
    honest = LocalDP.release_data

    def clean(self, data):
        honest(self, data)
        return data

    monkeypatch.setattr(LocalDP, "release_data", clean)
    assert audited("beta=1").refuted


@pytest.mark.parametrize("pool", [1, 4])
def test_half_of_the_noise_is_refuted(audited, monkeypatch, pool):
    honest = ldp.shared_release
    monkeypatch.setattr(
        ldp, "shared_release", lambda pixels, beta, *places: honest(pixels, beta / 2, *places)
    )
    assert audited("beta=1", f"mechanism.pool={pool}").refuted
