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
    told = []
    found = attack_membership(
        config, models, 0, Console(quiet=True), lambda done, of: told.append((done, of))
    )
    assert told == [(number + 1, models) for number in range(models)]
    return found


def test_a_head_that_learns_by_heart_gives_its_images_away(head):
    words = ("mechanism=none", "model.learning_rate=300", "trainer.max_epochs=40")
    found = attacked(head(*words, "model.schedule=constant"), 20)
    ratio = found.rocs[0]
    # More than ε = 1 would allow any attack: the bound that the next test is held to can be broken.
    assert ratio.auc.low > ndtr(0.33 / 2**0.5), ratio.auc
    assert ratio.advantage.low > 0.15, ratio.advantage
    assert found.promised is None
    assert "left out" in found.absent


@pytest.mark.parametrize(
    "mechanism", ["dpsgd", pytest.param("class_means", marks=pytest.mark.slow)]
)
def test_a_private_head_is_not_above_its_bound(head, mechanism):
    found = attacked(head(f"mechanism={mechanism}", "mechanism.delta=1e-3", "beta=1"), 20)
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
