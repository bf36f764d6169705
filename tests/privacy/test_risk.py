"""What an attacker can do, against closed forms, and attacks on small sets of candidates."""

import math

import numpy as np
import pytest
from scipy import integrate, stats

from dpmi.privacy.accounting import composed_losses, epsilon, history_of
from dpmi.privacy.guarantee import Group, Guarantee
from dpmi.privacy.risk import LEVELS, patient_risk, risks
from dpmi.privacy.spending import LedgerEntry

RUN = [LedgerEntry(1.1, 64 / 5216, 163), LedgerEntry(9.0, 1.0, 1)]


def promise(**changes):
    values = {
        "mechanism": "dpsgd", "epsilon": 1.0, "delta": 1e-5, "unit": "image",
        "adjacency": "zero-out", "accountant": "prv",
    }  # fmt: skip
    return Guarantee(**values | changes)


def pure(epsilon, **changes):
    return promise(epsilon=epsilon, delta=0.0, **{"adjacency": "replace-one"} | changes)


def test_of_gaussian_releases_each_number_is_the_closed_form_rounded_up():
    """μ = 0.5 in five releases: Dong, Roth and Su 2022; Hayes et al. 2023, of candidates."""
    (risk,) = risks(promise(), [LedgerEntry(2 * math.sqrt(5), 1.0, 5)])
    exact = {
        risk.advantage: 2 * stats.norm.cdf(0.25) - 1,
        risk.accuracy: stats.norm.cdf(0.25),
        **{
            bound: stats.norm.cdf(stats.norm.ppf(float(rate)) + 0.5)
            for rate, bound in risk.true_positive_rates.items()
        },
        **{
            bound: stats.norm.cdf(stats.norm.ppf(1 / int(count)) + 0.5)
            for count, bound in risk.candidates.items()
        },
    }
    for bound, value in exact.items():
        assert value <= bound <= value * 1.002
    assert (set(risk.true_positive_rates), set(risk.candidates)) == (
        {"0.001", "0.01"}, {"2", "10", "1000"},
    )  # fmt: skip


def of_a_patient(images, entries, **changes):
    """As a run that protects images states it, at its δ."""
    its = Group(images, epsilon(entries, 1e-5, "pld", images=images))
    return patient_risk(promise(private={"largest_patient": its}, **changes), entries), its


@pytest.mark.parametrize("images", [2, 7, 18])
def test_of_a_patient_gaussian_releases_move_by_as_much_as_all_images_together(images):
    """k images in one Gaussian release are one that moves by k μ: the closed form of G_kμ."""
    risk, _ = of_a_patient(images, [LedgerEntry(10 * math.sqrt(3), 1.0, 3)])
    moved = images / 10
    exact = {
        risk.advantage: 2 * stats.norm.cdf(moved / 2) - 1,
        **{
            bound: stats.norm.cdf(stats.norm.ppf(float(rate)) + moved)
            for rate, bound in risk.true_positive_rates.items()
        },
        risk.candidates["10"]: stats.norm.cdf(stats.norm.ppf(0.1) + moved),
    }
    for bound, value in exact.items():
        assert value <= bound <= value * 1.002
    (image,) = risks(promise(), [LedgerEntry(10 * math.sqrt(3), 1.0, 3)])
    assert image.advantage < risk.advantage
    assert (risk.unit, risk.adjacency) == (f"patient with {images} images", "zero-out")


def test_of_a_patient_it_allows_no_less_than_the_attacker_who_counts_who_was_drawn():
    """Two sampled steps, three images: Neyman and Pearson on 400,000 draws of the worst case.

    A false alarm in less than 1000 (Clopper and Pearson, 99.9 %), and within a tenth of the bound.
    """
    rng, trials, noise, rate, images = np.random.default_rng(3), 400_000, 1.5, 0.4, 3
    risk, _ = of_a_patient(images, [LedgerEntry(noise, rate, 2)])
    drawn = stats.binom.pmf(np.arange(images + 1), images, rate)

    def loss(seen):
        shifts = np.arange(images + 1)
        ratios = np.exp((seen[..., None] - shifts / 2) * shifts / noise**2)
        return np.log(ratios @ drawn).sum(0)

    without = noise * rng.standard_normal((2, trials))
    there = noise * rng.standard_normal((2, trials)) + rng.binomial(images, rate, (2, trials))
    cut = np.quantile(loss(without), 0.99)
    found = int((loss(there) > cut).sum())
    interval = stats.binomtest(found, trials).proportion_ci(0.999)
    assert interval.low <= risk.true_positive_rates["0.01"] < 1.1 * interval.high


def test_of_a_patient_it_is_of_the_privacy_losses_that_their_epsilon_is_of():
    """δ at the ε in the record is the run's δ: the curve touches the line of both."""
    risk, its = of_a_patient(4, RUN)
    losses = composed_losses(history_of(RUN), "zero-out", 4)
    assert losses.get_delta_for_epsilon(its.epsilon) == pytest.approx(1e-5, rel=1e-3)
    assert risk.advantage == pytest.approx(losses.get_delta_for_epsilon(0.0), rel=3e-3)
    for rate, power in risk.curve:
        assert power <= math.exp(its.epsilon) * rate + 1.01e-5 + 1e-4
    assert "patients with 4 images the right one" in risk.sentences[2]
    assert "everything but one patient with 4 images is right in at most" in risk.sentences[0]


def test_of_one_image_a_patient_or_nobody_known_no_patient_is_mentioned():
    assert of_a_patient(1, RUN)[0] is None
    assert of_a_patient(4, RUN, unit="patient")[0] is None
    assert patient_risk(promise(), RUN) is None
    assert patient_risk(Guarantee.none("dpsgd", "no step was executed"), RUN) is None


@pytest.mark.parametrize("count", [2, 10])
def test_no_attacker_picks_the_right_candidate_more_often(count):
    """Candidates move the sum to corners at right angles, or to both sides of a line.

    Who knows the rest chooses the likeliest; 200,000 trials of two steps with sampling. The first
    comes near the bound of ten, the second is the worst case of two, in one step without sampling.
    A false alarm in less than 1000 (Clopper and Pearson, 99.9 %).
    """
    rng, trials, noise, rate = np.random.default_rng(count), 200_000, 0.8, 0.6
    (risk,) = risks(promise(), [LedgerEntry(noise, rate, 2)])
    likelihood = np.zeros((trials, count))
    right = rng.integers(count, size=trials)
    for _ in range(2):
        seen = noise * rng.standard_normal((trials, count))
        seen[np.arange(trials), right] += rng.random(trials) < rate
        likelihood += np.log1p(rate * np.expm1((seen - 0.5) / noise**2))
    found = int((likelihood.argmax(axis=1) == right).sum())
    low = stats.binomtest(found, trials).proportion_ci(0.999).low
    chance = 1 / count
    assert chance + 0.3 * (risk.candidates[str(count)] - chance) < low
    assert low <= risk.candidates[str(count)]


def test_of_two_candidates_on_opposite_sides_the_bound_is_reached():
    (risk,) = risks(promise(), [LedgerEntry(2.0, 1.0, 1)])
    right, _ = integrate.quad(lambda x: stats.norm.pdf(x, 1, 2), 0, 50)
    assert right <= risk.candidates["2"] <= right * 1.0005


@pytest.mark.parametrize("epsilon", [0.25, 1.0, 4.0])
def test_under_pure_dp_randomized_response_among_candidates_reaches_the_bound(epsilon):
    """It says the truth with e^ε / (e^ε + N - 1), else any other: who believes it is right so."""
    (risk,) = risks(pure(epsilon))
    assert risk.accuracy == pytest.approx(1 / (1 + math.exp(-epsilon)), rel=1e-3)
    for count, bound in risk.candidates.items():
        truth = math.exp(epsilon) / (math.exp(epsilon) + int(count) - 1)
        assert truth <= bound <= truth * 1.001
    assert risk.true_positive_rates["0.001"] == pytest.approx(math.exp(epsilon) / 1000, rel=1e-3)


def test_of_laplace_noise_on_a_pixel_no_guess_between_black_and_white_is_right_more_often():
    """The best guess in closed form: 1 - e^(-1/2β) / 2."""
    for beta in (1.0, 2.0, 4.0):
        risk, image = risks(pure(1 / beta, unit="pixel", image_epsilon=4096 / beta))
        assert 1 - math.exp(-1 / (2 * beta)) / 2 <= risk.accuracy
        assert set(risk.candidates) == {"2", "10", str(LEVELS)}  # a value of 8 bits has no more
        assert (risk.unit, image.unit) == ("pixel", "image")
        assert image.says_nothing
        assert image.candidates["1000"] == 1.0


def test_it_holds_for_the_unit_and_the_adjacency_of_the_guarantee():
    (image,) = risks(promise(), RUN)
    (patient,) = risks(promise(unit="patient"), RUN)
    (replaced,) = risks(promise(adjacency="replace-one"), RUN)
    assert replaced.advantage > 1.3 * image.advantage == 1.3 * patient.advantage
    for risk, words in (
        (image, ("(image, zero-out)", "everything but one image")),
        (patient, ("(patient, zero-out)", "everything but one patient")),
        (replaced, ("(image, replace-one)", "which of two images")),
    ):
        assert all(words[0] in sentence for sentence in risk.sentences)
        assert words[1] in risk.sentences[0]
    assert "a blank in its place" in image.sentences[0]
    for risk in risks(pure(1.0, unit="channel value", image_epsilon=3e4)):
        assert all(f"({risk.unit}, replace-one)" in sentence for sentence in risk.sentences)


def test_a_sentence_counts_in_whole_cases_that_are_rounded_up():
    (risk,) = risks(promise(), [LedgerEntry(11.0, 1.0, 1)])
    assert 0.518 < risk.accuracy < 0.519
    assert "right in at most 52 of 100 guesses" in risk.sentences[0]
    assert risk.sentences[0].endswith("by chance, in 50.")
    assert "in 1 of 1000 cases" in risk.sentences[1]
    assert "at most 2 of 1000" in risk.sentences[1]


def test_a_bound_that_says_nothing_is_called_so():
    for risk in (risks(pure(30.0))[0], risks(promise(), [LedgerEntry(1e-4, 0.5, 3)])[0]):
        assert risk.accuracy == 1.0
        (only,) = risk.sentences
        assert "the bound says nothing" in only


def test_without_a_guarantee_nothing_is_bounded():
    assert risks(Guarantee.none("none", "trained on the images without any mechanism")) == ()


def test_a_guarantee_without_its_releases_or_of_another_adjacency_is_refused():
    with pytest.raises(ValueError, match="nothing was released"):
        risks(promise())
    with pytest.raises(ValueError, match="adjacency=add-or-remove"):
        risks(promise(adjacency="add-or-remove"), RUN)


def test_the_curve_has_the_numbers_and_lies_above_chance():
    for risk in (*risks(promise(), RUN), *risks(pure(0.5, unit="pixel", image_epsilon=2e3))):
        rates, powers = zip(*risk.curve, strict=True)
        assert list(rates) == sorted(rates)
        assert list(powers) == sorted(powers)
        assert all(power >= rate for rate, power in risk.curve)
        for rate, bound in risk.true_positive_rates.items():
            assert dict(risk.curve)[float(rate)] == bound
        most = max(power - rate for rate, power in risk.curve)
        assert most == pytest.approx(risk.advantage, abs=2e-4)
