"""Local DP of features: what is learned from the answers, and from nothing else."""

import functools

import numpy as np
import pytest
import torch

from dpmi.base.errors import UserError
from dpmi.mechanisms import LocalDPOfFeatures, build_mechanism
from dpmi.mechanisms.interview import class_part, interview
from dpmi.models.head import FeatureHead
from dpmi.privacy.one_bit import RandomizedResponse, Respondents
from dpmi.privacy.randomness import NoiseSource
from dpmi.privacy.statistics import TrainingSet

pytestmark = pytest.mark.usefixtures("one_thread")

HEAD = ("model.train=head", "model.norm=frozen_batch", "model.prior=uniform")


def training_set(n=3000, d=4, classes=2, seed=0):
    """Classes of shares 1 : 2 : ..., around places that are far from zero, of length one."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(classes, n, p=np.arange(1, classes + 1) / np.arange(1, classes + 1).sum())
    places = 0.6 * rng.standard_normal((classes, d)) + 1.0
    vectors = places[labels] + 0.15 * rng.standard_normal((n, d))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return TrainingSet(torch.from_numpy(labels), classes, torch.from_numpy(vectors).float())


@pytest.fixture(scope="module")
def build(composed, tmp_path_factory):
    compose = functools.lru_cache(composed)
    cache = tmp_path_factory.mktemp("answers")

    def make(train, *overrides, noise=None, cache_dir=cache, **options):
        config = compose("mechanism=ldp_features", *HEAD, f"cache_dir={cache_dir}", *overrides)
        return build_mechanism(config, train.n, noise, train=train, **options)

    return make


def head(mechanism, train):
    net = FeatureHead(train.vectors.shape[1], train.num_classes, "linear")
    with torch.no_grad():
        mechanism.make_gradient(net)
    return net.eval()


@pytest.mark.parametrize("classes", [2, 3])
def test_with_answers_that_hardly_lie_the_classes_are_found(classes):
    train = training_set(20_000, 3, classes)
    vectors, labels = train.vectors.double().numpy(), train.labels.numpy()
    response = RandomizedResponse(0.1)
    ask = Respondents(vectors, labels, response, NoiseSource(2).stream("answer"))
    found = interview(len(labels), 3, classes, response.bias, ask)
    z = vectors - found.centre
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    assert np.linalg.norm(z.mean(0)) < 0.2  # near the spatial median
    for k in range(classes):
        assert found.shares[k] == pytest.approx((labels == k).mean(), abs=0.1)
        exact = (labels == k).mean() * (z[labels == k].mean(0) - z.mean(0))
        assert np.abs(found.sums[k] - exact).max() < 0.15


def test_the_noise_of_the_sums_is_what_is_stated_and_taken_off():
    """False alarm under 1e-4: of labels without any meaning, sums vary as ``sum_std`` says."""
    n, runs, response = 800, 100, RandomizedResponse(1.0)
    rng = np.random.default_rng(0)
    coin = [
        interview(n, 4, 2, response.bias, lambda q: rng.random(len(q.rows)) < 0.5)
        for _ in range(runs)
    ]
    values = np.concatenate([found.sums[0] for found in coin])
    assert np.std(values) == pytest.approx(coin[0].sum_std, rel=4 / np.sqrt(2 * len(values)))


@pytest.mark.parametrize("classes", [2, 3])
def test_answers_that_lie_half_of_the_time_leave_what_was_expected_and_true_ones_replace_it(
    classes,
):
    train = training_set(20_000, 3, classes)
    vectors, labels = train.vectors.double().numpy(), train.labels.numpy()
    elsewhere = 0.2 * np.random.default_rng(5).standard_normal((classes - 1, 3))
    interviewed = functools.partial(interview, len(labels), 3, classes, expected=elsewhere)
    for beta, moved in ((1e4, False), (0.1, True)):
        response = RandomizedResponse(beta)
        ask = Respondents(vectors, labels, response, NoiseSource(3).stream("answer"))
        estimate = interviewed(bias=response.bias, ask=ask)
        assert estimate.sum_std == 0
        plain = interview(
            len(labels), 3, classes, response.bias,
            Respondents(vectors, labels, response, NoiseSource(3).stream("answer")),
        )  # fmt: skip
        codes = estimate.sums @ np.linalg.pinv(elsewhere)  # of the classes, where nothing moved
        off = np.abs(codes @ elsewhere - estimate.sums).max()
        if moved:
            assert np.abs(estimate.sums - plain.sums).max() < 0.03
        else:
            assert off < 0.01
            assert np.abs(estimate.shares - 1 / classes).max() < 0.01


def test_what_is_expected_of_public_classes_is_what_true_answers_about_them_say():
    """Each class counts the same, and is seen from the spatial median of all."""
    rng = np.random.default_rng(0)
    places = np.array([[2.0, 0.0], [-1.0, 3.0]])
    labels = np.repeat([0, 1], 500)
    vectors = places[labels] + 0.1 * rng.standard_normal((1000, 2))
    apart = (places[1] - places[0]) / np.linalg.norm(places[1] - places[0])
    expected = class_part(vectors, labels, 2)
    sign = np.sign(expected[0] @ apart)
    np.testing.assert_allclose(expected[0], sign * apart, atol=0.1)


def test_the_head_is_a_function_of_the_answers_alone(build):
    """Another data set that answers alike, or is never looked at again, gives the same weights."""
    train = training_set()
    mechanism = build(train, noise=NoiseSource(4))
    mechanism.release_data(None)
    before = head(mechanism, train).exported()
    mechanism._vectors, mechanism._labels = np.zeros_like(mechanism._vectors), np.zeros(train.n)
    for name, value in head(mechanism, train).exported().items():
        assert torch.equal(value, before[name]), name


def test_it_learns_and_less_the_smaller_epsilon_is(build):
    train = training_set(5000)
    accuracy = {}
    for beta in (0.25, 4.0, 100.0):
        found = []
        for seed in range(5):
            mechanism = build(train, f"beta={beta}", noise=NoiseSource(seed))
            mechanism.release_data(None)
            logits = head(mechanism, train)(train.vectors)
            found.append((logits.argmax(1) == train.labels).float().mean().item())
        accuracy[beta] = np.mean(found)
    assert accuracy[0.25] > 0.9
    assert accuracy[0.25] > accuracy[4.0] > accuracy[100.0]


def test_all_runs_on_the_same_features_have_the_same_answers_and_the_account_counts_them(
    build, tmp_path
):
    train, found = training_set(300), []
    runs = []
    for _ in range(2):
        mechanism = build(train, "beta=2", cache_dir=tmp_path, announce=lambda *a: found.append(a))
        mechanism.release_data(None)
        runs.append(mechanism)
    assert runs[0].release_id == runs[1].release_id
    assert [m.describe()["release_made_by_this_run"] for m in runs] == [True, False]
    assert found == [(runs[0].release_id, 0.5, 0.5, "image")] * 2
    for name, value in head(runs[0], train).exported().items():
        assert torch.equal(value, head(runs[1], train).exported()[name])
    others = [
        build(train, "beta=1", cache_dir=tmp_path),
        build(training_set(300, seed=1), "beta=2", cache_dir=tmp_path),
        build(TrainingSet(1 - train.labels, 2, train.vectors), "beta=2", cache_dir=tmp_path),
    ]
    for other in others:
        other.release_data(None)
    assert len({m.release_id for m in (*runs, *others)}) == 4


def test_no_image_answers_what_the_account_does_not_take(build, tmp_path):
    def refuse(*_):
        raise UserError("the budget would be passed")

    mechanism = build(training_set(200), cache_dir=tmp_path, announce=refuse)
    with pytest.raises(UserError, match="the budget"):
        mechanism.release_data(None)
    assert mechanism.release_id is None
    assert not list(tmp_path.glob("releases/*/pixels.npy"))


def test_the_guarantee_is_of_an_image_and_its_label_replaced_by_any_other(build):
    mechanism = build(training_set(200), "beta=2", together={"largest_patient": 3})
    assert mechanism.guarantee().epsilon is None
    mechanism.release_data(None)
    guarantee = mechanism.guarantee()
    assert (guarantee.epsilon, guarantee.delta, guarantee.unit, guarantee.adjacency) == (
        0.5,
        0,
        "image",
        "replace-one",
    )
    assert guarantee.replace_one_epsilon == 0.5
    assert guarantee.private["largest_patient"].epsilon == 1.5
    assert mechanism.spent() == (0.5, "image")


def test_images_answer_once_a_run(build):
    mechanism = build(training_set(200))
    mechanism.release_data(None)
    with pytest.raises(RuntimeError, match="already asked"):
        mechanism.release_data(None)


def test_answers_that_noise_seed_repeats_have_no_epsilon(build):
    mechanism = build(training_set(200), "noise_seed=3")
    mechanism.release_data(None)
    assert isinstance(mechanism, LocalDPOfFeatures)
    assert (mechanism.guarantee().epsilon, mechanism.spent(), mechanism.release_id) == (None,) * 3


def test_a_budget_that_the_answers_would_pass_is_refused_in_one_line(build):
    with pytest.raises(
        UserError, match=r"^privacy\.max_epsilon=0\.5: mechanism=ldp_features .*each image"
    ):
        build(training_set(200), "privacy.max_epsilon=0.5")
