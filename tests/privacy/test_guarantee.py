import dataclasses
import math

import numpy as np
import pytest

from dpmi.privacy.guarantee import Claim, Group, Guarantee, printed_delta, printed_epsilon

CLAIM = Claim(0.5, 1e-4, "image", "some authors")


def test_a_claim_is_reported_as_somebodys_and_as_not_holding():
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


@pytest.mark.parametrize(
    ("epsilon", "printed"),
    [
        (1.0049, "1.01"), (1.0, "1"), (0.99983, "1"), (0.24754, "0.248"), (0.1, "0.1"),
        (74.405, "74.5"), (312.2, "313"), (4096.0, "4096"), (12288.1, "12289"), (9.999, "10"),
        (1 / 3, "0.334"), (0.00123456, "0.00124"), (0.0, "0"), (math.inf, "inf"),
    ],
)  # fmt: skip
def test_an_epsilon_is_printed_to_three_digits_rounded_up(epsilon, printed):
    assert printed_epsilon(epsilon) == printed


@pytest.mark.parametrize(
    ("delta", "printed"),
    [(0.0, "0"), (1e-4, "1e-4"), (1e-5, "1e-5"), (1.21e-5, "1.3e-5"), (9.99e-7, "1e-6"),
     (0.5, "0.5"), (0.123, "0.13"), (3e-10, "3e-10")],
)  # fmt: skip
def test_a_delta_is_printed_to_two_digits_rounded_up(delta, printed):
    assert printed_delta(delta) == printed


def test_nothing_printed_is_ever_less_than_what_was_computed():
    for value in np.exp(np.random.default_rng(0).uniform(-20, 12, 2000)):
        assert float(printed_epsilon(float(value))) >= value
        assert float(printed_epsilon(float(value))) <= 1.01 * value
        assert value >= 1 or float(printed_delta(float(value))) >= value


PROMISE = Guarantee(
    "dpsgd", 1.0049, 1e-4, "image", "zero-out", "prv", replace_one_epsilon=2.13,
    private={"largest_patient": Group(31, 74.405)},
)  # fmt: skip


def test_the_line_of_a_guarantee_states_both_adjacencies_and_nothing_private():
    line = str(PROMISE)
    assert line == "ε = 1.01, δ = 1e-4 per image (zero-out); ε = 2.13 (replace-one)"
    public = dataclasses.replace(PROMISE, private={})
    assert str(public) == line


def test_what_is_private_in_a_guarantee_stands_in_one_field():
    public = dataclasses.replace(PROMISE, private={})
    for found in (repr(public), str(public.to_dict())):
        assert "31" not in found
        assert "74.4" not in found
