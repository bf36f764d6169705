"""ε under both adjacencies and for several images at once, against references that share no code.

They are integrals of the densities, closed forms, and dp-accounting's own mechanisms.
"""

import math

import dp_accounting
import numpy as np
import pytest
from dp_accounting import pld
from scipy import integrate, optimize, stats

from dpmi.privacy.accounting import epsilon
from dpmi.privacy.ledger import LedgerEntry

DELTA = 1e-4
PNEUMONIA = 128 / 5216  # sample rate of the chest X-rays
ADJACENCIES = ["zero-out", "replace-one"]


def mixture(places, noise, rate, images, sign):
    """Density of the sum of what ``images`` images add along a line, each 1 or ``sign`` 1."""
    drawn = np.arange(images + 1)
    weights = stats.binom.pmf(drawn, images, rate)
    return stats.norm.pdf(np.asarray(places)[..., None], sign * drawn, noise) @ weights


def pairs_of_densities(noise, rate, images, adjacency):
    def upper(x):
        return mixture(x, noise, rate, images, 1)

    def lower(x):
        return mixture(x, noise, rate, images, -1)

    def nothing(x):
        return stats.norm.pdf(x, 0, noise)

    if adjacency == "replace-one":
        return [(upper, lower)]
    return [(upper, nothing), (nothing, upper)]


def delta_of_two_steps(at, noise, rate, images, adjacency):
    """δ at ε = ``told``: the integral of what one density of two steps exceeds the other by."""
    places = np.linspace(-images - 9 * noise, images + 9 * noise, 2401)
    deltas = []
    for one, other in pairs_of_densities(noise, rate, images, adjacency):
        p, q = one(places), other(places)
        excess = np.maximum(0, np.outer(p, p) - math.exp(at) * np.outer(q, q))
        deltas.append(excess.sum() * (places[1] - places[0]) ** 2)
    return max(deltas)


@pytest.mark.parametrize("adjacency", ADJACENCIES)
@pytest.mark.parametrize(("noise", "rate", "images"), [(0.8, 0.1, 1), (2.0, 0.5, 2), (3, 0.9, 7)])
def test_one_step_spends_what_the_integral_of_its_densities_says(noise, rate, images, adjacency):
    if (images, adjacency) == (1, "zero-out"):
        return  # the accountant's: tests/privacy/test_accounting.py
    stated = epsilon([LedgerEntry(noise, rate, 1)], DELTA, "pld", adjacency, images)
    deltas = [
        integrate.quad(
            lambda x, one=one, other=other: max(0.0, float(one(x) - math.exp(stated) * other(x))),
            -images - 12 * noise,
            images + 12 * noise,
            limit=300,
            epsabs=1e-10,
        )[0]
        for one, other in pairs_of_densities(noise, rate, images, adjacency)
    ]
    assert max(deltas) == pytest.approx(DELTA, rel=2e-3)


@pytest.mark.parametrize("adjacency", ADJACENCIES)
@pytest.mark.parametrize("images", [1, 3])
def test_two_steps_spend_what_the_double_integral_of_their_densities_says(images, adjacency):
    stated = epsilon([LedgerEntry(1.2, 0.3, 2)], DELTA, "pld", adjacency, images)
    assert delta_of_two_steps(stated, 1.2, 0.3, images, adjacency) == pytest.approx(DELTA, rel=2e-3)


def gaussian_epsilon(shift_in_deviations, delta):
    """ε of a Gaussian mechanism in closed form (Balle and Wang 2018, theorem 8)."""
    s = shift_in_deviations

    def excess(at):
        held = stats.norm.logcdf(-s / 2 - at / s)
        return stats.norm.cdf(s / 2 - at / s) - math.exp(at + held) - delta

    return optimize.brentq(excess, 0, 1000, xtol=1e-12)


@pytest.mark.parametrize(("adjacency", "reach"), [("zero-out", 1), ("replace-one", 2)])
@pytest.mark.parametrize("images", [1, 4, 30])
def test_without_sampling_it_is_the_gaussian_mechanisms_closed_form(adjacency, reach, images):
    """Two runs, of other noise each, are one Gaussian; each image moves the sum by 1, or 2."""
    entries = [LedgerEntry(20.0, 1.0, 6), LedgerEntry(35.0, 1.0, 4), LedgerEntry(20.0, 1.0, 3)]
    shift = images * reach * math.sqrt(9 / 20**2 + 4 / 35**2)
    stated = epsilon(entries, 1e-6, "pld", adjacency, images)
    assert stated == pytest.approx(gaussian_epsilon(shift, 1e-6), rel=1e-3)


def test_a_run_under_replace_one_spends_what_dp_accounting_says():
    for entry in (LedgerEntry(1.4, PNEUMONIA, 205), LedgerEntry(3.67, PNEUMONIA, 2050)):
        counting = pld.PLDAccountant(dp_accounting.NeighboringRelation.REPLACE_ONE)
        gaussian = dp_accounting.GaussianDpEvent(entry.noise_multiplier)
        sampled = dp_accounting.PoissonSampledDpEvent(entry.sample_rate, gaussian)
        counting.compose(sampled, entry.steps)
        stated = epsilon([entry], DELTA, "pld", "replace-one")
        assert stated == pytest.approx(counting.get_epsilon(DELTA), rel=1e-4)


def test_several_images_of_a_patient_spend_what_dp_accounting_says_of_a_mixture():
    noise, rate, steps, images = 4.0, 0.2, 6, 3
    drawn = list(range(images + 1))
    counting = pld.PLDAccountant(dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE, 1e-3)
    weights = stats.binom.pmf(drawn, images, rate).tolist()
    mixture_of_gaussians = dp_accounting.dp_event.MixtureOfGaussiansDpEvent
    counting.compose(mixture_of_gaussians(noise, drawn, weights), steps)
    stated = epsilon([LedgerEntry(noise, rate, steps)], DELTA, "prv", images=images)
    assert stated == pytest.approx(counting.get_epsilon(DELTA), rel=1e-3)


@pytest.mark.parametrize("adjacency", ADJACENCIES)
def test_runs_of_different_noise_and_sampling_add_up_in_any_order(adjacency):
    runs = [LedgerEntry(2.0, 0.1, 24), LedgerEntry(5.0, 1.0, 2)]
    stated = epsilon(runs, DELTA, "rdp", adjacency, 3)
    assert epsilon(runs[::-1], DELTA, "rdp", adjacency, 3) == pytest.approx(stated, rel=1e-6)
    parts = [epsilon([run], DELTA, "rdp", adjacency, 3) for run in runs]
    assert max(parts) < stated < sum(parts)


@pytest.mark.parametrize("accountant", ["prv", "rdp", "pld"])
def test_no_adjacency_and_no_patient_costs_less_than_what_is_printed_for_an_image(accountant):
    """RDP's bound is loose: above it, too, where the exact ε of two images lies below it."""
    entries = [LedgerEntry(60.0, 0.05, 24)]
    printed = epsilon(entries, DELTA, accountant)
    assert epsilon(entries, DELTA, accountant, "replace-one") >= printed
    stated = [epsilon(entries, DELTA, accountant, "zero-out", images) for images in (1, 2, 5)]
    assert printed == stated[0] == min(stated)
    assert stated == sorted(stated)


@pytest.mark.parametrize("images", [1, 2])
@pytest.mark.parametrize("adjacency", ADJACENCIES)
def test_no_gradients_in_the_plane_tell_more_than_the_dominating_pair(adjacency, images):
    """Gradients of norm up to 1 in any directions, replaced by any others, one step."""
    noise, rate, rng = 0.9, 0.4, np.random.default_rng(0)
    stated = epsilon([LedgerEntry(noise, rate, 1)], DELTA, "pld", adjacency, images)
    line = np.linspace(-images - 7 * noise, images + 7 * noise, 241)
    plane, cell = np.stack(np.meshgrid(line, line), axis=-1), (line[1] - line[0]) ** 2

    def density(gradients):
        total = np.zeros(plane.shape[:2])
        for included in np.ndindex(*(2,) * images):
            weight = rate ** sum(included) * (1 - rate) ** (images - sum(included))
            away = ((plane - np.array(included) @ gradients) ** 2).sum(-1)
            total += weight * np.exp(-away / (2 * noise**2)) / (2 * math.pi * noise**2)
        return total

    def gradients():
        angles, norms = rng.uniform(0, 2 * math.pi, images), rng.choice([0.5, 1.0], images)
        return norms[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=-1)

    for _ in range(12):
        one = density(gradients())
        nothing = np.zeros((images, 2))
        other = density(gradients() if adjacency == "replace-one" else nothing)
        for p, q in ((one, other), (other, one)):
            assert (np.maximum(0, p - math.exp(stated) * q) * cell).sum() <= DELTA * 1.001


def test_the_posters_epsilon_of_1_is_more_than_2_where_an_image_is_replaced_by_another():
    run = [LedgerEntry(3.645, PNEUMONIA, 2050)]  # the noise of 50 epochs that PRV asks for
    assert 0.998 < epsilon(run, DELTA, "prv") <= 1
    stated = epsilon(run, DELTA, "prv", "replace-one")
    assert stated == pytest.approx(2.13, abs=0.005)


@pytest.mark.parametrize(
    ("image", "noise", "patient"), [(1, 1.402, 74), (0.5, 2.2828, 31), (0.25, 4.0162, 13)]
)
def test_the_epsilon_of_a_patient_with_30_images_is_many_times_that_of_one(image, noise, patient):
    run = [LedgerEntry(noise, PNEUMONIA, 205)]  # 5 epochs of the chest X-rays
    assert image - 0.002 < epsilon(run, DELTA, "prv") <= image
    stated = epsilon(run, DELTA, "prv", images=30)
    assert round(stated) == patient


def test_a_patient_without_images_is_refused():
    with pytest.raises(ValueError, match="images=0 must be at least 1"):
        epsilon([LedgerEntry(1.0, 0.1, 1)], DELTA, "prv", images=0)
