"""What is released beside the steps, and class means: noised, bounded, on the ledger, once."""

import dataclasses
import functools
import math

import pytest
import torch
from scipy import stats

from dpmi.base.errors import UserError
from dpmi.mechanisms import build_mechanism
from dpmi.mechanisms.statistics import decide_midway, hand_over
from dpmi.models.discriminant import discriminant, first_head, pooled_discriminant
from dpmi.models.head import FeatureHead
from dpmi.models.network import build_network
from dpmi.privacy.accounting import epsilon
from dpmi.privacy.journal import Journal, read_journal, reserved_entries
from dpmi.privacy.lattice import BEYOND_REACH
from dpmi.privacy.plan import ROUNDING
from dpmi.privacy.randomness import NoiseSource
from dpmi.privacy.releases import release_sum
from dpmi.privacy.statistics import (
    COUNT_SCALE,
    TrainingSet,
    class_logit_sums,
    class_sensitivity,
    class_statistics,
    packed,
)

pytestmark = pytest.mark.usefixtures("one_thread")

N, D, K = 60, 4096, 3
DELTA = 1e-3
HEAD = (
    *("model.train=head", "model.norm=frozen_batch", "mechanism.delta=1e-3"),
    *("data.batch_size=all", "trainer.max_epochs=5", "max_grad_norm=0.7", "model.prior=uniform"),
)


def training_set(n=N, d=D, classes=K):
    vectors = torch.randn(n, d, generator=torch.Generator().manual_seed(0)).abs()
    vectors = vectors / vectors.norm(dim=1, keepdim=True)
    return TrainingSet(torch.arange(n) % classes, classes, vectors)


@pytest.fixture(scope="module")
def build(composed):
    compose = functools.lru_cache(composed)  # composing takes longer than what is tested

    def make(name, *overrides, train=None, source=None, journal=None):
        train = train or training_set(d=16)
        config = compose(f"mechanism={name}", *HEAD, *overrides)
        return build_mechanism(config, train.n, source, journal, train=train)

    return make


def gdp_epsilon(mu, delta=DELTA):
    """ε of μ-GDP at δ in closed form (Dong, Roth and Su 2022, corollary 2.13), by bisection."""
    low, high = 0.0, 100.0
    for _ in range(200):
        e = (low + high) / 2
        found = stats.norm.cdf(mu / 2 - e / mu) - math.exp(e) * stats.norm.cdf(-mu / 2 - e / mu)
        low, high = (e, high) if found > delta else (low, e)
    return high


def mu_of(ledger):
    return math.sqrt(sum(entry.steps / entry.noise_multiplier**2 for entry in ledger))


def run(mechanism, train, net=None):
    """All steps of a plan, as the loader would give the batches."""
    net = net or FeatureHead(train.vectors.shape[1], train.num_classes, "linear")
    gradient = mechanism.make_gradient(net)
    for step in range(mechanism.plan.steps):
        rows = mechanism.train_batches().draw(step)
        assert rows == list(range(train.n))  # sample rate 1: every image in every batch
        gradient(train.vectors[rows], train.labels[rows])
    return net


@pytest.mark.parametrize("name", ["dpsgd", "class_means"])
@pytest.mark.parametrize(("beta", "accountant"), [(1, "prv"), (4, "pld")])
def test_epsilon_of_all_that_is_released_is_that_of_an_independent_accountant(
    build, name, beta, accountant
):
    train = training_set(d=16)
    mechanism = build(name, f"beta={beta}", f"mechanism.accountant={accountant}", train=train)
    run(mechanism, train)
    ledger, stated = mechanism.ledger.entries, mechanism.guarantee().epsilon
    assert all(entry.sample_rate == 1.0 for entry in ledger)
    before = {"dpsgd": 2, "class_means": 1}[name]  # counts are in the release of class means
    assert [entry.steps for entry in ledger] == [1] * before + [{"dpsgd": 5}.get(name, 1)]
    assert stated == pytest.approx(gdp_epsilon(mu_of(ledger)), rel=1e-6)
    assert 0.998 / beta <= stated <= 1 / beta


def test_each_statistic_costs_its_share_of_the_budget(build):
    for mechanism in (
        build("dpsgd", "beta=2"),
        build("class_means", "beta=2"),
        build("dpsgd", "beta=2", "model.prior=midway"),
        build("dpsgd", "beta=2", "model.train=head_then_all"),
    ):
        plan = mechanism.plan
        whole = sum(1 / s.noise_multiplier**2 for s in plan.statistics)
        whole += plan.steps / plan.noise_multiplier**2
        shares = {s.name: s.noise_multiplier**-2 / whole for s in plan.statistics}
        named = {"centre": 0.10, "class_sums": 0.10, "class_counts": 0.02, "class_logits": 0.05}
        for name, share in shares.items():
            assert share == pytest.approx(named[name], rel=0.003)


def test_the_centre_is_released_with_its_noise_and_no_more(build):
    """Chi-squared over 4096 values: a false alarm in ten thousand."""
    train = training_set()
    mechanism, net = build("dpsgd", train=train), FeatureHead(D, K, "linear")
    mechanism.make_gradient(net)
    noise = (net.centre - train.vectors.mean(0)).double() * N
    std = mechanism.plan.statistics[0].noise_multiplier * (1 + ROUNDING)
    low, high = stats.chi2.interval(1 - 1e-4, D)
    assert low < float((noise / std).square().sum()) < high
    assert stats.kstest(noise.numpy() / std, "norm").pvalue > 1e-4


@pytest.mark.parametrize("name", ["dpsgd", "class_means"])
def test_class_counts_are_released_with_their_noise(build, monkeypatch, name):
    """What the prior is made of, of 500 classes: a false alarm in ten thousand."""
    found, train = [], training_set(n=600, d=4, classes=500)
    monkeypatch.setattr(FeatureHead, "set_class_counts", lambda _, counts: found.append(counts))
    mechanism = build(name, train=train)
    run(mechanism, train)
    (counts,) = found
    plan = mechanism.plan
    std = {
        "dpsgd": (1 + ROUNDING) * plan.statistics[-1].noise_multiplier,
        "class_means": plan.noise_std / 0.3,
    }[name]
    low, high = stats.chi2.interval(1 - 1e-4, 500)
    assert low < float(((counts - train.class_counts()) / std).square().sum()) < high


@pytest.mark.parametrize("name", ["dpsgd", "class_means"])
def test_the_shares_of_the_classes_are_taken_off_unless_the_prior_is_the_training_sets(build, name):
    train = training_set(d=16, classes=2)
    for prior in ("train", "uniform"):
        mechanism = build(name, f"model.prior={prior}", train=train)
        net = FeatureHead(16, 2, "linear")
        mechanism.make_gradient(net)(train.vectors, train.labels)
        assert bool(net.log_shares.any()) == (prior == "uniform")


def test_a_first_head_is_computed_from_class_sums_with_their_noise(build, monkeypatch):
    """Chi-squared over 2 (512 + 1) values: a false alarm in ten thousand."""
    found, train = [], training_set(d=512, classes=2)
    monkeypatch.setattr(
        "dpmi.mechanisms.statistics.first_head",
        lambda sums, counts, **std: (
            found.append((sums, counts, std)) or first_head(sums, counts, **std)
        ),
    )
    net = build_network(
        "resnet18", 2, "frozen_batch", build_network("resnet18", 2, "batch", None).net.state_dict()
    )
    mechanism = build("dpsgd", "model.train=head_then_all", train=train)
    mechanism.make_gradient(net)
    ((sums, counts, std),) = found
    planned = mechanism.plan.statistics[0]
    assert planned.name == "class_sums"
    sensitivity = class_sensitivity(COUNT_SCALE)
    expected = planned.noise_multiplier * sensitivity
    assert std["noise_std"] == pytest.approx(expected, rel=2 * ROUNDING)
    assert std["count_std"] == pytest.approx(expected / COUNT_SCALE, rel=2 * ROUNDING)
    exact = class_statistics(train.vectors, train.labels, 2, 1.0)
    noise = torch.cat(
        [(sums.flatten() - exact[:-2]) / std["noise_std"], (counts - exact[-2:]) / std["count_std"]]
    )
    low, high = stats.chi2.interval(1 - 1e-4, len(noise))
    assert low < float(noise.square().sum()) < high
    assert mechanism.ledger.entries[0].noise_multiplier == planned.noise_multiplier
    weight, bias = first_head(sums, counts, **std)
    torch.testing.assert_close(net.net.fc.weight.detach(), weight)
    torch.testing.assert_close(net.net.fc.bias.detach(), bias)


def test_the_sums_of_the_logits_are_released_with_their_noise_after_the_steps(build, monkeypatch):
    """Chi-squared over 40,000 values: a false alarm in ten thousand."""
    found, train = [], training_set(n=400, d=256, classes=200)
    monkeypatch.setattr(
        "dpmi.mechanisms.dpsgd.decide_midway", lambda _, sums, train, std: found.append((sums, std))
    )
    mechanism = build("dpsgd", "model.prior=midway", train=train)
    net = run(mechanism, train)
    steps = mechanism.ledger.steps
    with torch.no_grad():
        logits = net.eval()(train.vectors)
    mechanism.settle(net, logits)
    ((sums, std),) = found
    planned = mechanism.plan.statistics[-1]
    assert planned.name == "class_logits"
    assert std == pytest.approx(planned.noise_multiplier, rel=2 * ROUNDING)
    assert mechanism.ledger.steps == steps + 1
    assert mechanism.ledger.entries[-1].noise_multiplier == planned.noise_multiplier
    assert mechanism.ledger.entries[-1].sample_rate == 1.0
    assert mechanism.taken == mechanism.plan.steps
    assert 0.998 <= mechanism.guarantee().epsilon <= 1
    noise = (sums - class_logit_sums(logits, train.labels, 200)) / std
    low, high = stats.chi2.interval(1 - 1e-4, len(sums))
    assert low < float(noise.square().sum()) < high


def test_the_sums_of_the_logits_are_counted_in_full_where_an_attempt_was_lost(build, tmp_path):
    """Of Poisson batches, whose steps have less noise than the sums, and cost less."""
    train, journal = training_set(d=8), Journal(tmp_path / "journal")
    words = ("model.prior=midway", "data.batch_size=20", "trainer.max_epochs=1")
    mechanism, net = (
        build("dpsgd", *words, train=train, journal=journal),
        FeatureHead(8, K, "linear"),
    )
    gradient = mechanism.make_gradient(net)
    for step in range(mechanism.plan.steps):
        rows = mechanism.train_batches().draw(step)
        gradient(train.vectors[rows], train.labels[rows])
    mechanism.settle(net, net.eval()(train.vectors).detach())
    made = read_journal(tmp_path / "journal")
    lost = reserved_entries(made, 0, max(r.last for r in made))
    for spent in mechanism.ledger.entries:
        same = [
            e
            for e in lost
            if (e.noise_multiplier, e.sample_rate) == (spent.noise_multiplier, spent.sample_rate)
        ]
        assert sum(e.steps for e in same) >= spent.steps
    assert epsilon(lost, DELTA, "pld") >= epsilon(mechanism.ledger.entries, DELTA, "pld")


def test_a_threshold_that_training_displaced_is_found_and_noise_that_hides_it_is_ignored():
    margins = torch.tensor([-3.0, -1.0]).repeat(100) + 0.1 * torch.randn(200)
    logits = torch.stack([-margins / 2, margins / 2], 1)
    train = TrainingSet(torch.arange(200) % 2, 2)
    sums = class_logit_sums(logits, train.labels, 2)
    for noise_std, threshold in ((0.0, -2.0), (1e4, 0.0)):
        net = FeatureHead(2, 2, "linear")
        net.set_class_counts(train.class_counts())
        decide_midway(net, sums, train, noise_std)
        assert float(net.log_shares[1] - net.log_shares[0]) == pytest.approx(threshold, abs=0.05)


def test_each_finding_has_a_threshold_of_its_own_and_noise_that_hides_it_is_ignored():
    generator = torch.Generator().manual_seed(0)
    findings = (torch.arange(600)[:, None] % torch.tensor([2, 3]) == 0).float()
    findings[torch.rand(600, 2, generator=generator) < 0.25] = math.nan  # of which less is known
    middle = torch.tensor([-2.0, 1.0])
    logits = 2 * findings.nan_to_num() - 1 + middle + 0.1 * torch.randn(600, 2, generator=generator)
    train = TrainingSet(findings, 2)
    for noise_std, threshold in ((0.0, middle), (1e4, torch.zeros(2))):
        net = FeatureHead(2, 2, "linear")
        hand_over(net, "class_counts", train.class_counts(), train, 0.0)
        odds = net.log_shares.clone()
        assert odds.tolist() == pytest.approx([0.0, -math.log(2)], abs=0.3)
        decide_midway(net, train.logit_sums(logits), train, noise_std)
        torch.testing.assert_close(net.log_shares - odds, threshold, atol=0.1, rtol=0)


def test_of_findings_counts_and_logits_are_released_with_the_plans_noise(build, monkeypatch):
    """Chi-squared over 600 values each: a false alarm in ten thousand."""
    given, k = {}, 300
    train = training_set(n=400, d=16, classes=2)
    findings = (torch.rand(400, k, generator=torch.Generator().manual_seed(0)) < 0.5).float()
    train = dataclasses.replace(train, labels=findings, num_classes=k)

    def keep(net, name, value, train, std):
        given[name] = (value, std)

    monkeypatch.setattr("dpmi.mechanisms.planned.hand_over", keep)
    monkeypatch.setattr(
        "dpmi.mechanisms.dpsgd.decide_midway",
        lambda _, sums, train, std: given.update(class_logits=(sums, std)),
    )
    words = ("model.prior=midway", "model.features.centre=false")
    mechanism, net = build("dpsgd", *words, train=train), FeatureHead(16, k, "linear")
    gradient = mechanism.make_gradient(net)
    for step in range(mechanism.plan.steps):
        rows = mechanism.train_batches().draw(step)
        gradient(train.vectors[rows], train.labels[rows])
    logits = torch.randn(400, k, generator=torch.Generator().manual_seed(1))
    mechanism.settle(net, logits)
    assert 0.998 <= mechanism.guarantee().epsilon <= 1
    planned = {one.name: one.noise_multiplier for one in mechanism.plan.statistics}
    assert list(planned) == list(given) == ["class_counts", "class_logits"]
    exact = {"class_counts": train.class_counts(), "class_logits": train.logit_sums(logits)}
    for name, (released, std) in given.items():
        assert std == pytest.approx(planned[name], rel=2 * ROUNDING)
        noise = (released - exact[name]) / std
        low, high = stats.chi2.interval(1 - 1e-4, len(noise))
        assert (len(noise), low < float(noise.square().sum()) < high) == (2 * k, True)


def test_class_means_use_what_was_released_and_nothing_else(build, monkeypatch):
    """Sums and counts that the discriminant is given: noisy both, or a mean's noise is too small.

    Chi-squared, a false alarm in ten thousand each.
    """
    given, train = [], training_set(n=600, d=8, classes=500)
    monkeypatch.setattr(
        "dpmi.mechanisms.class_means.discriminant",
        lambda *arguments: given.append(arguments) or discriminant(*arguments),
    )
    mechanism = build("class_means", "model.features.centre=false", train=train)
    net = run(mechanism, train)
    plan, ((sums, counts, noise_std, count_std),) = mechanism.plan, given
    assert plan.max_grad_norm == class_sensitivity(0.3) == math.sqrt(1.09)
    assert (noise_std, count_std) == (plan.noise_std, plan.noise_std / 0.3)
    exact = class_statistics(train.vectors, train.labels, 500, 1.0)
    noise = (sums.flatten() - exact[:-500]) / noise_std, (counts - exact[-500:]) / count_std
    for values in noise:
        low, high = stats.chi2.interval(1 - 1e-4, len(values))
        assert low < float(values.square().sum()) < high
    weight, bias = discriminant(*given[0])
    torch.testing.assert_close(net.weight, weight)
    torch.testing.assert_close(net.bias, bias)


def test_the_second_moment_is_released_with_the_noise_of_the_plan_in_every_part(build, monkeypatch):
    """Chi-squared and Kolmogorov-Smirnov, a false alarm in ten thousand each.

    On the diagonal and beside it, where a value stands twice and its noise is √2 less.
    """
    given, train = [], training_set(n=600, d=60, classes=100)
    monkeypatch.setattr(
        "dpmi.mechanisms.class_means.pooled_discriminant",
        lambda *arguments: given.append(arguments) or pooled_discriminant(*arguments),
    )
    words = "model.features.centre=false", "mechanism.moment_scale=2"
    mechanism = build("class_means", *words, train=train)
    net = run(mechanism, train)
    plan, ((sums, counts, moment, *stds),) = mechanism.plan, given
    assert plan.max_grad_norm == class_sensitivity(0.3, 2.0) == math.sqrt(5.09)
    assert (plan.steps, plan.sample_rate, mechanism.ledger.steps) == (1, 1.0, 1)
    assert stds == [plan.noise_std, plan.noise_std / 0.3, plan.noise_std / 2]
    exact = class_statistics(train.vectors, train.labels, 100, 1.0, 1.0)
    exact_sums, exact_counts, exact_moment = exact.split([6000, 100, 1830])
    noise = packed(moment) - exact_moment
    row, column = torch.triu_indices(60, 60)
    parts = (
        ((sums.flatten() - exact_sums) / stds[0]),
        ((counts - exact_counts) / stds[1]),
        (noise[row == column] / stds[2]),
        (noise[row != column] / stds[2]),
    )
    for values in parts:
        low, high = stats.chi2.interval(1 - 1e-4, len(values))
        assert low < float(values.square().sum()) < high
        assert stats.kstest(values.numpy(), "norm").pvalue > 1e-4
    assert torch.equal(moment, moment.T)
    weight, bias = pooled_discriminant(*given[0])
    torch.testing.assert_close(net.weight, weight)
    torch.testing.assert_close(net.bias, bias)


def test_epsilon_is_the_same_with_a_second_moment_and_more_values_need_no_smaller_delta(build):
    train = training_set(d=16)
    for moment_scale in ("null", "1", "20"):
        mechanism = build("class_means", f"mechanism.moment_scale={moment_scale}", train=train)
        run(mechanism, train)
        stated = mechanism.guarantee().epsilon
        assert stated == pytest.approx(gdp_epsilon(mu_of(mechanism.ledger.entries)), rel=1e-6)
        assert 0.998 <= stated <= 1


def test_a_delta_below_what_the_second_moments_values_can_keep_is_refused(build):
    """Their number counts: of 256 features there are 32,896 beside 514 sums and counts."""
    train = training_set(n=60, d=256, classes=2)
    least = 2 * (514 + 32_896) * BEYOND_REACH  # of two releases: the centre is the other
    for moment_scale, delta, refused in (("1", 0.9, True), ("1", 1.1, False), ("null", 0.9, False)):
        mechanism = build("class_means", f"mechanism.moment_scale={moment_scale}", train=train)
        mechanism.plan = dataclasses.replace(mechanism.plan, delta=delta * least)
        net = FeatureHead(256, 2, "linear")
        if refused:
            with pytest.raises(ValueError, match="33410 noise values"):
                mechanism.make_gradient(net)
        else:
            mechanism.make_gradient(net)


def test_vectors_are_centred_and_brought_to_length_one_before_they_are_summed(build, monkeypatch):
    seen, train = [], training_set(d=16)
    monkeypatch.setattr(
        "dpmi.mechanisms.class_means.class_statistics",
        lambda rows, *rest: seen.append(rows) or class_statistics(rows, *rest),
    )
    net = run(build("class_means", train=train), train)
    assert net.centre.norm() > 0
    torch.testing.assert_close(seen[0], net.centred(train.vectors))
    torch.testing.assert_close(seen[0].norm(dim=1), torch.ones(N))


@pytest.mark.parametrize("name", ["dpsgd", "class_means"])
def test_each_release_is_on_the_journal_and_the_ledger_before_it_is_made(
    build, monkeypatch, tmp_path, name
):
    journal, train = Journal(tmp_path / "journal"), training_set(d=8)
    mechanism = build(name, train=train, journal=journal)
    net, found = FeatureHead(8, K, "linear"), []

    release = mechanism._noise.release

    def watched(*arguments, **options):
        reserved = {r.noise_multiplier for r in read_journal(tmp_path / "journal")}
        found.append(({e.noise_multiplier for e in mechanism.ledger.entries}, reserved))
        release(*arguments, **options)

    monkeypatch.setattr(mechanism._noise, "release", watched)
    run(mechanism, train, net)
    plan = mechanism.plan
    kinds = [s.noise_multiplier for s in plan.statistics] + [plan.noise_multiplier] * plan.steps
    assert len(found) == len(kinds)
    for number, (on_ledger, on_journal) in enumerate(found):
        assert on_ledger == on_journal == set(kinds[: number + 1])
    # A statistic is reserved alone: what is reserved and not executed would be counted when lost.
    assert [r.last - r.first for r in read_journal(tmp_path / "journal")][
        : len(plan.statistics)
    ] == [1] * len(plan.statistics)


def test_statistics_and_steps_have_noise_of_their_own():
    source = NoiseSource(1)
    streams = [("statistic", 0), ("statistic", 1), ("gradient", 0), ("gradient", 1)]
    drawn = {tuple(source.stream(*place).words(4).tolist()) for place in streams}
    assert len(drawn) == len(streams)


def test_a_released_sum_has_no_bits_below_its_lattice_and_repeats_with_its_key(build):
    from dpmi.privacy.ledger import Ledger
    from dpmi.privacy.noise import GaussianNoise

    def release(key, exact):
        return release_sum(
            exact, sensitivity=1.0, noise_multiplier=2.0, noise=GaussianNoise(NoiseSource(key)),
            purpose="statistic", step=0, ledger=Ledger(), journal=None, physical_batch_size=1,
        )  # fmt: skip

    exact = torch.rand(50, dtype=torch.float64)
    one, again, other = release(1, exact), release(1, exact), release(2, exact)
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    moved = release(1, exact + 1e-12)  # below the lattice: the same release
    assert torch.equal(one, moved)


def test_a_run_that_resumes_releases_no_statistic_again(build):
    train = training_set(d=8)
    first = build("dpsgd", train=train)
    net = run(first, train)
    resumed = build("dpsgd", train=train)
    resumed.load_state_dict(first.state_dict())
    centre = net.centre.clone()
    resumed.make_gradient(net, first_step=first.plan.steps)
    assert torch.equal(net.centre, centre)
    assert resumed.ledger.entries == first.ledger.entries
    assert resumed.taken == first.plan.steps


def test_without_a_mechanism_the_centre_and_the_shares_are_the_images_own(build, composed):
    train = training_set(d=8)
    config = composed("mechanism=none", *[w for w in HEAD if "mechanism" not in w])
    mechanism = build_mechanism(config, train.n, train=train)
    net = FeatureHead(8, K, "linear")
    mechanism.make_gradient(net)
    torch.testing.assert_close(net.centre, train.vectors.mean(0))
    torch.testing.assert_close(net.log_shares, torch.full((K,), -math.log(K)))
    assert mechanism.guarantee().epsilon is None


def test_shares_are_released_for_a_network_on_images_too(composed):
    config = composed(
        *("mechanism=dpsgd", "model.prior=uniform", "mechanism.delta=1e-3"),
        *("mechanism.accountant=rdp", "data.batch_size=20", "max_physical_batch_size=20"),
    )
    train = TrainingSet(torch.arange(N) % 2, 2)
    mechanism = build_mechanism(config, N, NoiseSource(3), train=train)
    net = build_network("resnet18", 2, "group", None)
    mechanism.make_gradient(net)
    assert [s.name for s in mechanism.plan.statistics] == ["class_counts"]
    assert mechanism.ledger.steps == 1
    assert not torch.equal(net.log_shares, torch.full((2,), -math.log(2)))
    spent = epsilon(mechanism.ledger.entries, DELTA, "pld")
    assert 0 < spent < 0.2  # a fiftieth of μ²
    with pytest.raises(ValueError, match="these are images"):
        train.vector_sum()


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["mechanism.shares.centre=0.99"], r"^beta=1\.0: no noise .*leave nothing for the steps"),
    ],
)
def test_a_budget_that_cannot_be_shared_out_is_refused_in_one_line(build, overrides, line):
    with pytest.raises(UserError, match=line):
        build("dpsgd", *overrides)
