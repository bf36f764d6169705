"""Canaries among the images, seen through the final weights of the run's own network.

Bounds hold at once with 99.9 %: the honest program is falsely accused in one of a thousand runs.
"""

import pytest

from dpmi.auditing.black_box import RealRun, audit_black_box

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


def test_the_honest_bound_is_not_above_the_claim(composed):
    words = ("beta=1", "trainer.max_epochs=1")
    real = RealRun(n=128, channels=1, side=32, replace_one_epsilon=2.0, delta=1e-4)
    found = audit_black_box(composed(*WORDS, *words), real, confidence=0.999)
    assert all(bound.epsilon <= bound.claimed for bound in found.bounds.values()), found


@pytest.mark.slow
def test_a_network_that_learns_by_heart_without_noise_gives_its_canaries_away(composed):
    words = (
        *("mechanism.calibration=noise_multiplier", "beta=0.001", "trainer.max_epochs=30"),
        *("model.learning_rate=0.1", "model.momentum=0.9"),
    )
    real = RealRun(n=256, channels=1, side=32, replace_one_epsilon=1.0, delta=1e-4)
    found = audit_black_box(composed(*WORDS, *words), real)
    assert found.bounds["black box"].epsilon > 0.5, found
