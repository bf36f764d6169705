"""Secret, private and public are kinds that cannot be mixed up."""

import pytest

from dpmi.run.durability.state import RunState
from dpmi.run.first_weights import Provenance
from dpmi.run.records.kinds import Private, Public, Secret
from dpmi.run.records.public import PublicRecord, publishable
from dpmi.run.records.record import ImageSample, RunAccount, RunRecord


def test_each_file_of_a_run_is_of_one_kind():
    assert issubclass(RunState, Secret)
    assert issubclass(RunRecord, Private)
    assert issubclass(PublicRecord, Public)
    assert issubclass(Provenance, Public)  # goes with the weights
    assert publishable.__annotations__ == {"record": "RunRecord", "return": "PublicRecord"}


@pytest.mark.parametrize("inner", [RunState, ImageSample, RunAccount])
@pytest.mark.parametrize(
    "within", [lambda t: t, lambda t: t | None, lambda t: list[t], lambda t: dict[str, list[t]]]
)
def test_what_is_public_has_no_field_of_another_kind(inner, within):
    with pytest.raises(TypeError, match=f"field: {inner.__name__} is not of the public kind"):
        type("Leaks", (Public,), {"__annotations__": {"field": within(inner)}})


def test_a_secret_is_shown_nowhere():
    state = RunState(noise_key="5ec2e7" * 8, data="d", place={}, tracker_id="t")
    for text in (repr(state), str(state), f"{state}", f"{[state]}", f"{state!r}"):
        assert "5ec2e7" not in text
