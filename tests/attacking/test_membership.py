"""Membership of whole runs: what learns by heart is given away, what is noised keeps its promise.

Intervals of 99.9 %, so that each assertion fails by chance in fewer than one of 1000 runs; those
on whole curves are made at four points, by intervals that are wide by construction.
"""

import numpy as np
import pytest
from rich.console import Console
from scipy.special import ndtr

from dpmi.attacking import membership
from dpmi.attacking.membership import attack_membership

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def surer(monkeypatch):
    """Intervals that fail in one of a thousand."""
    real = membership.measured_roc
    monkeypatch.setattr(membership, "measured_roc", lambda *args: real(*args, 0.9998))


def attacked(config, models):
    results = []
    found = attack_membership(
        config, models, 0, Console(quiet=True), lambda done, of: results.append((done, of))
    )
    assert results == [(number + 1, models) for number in range(models)]
    return found


BY_HEART = (
    *("mechanism=none", "model.learning_rate=300", "trainer.max_epochs=40"),
    "model.schedule=constant",
)


def test_a_head_that_learns_findings_by_heart_gives_its_images_away(head_of_findings):
    found = attacked(head_of_findings(*BY_HEART), 20)
    ratio = found.rocs[0]
    assert ratio.auc.low > ndtr(0.33 / 2**0.5), ratio.auc
    assert ratio.advantage.low > 0.15, ratio.advantage
    assert found.promised is None
    assert "summed over the known findings" in found.attacker


def test_a_head_that_learns_by_heart_gives_its_images_away(head):
    found = attacked(head(*BY_HEART), 20)
    ratio = found.rocs[0]
    assert "findings" not in found.attacker
    # More than ε = 1 would allow any attack: the bound that the next test is held to can be broken.
    assert ratio.auc.low > ndtr(0.33 / 2**0.5), ratio.auc
    assert ratio.advantage.low > 0.15, ratio.advantage
    assert found.promised is None
    assert "left out" in found.absent


def test_a_head_that_learns_by_heart_gives_whole_patients_away(head_of_patients):
    found = attacked(head_of_patients(*BY_HEART, "privacy.unit=patient"), 20)
    assert (found.unit, found.candidates) == ("patient", 30)
    ratio = found.rocs[0]
    assert ratio.auc.low > ndtr(0.33 / 2**0.5), ratio.auc
    assert "an absent patient is left out" in found.absent


def test_a_private_head_of_patients_is_not_above_the_bound_of_a_patient(head_of_patients):
    words = "mechanism=dpsgd", "mechanism.delta=1e-3", "beta=1", "privacy.unit=patient"
    assert stays_below_its_bound(head_of_patients(*words)).unit == "patient"


@pytest.mark.parametrize(
    "mechanism", ["dpsgd", pytest.param("class_means", marks=pytest.mark.slow)]
)
def test_a_private_head_is_not_above_its_bound(head, mechanism):
    stays_below_its_bound(head(f"mechanism={mechanism}", "mechanism.delta=1e-3", "beta=1"))


def test_a_private_head_of_findings_is_not_above_its_bound(head_of_findings):
    stays_below_its_bound(head_of_findings("mechanism=dpsgd", "mechanism.delta=1e-3", "beta=1"))


def stays_below_its_bound(config):
    found = attacked(config, 20)
    allowed = dict(found.promised)
    rates, most = map(np.array, zip(*sorted(found.promised), strict=True))
    area = float(np.trapezoid([0, *most, 1], [0, *rates, 1]))
    assert (found.epsilon, found.delta) == (pytest.approx(1, rel=0.01), 1e-3)
    assert "zero-out" in found.absent
    for roc in found.rocs:
        assert roc.auc.low <= area, roc.auc
        for rate in np.quantile([point[0] for point in roc.curve], [0.4, 0.6, 0.8, 0.9]):
            point = min(roc.curve, key=lambda its: abs(its[0] - rate))
            assert point[2] <= allowed[point[0]], point
    return found
