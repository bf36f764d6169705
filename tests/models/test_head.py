import math

import numpy as np
import pytest
import torch
from torch import nn

from dpmi.models.discriminant import discriminant, pooled_discriminant
from dpmi.models.head import FeatureHead, polynomials
from dpmi.models.network import build_network
from dpmi.privacy.engines.bookkeeping import BookKeeping


def unit_rows(n, d, seed=0):
    rows = torch.randn(n, d, generator=torch.Generator().manual_seed(seed))
    return rows / rows.norm(dim=1, keepdim=True)


@pytest.mark.parametrize("kind", ["linear", "ordinal"])
def test_a_head_starts_knowing_nothing_and_exports_what_it_computes(kind):
    head = FeatureHead(8, 5, kind)
    x = unit_rows(6, 8)
    assert torch.equal(head(x), torch.zeros(6, 5))
    nn.init.normal_(head.slopes.weight)
    nn.init.normal_(head.intercepts.weight)
    head.centre.copy_(unit_rows(1, 8, 1)[0] * 0.4)
    head.set_class_counts(torch.tensor([5.0, 4.0, 3.0, 2.0, 1.0]))
    head.eval()
    kept = head.exported()
    moved = x - kept["centre"]
    moved = moved / moved.norm(dim=1, keepdim=True)
    torch.testing.assert_close(head(x), moved @ kept["weight"].T + kept["bias"])


def test_a_centred_vector_has_length_one():
    """Normalised after the centre is taken off: before, lengths would run from 0 to 2."""
    head = FeatureHead(8, 2, "linear")
    head.centre.copy_(unit_rows(1, 8, 1)[0] * 0.9)
    torch.testing.assert_close(head.centred(unit_rows(50, 8)).norm(dim=1), torch.ones(50))
    assert head.centred(head.centre[None]).isfinite().all()


@pytest.mark.parametrize("grades", [2, 3, 4, 5, 9])
def test_the_polynomials_of_an_ordinal_head_are_orthonormal_and_of_their_degree(grades):
    q = polynomials(grades).double()
    degree = min(3, grades - 1)
    assert q.shape == (grades, degree)
    torch.testing.assert_close(q.T @ q, torch.eye(degree).double(), rtol=0, atol=1e-6)
    assert q.sum(0).abs().max() < 1e-6  # and orthogonal to degree 0
    places = torch.arange(grades, dtype=torch.float64)
    for power in range(1, degree + 1):
        fitting = torch.stack([places**k for k in range(power + 1)], 1)
        found = torch.linalg.lstsq(fitting, q[:, power - 1 : power]).solution
        torch.testing.assert_close(fitting @ found, q[:, power - 1 : power], rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["linear", "ordinal"])
def test_slopes_and_intercepts_of_a_head_are_clipped_together(kind):
    head = FeatureHead(6, 4, kind)
    nn.init.normal_(head.slopes.weight)
    x, y = unit_rows(9, 6), torch.arange(9) % 4
    parameters = [head.slopes.weight, head.intercepts.weight]
    expected = [torch.zeros_like(p) for p in parameters]
    bound = 0.5
    for row, label in zip(x, y, strict=True):
        loss = nn.functional.cross_entropy(head(row[None]), label[None])
        grads = torch.autograd.grad(loss, parameters)
        norm = math.sqrt(sum(float(g.square().sum()) for g in grads))
        for total, g in zip(expected, grads, strict=True):
            total += g * min(1.0, bound / norm)
    sums = {p: torch.zeros_like(p) for p in parameters}
    BookKeeping(head, bound, {}).add_clipped_sum(x, y, sums, 1.0)
    for p, total in zip(parameters, expected, strict=True):
        torch.testing.assert_close(sums[p], total)


@pytest.mark.parametrize("network", ["head", "resnet18"])
def test_the_prior_is_taken_off_in_evaluation_and_in_kept_weights_never_in_training(network):
    if network == "head":
        net, x = FeatureHead(8, 3, "linear"), unit_rows(4, 8)
    else:
        net, x = build_network("resnet18", 3, "group", None), torch.rand(2, 1, 32, 32)
    counts = torch.tensor([70.0, 20.0, 10.0])
    trained = net.train()(x)
    net.set_class_counts(counts)
    torch.testing.assert_close(net.train()(x), trained)
    decided = net.eval()(x)
    torch.testing.assert_close(decided, trained - (counts / 100).log())
    kept, bias = net.exported(), "bias" if network == "head" else "fc.bias"
    net.set_class_counts(torch.ones(3))
    torch.testing.assert_close(kept[bias] - net.exported()[bias], -(3 * counts / 100).log())


def test_a_count_that_noise_made_negative_gives_a_finite_prior():
    net = FeatureHead(2, 3, "linear")
    net.set_class_counts(torch.tensor([-4.0, 0.2, 100.0]))
    assert net.log_shares.isfinite().all()
    assert net.log_shares.exp().sum() == pytest.approx(1)


def classes_on_a_sphere(counts, d=40, seed=0):
    """Unit vectors around directions of their classes, as sums and counts, and themselves."""
    generator = torch.Generator().manual_seed(seed)
    directions = unit_rows(len(counts), d, seed + 1)
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    x = 0.6 * directions[labels] + 0.8 * torch.randn(len(labels), d, generator=generator) / d**0.5
    x = x / x.norm(dim=1, keepdim=True)
    sums = torch.zeros(len(counts), d).index_add_(0, labels, x)
    return x, labels, sums, torch.tensor(counts, dtype=torch.float64)


def test_without_noise_the_discriminant_decides_by_the_nearest_mean():
    x, _, sums, counts = classes_on_a_sphere([300, 300, 300])
    weight, bias = discriminant(sums, counts, 0.0, 0.0)
    nearest = torch.cdist(x, (sums / counts[:, None]).float()).argmin(1)
    assert torch.equal((x @ weight.T + bias).argmax(1), nearest)


def test_the_discriminant_takes_the_noises_own_length_off_a_rare_class():
    """Of two classes equally far from zero a noisy mean of few images must not seem farther."""
    x, labels, sums, counts = classes_on_a_sphere([2000, 100])
    generator = torch.Generator().manual_seed(5)
    std, found = 12.0, []
    for _ in range(200):
        noisy = sums + std * torch.randn(sums.shape, generator=generator)
        weight, bias = discriminant(noisy, counts, std, std)
        variance = sums[1].norm() / counts[1] / (weight[1] @ sums[1] / sums[1].norm())
        found.append((bias[1] - (counts / counts.sum()).log()[1]).float() * -2 * variance)
    true = (sums[1] / counts[1]).square().sum()
    noise = sums.shape[1] * (std / 100) ** 2
    assert noise > true  # uncorrected, most of the length would be the noise's
    assert torch.stack(found).mean() == pytest.approx(float(true), rel=0.35)
    weight, bias = discriminant(sums, counts, 0.0, 0.0)
    decided = (x @ weight.T + bias - (counts / counts.sum()).log().float()).argmax(1)
    assert (decided == labels).float().mean() > 0.9


def with_covariance(counts, d=12, seed=0):
    """Unit vectors that vary a hundred times more along some axes than along others."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    axes = torch.logspace(0, -1, d)
    x = axes * torch.randn(len(labels), d, generator=generator).double()
    x = x + 0.4 * unit_rows(len(counts), d, seed + 1).double()[labels]
    return x / x.norm(dim=1, keepdim=True), labels


def released(x, labels, classes):
    sums = torch.zeros(classes, x.shape[1]).double().index_add_(0, labels, x)
    return sums, torch.bincount(labels, minlength=classes).double(), x.T @ x


@pytest.mark.parametrize("counts", [[300, 500], [400, 90, 30, 60, 20]])
def test_without_noise_the_pooled_discriminant_is_linear_discriminant_analysis(counts):
    """Computed image by image, as scikit-learn's does with solver="lsqr"."""
    x, labels = with_covariance(counts)
    rows, own = x.numpy(), labels.numpy()
    shares = np.array(counts) / sum(counts)
    means = np.stack([rows[own == k].mean(0) for k in range(len(counts))])
    covariance = sum(
        share * np.cov(rows[own == k], rowvar=False, bias=True) for k, share in enumerate(shares)
    )
    slopes = np.linalg.solve(covariance, means.T).T
    intercepts = np.log(shares) - (slopes * means).sum(1) / 2
    weight, bias = pooled_discriminant(*released(x, labels, len(counts)), 0.0, 0.0, 0.0)
    np.testing.assert_allclose(weight.numpy(), slopes, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(bias.numpy(), intercepts, rtol=1e-4, atol=1e-4)


def test_where_noise_hides_every_variance_the_pooled_discriminant_takes_a_sphere():
    """As the spherical one does, but for the scale of the logits."""
    x, labels = with_covariance([300, 500])
    sums, counts, moment = released(x, labels, 2)
    noise = 1e-3 * torch.randn(12, 12, generator=torch.Generator().manual_seed(1)).double()
    weight, _ = pooled_discriminant(sums, counts, moment + noise + noise.T, 0.0, 0.0, 1e4)
    sphere, _ = discriminant(sums, counts, 0.0, 0.0)
    torch.testing.assert_close(weight / weight.norm(), sphere / sphere.norm())


def test_noise_in_the_second_moment_leaves_the_discriminant_what_is_above_it():
    """Of classes apart where features vary little: nearest means confuse them, and these do not.

    With noise of the eigenvalues' own size no variance is negative, or taken for less than it.
    """
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(4000) % 2
    x = 0.1 * torch.randn(4000, 60, generator=generator).double()
    common = 2 * torch.randn(4000, generator=generator).double()
    x[:, 0] += common + 0.5 * labels
    x[:, 1] += common - 0.5 * labels
    x[:, 2] += 1.0
    x = x / x.norm(dim=1, keepdim=True)
    sums, counts, moment = released(x, labels, 2)
    noise = torch.randn(60, 60, generator=generator).double()
    noise = 3.0 * (noise + noise.T) / 2  # on the diagonal 3, beside it 3 / √2
    found = {}
    for name, made in {
        "sphere": discriminant(sums, counts, 3.0, 3.0),
        "pooled": pooled_discriminant(sums, counts, moment + noise, 3.0, 3.0, 3.0),
    }.items():
        weight, bias = made
        found[name] = float(((x.float() @ weight.T + bias).argmax(1) == labels).float().mean())
    assert found["pooled"] > found["sphere"] + 0.05
    for std in (30.0, 300.0, 3000.0):
        weight, bias = pooled_discriminant(sums, counts, moment + std / 3 * noise, 0.0, 0.0, std)
        assert weight.isfinite().all()
        assert bias.isfinite().all()
        assert weight.norm() < 1e3


def test_the_pooled_discriminant_takes_the_noises_own_length_off_a_rare_class():
    x, labels = with_covariance([2000, 100])
    sums, counts, moment = released(x, labels, 2)
    generator, found = torch.Generator().manual_seed(5), []
    _, true = pooled_discriminant(sums, counts, moment, 0.0, 0.0, 0.0)
    for _ in range(300):
        noisy = sums + 4.0 * torch.randn(sums.shape, generator=generator)
        # The means' part in the second moment moves with them: the covariance stays.
        moved = moment + (noisy.T / counts) @ noisy - (sums.T / counts) @ sums
        moved = moved - torch.eye(12).double() * (4.0**2 / counts).sum()
        found.append(pooled_discriminant(noisy, counts, moved, 4.0, 4.0, 0.0)[1][1])
    assert torch.stack(found).mean() == pytest.approx(float(true[1]), abs=0.3)
