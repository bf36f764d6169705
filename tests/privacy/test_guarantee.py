import pytest

from dpmi.privacy.guarantee import Claim, Guarantee

CLAIM = Claim(0.5, 1e-4, "image", "some authors")


def test_a_claim_is_told_as_somebodys_and_as_not_holding():
    line = str(Guarantee.none("x", "because", CLAIM))
    assert line.startswith("no privacy guarantee: because (some authors claimed ε = 0.5")
    assert line.endswith("which does not hold)")
    assert Guarantee.none("x", "because", CLAIM).to_dict()["claim"] == {
        "epsilon": 0.5, "delta": 1e-4, "unit": "image", "by": "some authors",
    }  # fmt: skip


def test_a_claim_is_never_the_epsilon_of_a_guarantee():
    assert Guarantee.none("x", "because", CLAIM).epsilon is None
    with pytest.raises(ValueError, match="only where there is no guarantee"):
        Guarantee("x", 1.0, 0.0, "image", "zero-out", "prv", claim=CLAIM)


def test_a_guarantee_has_an_epsilon_or_the_reason_why_not():
    with pytest.raises(ValueError, match="either"):
        Guarantee("x", None, None, None, None, None)
    with pytest.raises(ValueError, match="either"):
        Guarantee("x", 1.0, 0.0, "image", "zero-out", "prv", reason="because")
