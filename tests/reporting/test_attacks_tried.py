"""Attacks in a report: what is drawn together."""

from functools import partial

import numpy as np
import pytest

from dpmi.attacking.curve import measured_roc
from dpmi.attacking.lira import likelihood_ratios, one_sided
from dpmi.attacking.result import Attacks, Membership
from dpmi.reporting.attacks import attacks_tried


@pytest.fixture
def attacked(tmp_path):
    """Writes what an attack on images, or on patients, found."""
    rng = np.random.default_rng(0)
    coins, confidences = rng.random((16, 20)) < 0.5, rng.standard_normal((16, 20))
    rocs = [
        measured_roc(name, partial(score, per_image=False), confidences, coins)
        for name, score in {"likelihood ratio": likelihood_ratios, "one-sided": one_sided}.items()
    ]

    def write(number, unit, dataset="chest_xray"):
        found = Membership(
            attacker="The attacker knows.", absent=f"an absent {unit} is left out",
            intervals="over models", models=16, unit=unit, candidates=20, coins=0, rocs=rocs,
            promised=None, epsilon=None, delta=None, seconds=1.0,
        )  # fmt: skip
        Attacks(
            run=f"run {number}", config_digest=str(number), dataset=dataset, mechanism="none",
            beta=0.0, detail="", membership=found,
        ).write(tmp_path / str(number))  # fmt: skip

    return write


def test_images_and_patients_are_not_drawn_in_one_chart(attacked, tmp_path):
    for number, unit in enumerate(("image", "patient", "image")):
        attacked(number, unit)
    attacked(3, "image", "aptos")
    titles = [chart.title for chart in attacks_tried([tmp_path]).charts]
    assert titles == [
        "Membership attacks on images: aptos",
        "Membership attacks on images: chest_xray",
        "Membership attacks on patients: chest_xray",
    ]
