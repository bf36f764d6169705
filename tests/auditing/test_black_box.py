"""Canaries among the images, seen through the final weights of the run's own network.

Bounds hold at once with 99.9 %: the honest program is falsely accused in one of a thousand runs.
"""

import numpy as np
import pytest

from dpmi.auditing import black_box
from dpmi.auditing.black_box import RealRun, audit_black_box
from dpmi.base.errors import UserError

pytestmark = pytest.mark.usefixtures("one_thread")

WORDS = (
    *(
        "mechanism=dpsgd",
        "mechanism.accountant=rdp",
        "trainer.accelerator=cpu",
        "data.augment=none",
    ),
    *("data.image_size=32", "data.batch_size=64", "model.weights=null", "model.norm=group"),
)
UNITS = ("image", "patient")


@pytest.mark.parametrize("unit", UNITS)
def test_the_honest_bound_is_not_above_the_claim(composed, unit):
    words = ("beta=1", "trainer.max_epochs=1", f"privacy.unit={unit}")
    real = RealRun(n=128, channels=1, side=32, replace_one_epsilon=2.0, delta=1e-4)
    found = audit_black_box(composed(*WORDS, *words), real, confidence=0.999)
    assert all(bound.epsilon <= bound.claimed for bound in found.bounds.values()), found
    assert all(f"of one {unit} replaced" in bound.assumes for bound in found.bounds.values())


@pytest.mark.slow
@pytest.mark.parametrize("unit", UNITS)
def test_a_network_that_learns_by_heart_without_noise_gives_its_canaries_away(composed, unit):
    words = (
        *("mechanism.calibration=noise_multiplier", "beta=0.001", "trainer.max_epochs=30"),
        *("model.learning_rate=0.1", "model.momentum=0.9", "model.prior=train"),
        f"privacy.unit={unit}",
    )
    real = RealRun(n=256, channels=1, side=32, replace_one_epsilon=1.0, delta=1e-4)
    found = audit_black_box(composed(*WORDS, *words), real)
    assert found.bounds["black box"].epsilon > 0.5, found


def test_a_canary_patient_comes_with_one_to_three_images_of_their_own(composed, monkeypatch):
    """The run draws as many patients as the audited one has, whose images are all alike."""

    given_to = []

    def stopped(config, folder, given):
        given_to.append((config, given.data))
        raise UserError("seen enough")

    monkeypatch.setattr(black_box, "execute", stopped)
    real = RealRun(n=96, channels=1, side=32, replace_one_epsilon=2.0, delta=1e-4)
    with pytest.raises(UserError, match="seen enough"):
        audit_black_box(composed(*WORDS, "privacy.unit=patient"), real)
    ((config, data),) = given_to
    train = data.splits["train"]
    assert config.privacy.unit == "patient"
    patients = {name: np.flatnonzero(np.array(train.patients) == name) for name in train.patients}
    assert len(patients) == real.n
    assert {len(rows) for rows in patients.values()} == {1, 2, 3}
    for rows in patients.values():
        assert len(np.unique(train.pixels[rows], axis=0)) == len(set(train.labels[rows])) == 1
    assert len(np.unique(train.pixels, axis=0)) == real.n
