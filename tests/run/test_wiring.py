"""Whole jobs, as the command runs them: what the network is given, which noise, what is told.

Parts that are right can be wired wrongly. So nothing is exchanged here: torch's own hooks look on.
"""

import csv
import math
from collections import Counter

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy import stats
from small_network import SMALL
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.optim.optimizer import register_optimizer_step_pre_hook

from dpmi.data.augment import affine_crops, draw_affine
from dpmi.models.network import ImageNetwork, build_network
from dpmi.models.prior import DecidingNetwork, midway
from dpmi.pretraining.whitening import whiten_by_public_images
from dpmi.privacy import randomness
from dpmi.privacy.noise import PIECE
from dpmi.run.parts import prepared_data
from dpmi.run.records.reading import read_record
from dpmi.run.screen.terminal import run_job

pytestmark = pytest.mark.usefixtures("one_thread")

STEPS = 6  # of a tiny job: 60 images in batches of 10
FEW = ("data.train_images=30", "data.batch_size=5")  # as many steps


class Watched:
    """A job, and what passed through its network and its optimizer.

    Args:
        on_step: called with the network and the optimizer before each step is taken.

    Attributes:
        trained: images of each forward pass that gradients were made of, (B, C, S, S) in [0, 1].
        evaluated: those of each pass without gradients.
        steps_ended: how many of these had been when the last step was taken.
        rows: what metrics.csv holds.
    """

    def __init__(self, config, folder, kind=ImageNetwork, on_step=None):
        self.config, self.trained, self.evaluated = config, [], []
        looking = True

        def see(module, inputs):
            if isinstance(module, kind) and looking:
                self.net = module
                seen = self.trained if torch.is_grad_enabled() else self.evaluated
                seen.append(inputs[0].detach().clone())

        def step(optimizer, *_):
            nonlocal looking
            looking, self.steps_ended = False, len(self.evaluated)
            if on_step:
                on_step(self, [p for group in optimizer.param_groups for p in group["params"]])
            looking = True

        hooks = register_module_forward_pre_hook(see), register_optimizer_step_pre_hook(step)
        folder.mkdir()
        try:
            assert run_job(config, folder) == "completed"
        finally:
            for hook in hooks:
                hook.remove()
        self.record = read_record(folder / "record.json")
        with (folder / "metrics.csv").open() as file:
            self.rows = list(csv.DictReader(file))
        self.clean = prepared_data(config)

    def pixels(self, split):
        """Clean images of a split as the network would see them, (n, C, S, S)."""
        return torch.from_numpy(self.clean.splits[split].pixels.copy()).float().div(255)

    def evaluated_in_order(self):
        """Images of the test and of the training split, as they were evaluated after training."""
        images, splits = torch.cat(self.evaluated[self.steps_ended :]), self.clean.splits
        test, train, val = (
            len(splits[name].labels) if name in splits else 0 for name in ("test", "train", "val")
        )
        tests = images[len(images) - test - val :][:test]
        return tests, images[val:][:train]  # the last epoch ends with the validation images


@pytest.fixture
def job(composed, tiny, tmp_path):
    """Run a tiny job: ``job("mechanism=ldp", ...)``."""

    def run(*words, **watching):
        config = composed(*tiny, f"cache_dir={tmp_path / 'cache'}", *words)
        return Watched(config, tmp_path / f"job{len(list(tmp_path.iterdir()))}", **watching)

    return run


def numbers_of(images, known):
    """Which of the known images each image is; fails where it is none of them, or two."""
    same = (images[:, None] == known[None]).flatten(2).all(2)
    assert (same.sum(1) == 1).all()
    return same.int().argmax(1)


def test_without_a_mechanism_the_network_sees_each_clean_image_once_an_epoch(job):
    done = job("mechanism=none", "trainer.max_epochs=2")
    clean = done.pixels("train")
    for epoch in (done.trained[:STEPS], done.trained[STEPS:]):
        assert [len(batch) for batch in epoch] == [10] * STEPS
        assert sorted(numbers_of(torch.cat(epoch), clean).tolist()) == list(range(60))
    test, train = done.evaluated_in_order()
    assert torch.equal(test, done.pixels("test"))
    assert torch.equal(train, clean)
    assert done.record.guarantee.epsilon is None


def test_the_test_images_are_evaluated_after_each_epoch_where_that_is_asked_for_and_only_there(job):
    for asked in (True, False):
        done = job("mechanism=none", "trainer.max_epochs=2", f"trainer.test_every_epoch={asked}")
        before_the_last_step = torch.cat(done.evaluated[: done.steps_ended])
        seen = [
            before_the_last_step.eq(image).flatten(1).all(1).any() for image in done.pixels("test")
        ]
        assert all(seen) if asked else not any(seen)


@pytest.mark.parametrize(
    ("pool", "beta", "matched"), [(1, 0.5, False), (1, 0.5, True), (4, 4.0, True)]
)
def test_under_local_dp_the_network_is_trained_on_released_images_alone(job, pool, beta, matched):
    words = (f"mechanism.matched={matched}", f"mechanism.pool={pool}", "trainer.max_epochs=2")
    done = job("mechanism=ldp", f"beta={beta}", *words)
    clean, (test, released) = block_means(done.pixels("train"), pool), done.evaluated_in_order()
    scale = beta * math.ceil(255 / pool**2) / 255
    assert torch.equal(test, widened(block_means(done.pixels("test"), pool), pool))
    for epoch in (done.trained[:STEPS], done.trained[STEPS:]):  # one release: the same images again
        assert sorted(numbers_of(torch.cat(epoch), released).tolist()) == list(range(60))
    noise = follows_the_laplace_mechanism(narrowed(released, pool), clean, scale)
    val, seen = done.pixels("val"), torch.cat(done.evaluated)[2 * 10 + 60 : -40]  # after two epochs
    val = block_means(val, pool)
    assert len(seen) == (3 * len(val) if matched else 0)
    if not matched:
        return
    assert torch.equal(seen[:10], widened(val, pool))
    fresh = follows_the_laplace_mechanism(narrowed(seen[10:], pool), torch.cat([val, val]), scale)
    # Not the training images' noise again: five standard errors.
    both = ~(noise[:20].isnan() | fresh.isnan())
    paired = noise[:20][both], fresh[both]
    assert abs(np.corrcoef(*paired)[0, 1]) < 5 / math.sqrt(both.sum())


def block_means(images, pool):
    """Means of blocks of (n, C, S, S) images in [0, 1], rounded to 8 bits."""
    means = nn.functional.avg_pool2d(255 * images.double(), pool)
    return ((means + 0.5 + 1e-9).floor() / 255).float()


def widened(means, pool):
    """(n, C, s, s) means with what lies linearly between their blocks' middles, to 8 bits."""
    wide = nn.functional.interpolate((255 * means).round(), scale_factor=pool, mode="bilinear")
    return wide.round() / 255


def narrowed(images, pool):
    """The means of which ``widened`` makes the images, found by least squares."""
    if pool == 1:
        return images
    side = images.shape[-1]
    one_by_one = nn.functional.interpolate(torch.eye(side // pool)[None], side, mode="linear")
    undo = torch.linalg.pinv(one_by_one[0].double())
    means = ((undo.T @ (255 * images.double()) @ undo).round().clamp(0, 255) / 255).float()
    off = (255 * (widened(means, pool) - images)).abs()
    assert off.max() < 1.5
    assert (off > 0.5).float().mean() < 1e-3  # a mean is missed by one, rarely
    return means


REACH = 80  # gray values: what is nearer to black or white than this may be cut off


def follows_the_laplace_mechanism(released, clean, beta):
    """Check the noise of (n, C, S, S) images against the mechanism's law, rounded and cut off.

    One false alarm in a million calls.

    Returns:
        The noise, (n, values), where its law does not depend on the image; elsewhere NaN.
    """
    value, outcome = (255 * clean.flatten(1)).round(), (255 * released.flatten(1)).round()
    assert torch.allclose(outcome, 255 * released.flatten(1), atol=1e-3)
    laplace, noise = stats.laplace(scale=255 * beta), outcome - value
    free = (value >= REACH) & (value <= 255 - REACH)
    observed, expected = [], []
    for low in range(-78, 78, 6):  # bins of six outcomes that no image of these cuts off
        inside = free & (noise >= low) & (noise < low + 6)
        observed.append(int(inside.sum()))
        expected.append(float(laplace.cdf(low + 5.5) - laplace.cdf(low - 0.5)) * int(free.sum()))
    odd = float((outcome[free] % 2).mean())  # within a bin each outcome has its share
    assert abs(odd - 0.5) < 5.2 * 0.5 / math.sqrt(int(free.sum()))
    black, white = laplace.cdf((0.5 - value).numpy()), laplace.sf((254.5 - value).numpy())
    cut = (outcome == 0).numpy(), (outcome == 255).numpy()
    for happened, chance in zip(cut, (black, white), strict=True):
        error = math.sqrt((chance * (1 - chance)).sum())
        assert abs(happened.sum() - chance.sum()) < 5.2 * error
    rest = int(free.sum())
    observed.append(rest - sum(observed))
    expected.append(rest - sum(expected))
    assert stats.chisquare(observed, expected).pvalue > 1e-6
    return torch.where(free & (noise.abs() < REACH), noise, math.nan)


def as_trained(config):
    """A network that the weights of a job on phantoms fit into."""
    net = build_network(config.model.name, 2, "group", None)
    whiten_by_public_images(net, 1, config.data.image_size)
    return net


class Noise:
    """What is left of each step's gradient when the clipped sum is taken off, by a plain loop."""

    def __init__(self, data, config):
        self._net = as_trained(config)
        self._images = torch.from_numpy(data.splits["train"].pixels.copy()).float().div(255)
        self._labels = torch.from_numpy(data.splits["train"].labels.copy())
        self._passes = 0
        self.batches, self.of_steps = [], []

    def __call__(self, done, parameters):
        given = [numbers_of(images, self._images) for images in done.trained[self._passes :]]
        self._passes = len(done.trained)
        numbers = torch.cat(given).tolist() if given else []
        self.batches.append(numbers)
        net = self._net
        net.load_state_dict(done.net.state_dict())
        total = torch.zeros(sum(p.numel() for p in parameters))
        for number in numbers:
            loss = nn.functional.cross_entropy(
                net(self._images[number][None]), self._labels[number][None]
            )
            grad = torch.cat(
                [g.flatten() for g in torch.autograd.grad(loss, list(net.parameters()))]
            )
            total += grad * min(1.0, done.config.max_grad_norm / float(grad.norm()))
        released = torch.cat([p.grad.flatten() for p in parameters])
        self.of_steps.append(released * done.config.data.batch_size - total)


def test_under_dp_sgd_the_network_gets_poisson_batches_and_the_noise_of_the_plan(
    job, composed, tiny, tmp_path
):
    words = ("mechanism=dpsgd", "max_physical_batch_size=4", *FEW, "model.name=resnet18")
    config = composed(*tiny, *words, f"cache_dir={tmp_path / 'cache'}")
    noise = Noise(prepared_data(config), config)
    done = job(*words, on_step=noise)
    plan = done.record.mechanism["plan"]
    assert len(noise.of_steps) == plan["steps"] == STEPS
    assert all(len(set(batch)) == len(batch) for batch in noise.batches)
    std = plan["noise_multiplier"] * plan["sensitivity"]
    # Five standard errors everywhere: one false alarm in 30 000 runs of this test.
    size = len(noise.of_steps[0])
    for step in noise.of_steps:
        assert abs(step.mean()) < 5 * std / math.sqrt(size)
    # Of the weights of a ResNet-18 it is fine enough to tell the sensitivity from the clip norm,
    # which it is a thousandth above.
    squares = sum(float(step.double().square().mean()) for step in noise.of_steps) / STEPS
    assert math.sqrt(squares) == pytest.approx(std, rel=5 / math.sqrt(2 * size * STEPS))
    for sigmas in (3, 5):
        beyond = sum(int((step.abs() > sigmas * std).sum()) for step in noise.of_steps)
        expected = 2 * stats.norm.sf(sigmas) * size * STEPS
        assert abs(beyond - expected) < 5 * math.sqrt(expected)
    thinned = [step[::16].numpy() for step in noise.of_steps]
    first, second = noise.of_steps[0][:PIECE].numpy(), noise.of_steps[0][PIECE : 2 * PIECE].numpy()
    pairs = [(first, second)]
    pairs += [(thinned[0], later) for later in thinned[1:]]
    for one, other in pairs:
        assert abs(np.corrcoef(one, other)[0, 1]) < 5 / math.sqrt(len(one))
    assert stats.kstest(thinned[0] / std, "norm").pvalue > 1e-6
    stated = [row for row in done.rows if row.get("epsilon")]
    assert len(stated) == STEPS
    assert float(stated[-1]["epsilon"]) == pytest.approx(done.record.guarantee.epsilon, rel=1e-6)
    test, train = done.evaluated_in_order()
    assert torch.equal(test, done.pixels("test"))
    assert torch.equal(train, done.pixels("train"))


class NoiseOfViews:
    """As ``Noise``, of images that are given in views: which must be those of the step."""

    def __init__(self, data, config):
        self._split, self._config = data.splits["train"], config
        self._net = as_trained(config)
        self._passes, self.of_steps, self.differ = 0, [], []

    def __call__(self, done, parameters):
        config, step, split = self._config, len(self.of_steps), self._split
        pixels, everyone = torch.from_numpy(split.pixels.copy()), range(len(split.labels))
        known = torch.stack([
            affine_crops(pixels, 32, *draw_affine(everyone, 32, config.seed, step, view))
            for view in range(config.data.multiplicity)
        ], 1).float().div(255)  # fmt: skip
        net = self._net
        net.load_state_dict(done.net.state_dict())
        total = torch.zeros(sum(p.numel() for p in parameters))
        for given in done.trained[self._passes :]:
            views = given.unflatten(0, (-1, config.data.multiplicity))
            for number in numbers_of(views, known).tolist():
                self.differ.append(not torch.equal(known[number, 0], known[number, 1]))
                label = torch.tensor(split.labels[number]).expand(len(known[number]))
                loss = nn.functional.cross_entropy(net(known[number]), label)
                grad = torch.cat(
                    [g.flatten() for g in torch.autograd.grad(loss, list(net.parameters()))]
                )
                total += grad * min(1.0, config.max_grad_norm / float(grad.norm()))
        self._passes = len(done.trained)
        released = torch.cat([p.grad.flatten() for p in parameters])
        self.of_steps.append(released * config.data.batch_size - total)


@pytest.mark.parametrize("engine", ["fast", pytest.param("opacus", marks=pytest.mark.slow)])
def test_the_network_is_given_each_image_in_views_of_the_step_whose_mean_gradient_is_clipped(
    job, composed, tiny, tmp_path, engine
):
    """And the noise is that of the plan, whatever the multiplicity."""
    words = (
        *("mechanism=dpsgd", f"mechanism.engine={engine}", "max_physical_batch_size=3", *FEW),
        *("data.augment=affine", "data.multiplicity=2"),
    )
    config = composed(*tiny, *words, f"cache_dir={tmp_path / 'cache'}")
    noise = NoiseOfViews(prepared_data(config), config)
    done = job(*words, on_step=noise)
    assert all(len(passed) in (2, 4, 6) for passed in done.trained)  # pieces of whole images
    assert done.record.config["data"]["multiplicity"] == 2
    assert np.mean(noise.differ) > 0.7  # of 32 pixels some are moved alike
    plan = done.record.mechanism["plan"]
    assert len(noise.of_steps) == plan["steps"] == STEPS
    std = plan["noise_multiplier"] * plan["sensitivity"]
    size = len(noise.of_steps[0])
    squares = sum(float(step.double().square().mean()) for step in noise.of_steps) / STEPS
    assert math.sqrt(squares) == pytest.approx(std, rel=5 / math.sqrt(2 * size * STEPS))
    assert torch.equal(done.evaluated_in_order()[1], done.pixels("train"))


def test_without_a_mechanism_the_network_is_given_as_many_views(job):
    done = job("mechanism=none", "data.augment=affine", "data.multiplicity=2")
    assert [len(passed) for passed in done.trained] == [20] * STEPS


DPSGD_OF_SMALL = ("mechanism=dpsgd", "mechanism.whiten=false")  # it has no features to whiten


class Small(DecidingNetwork):
    """In the place of ResNet-18, for jobs of many steps."""

    def __init__(self, *_, **__):
        super().__init__(2)
        self.net = nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(16, 2))

    def forward(self, images):
        return self.decided(self.net(images))

    def exported(self):
        return self.net.state_dict()


def test_batches_are_of_every_size_that_poisson_sampling_draws(job, monkeypatch):
    monkeypatch.setattr("dpmi.run.parts.build_network", Small)
    seen, sizes = 0, Counter()

    def count(done, parameters):
        nonlocal seen
        sizes[sum(len(images) for images in done.trained[seen:])] += 1
        seen = len(done.trained)

    words = ("data.batch_size=1", "trainer.max_epochs=4", "max_physical_batch_size=64")
    done = job(*DPSGD_OF_SMALL, *words, kind=Small, on_step=count)
    steps = sum(sizes.values())
    assert steps == 4 * 60
    # Twice the expected size is passed in one step of twelve. One false alarm in a million.
    law = stats.binom(60, 1 / 60)
    observed = [sizes[0], sizes[1], sizes[2], sum(n for size, n in sizes.items() if size > 2)]
    expected = [steps * p for p in (*law.pmf([0, 1, 2]), law.sf(2))]
    assert observed[3]  # none of 240 has more with a probability of 2e-9
    assert stats.chisquare(observed, expected).pvalue > 1e-6
    each = Counter(numbers_of(torch.cat(done.trained), done.pixels("train")).tolist())
    counts = [each[number] for number in range(60)]
    assert stats.chisquare(counts, [sum(counts) / 60] * 60).pvalue > 1e-6


@pytest.mark.parametrize("words", [DPSGD_OF_SMALL, ("mechanism=ldp",)], ids=str)
def test_no_secret_bits_are_used_twice(job, monkeypatch, words):
    monkeypatch.setattr("dpmi.run.parts.build_network", Small)
    keys, cipher = [], randomness.Cipher

    def begin(algorithm, mode):
        keys.append(bytes(algorithm.key))
        return cipher(algorithm, mode)

    monkeypatch.setattr(randomness, "Cipher", begin)
    job(*words, "max_physical_batch_size=64", kind=Small)
    assert len(keys) >= (2 * STEPS if "dpsgd" in words[0] else 2)  # train and test images
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize(
    "words", [("mechanism=none",), ("mechanism=ldp", "mechanism.matched=false")]
)
def test_kept_weights_decide_midway_between_the_classes_as_training_saw_them(job, words, tmp_path):
    done = job(*words, "model.prior=midway")
    (weights,) = tmp_path.glob("job*/model.safetensors")
    net = build_network(SMALL, 2, "group", None)
    net.net.load_state_dict(load_file(weights))
    labels = torch.from_numpy(done.clean.splits["train"].labels)
    with torch.no_grad():
        logits = net.eval()(done.evaluated_in_order()[1])
    means = torch.stack([logits[labels == c].mean(0) for c in (0, 1)])
    assert logits.std() > 1e-3
    torch.testing.assert_close(midway(means), torch.zeros(2), atol=1e-5, rtol=0)


@pytest.mark.parametrize("accountant", ["prv", "rdp"])
def test_under_dp_sgd_the_threshold_is_released_after_the_last_step_and_paid_for(job, accountant):
    done = job("mechanism=dpsgd", "model.prior=midway", f"mechanism.accountant={accountant}")
    plan, ledger = (done.record.mechanism[name] for name in ("plan", "ledger"))
    counts, logits = (s["noise_multiplier"] for s in plan["statistics"])
    found = [(e["noise_multiplier"], e["sample_rate"], e["steps"]) for e in ledger]
    assert found == [
        (counts, 1.0, 1),
        (plan["noise_multiplier"], plan["sample_rate"], STEPS),
        (logits, 1.0, 1),
    ]
    assert 0.99 < done.record.guarantee.epsilon <= 1
    assert float(done.rows[-1]["epsilon"] or 1) <= 1


def test_a_run_that_its_budget_ends_early_has_kept_enough_of_it_for_the_threshold(job):
    words = ("mechanism=dpsgd", "mechanism.accountant=rdp", "trainer.max_epochs=2")
    done = job(*words, "model.prior=midway", "privacy.max_epsilon=0.6")
    counts, steps, logits = done.record.mechanism["ledger"]
    assert 0 < steps["steps"] < done.record.mechanism["plan"]["steps"] == 2 * STEPS
    assert counts["steps"] == logits["steps"] == 1
    assert 0.4 < done.record.guarantee.epsilon <= 0.6


@pytest.mark.parametrize("bound", ["0.01", "null"])
def test_without_a_mechanism_the_gradient_of_a_batch_is_clipped(job, bound):
    norms = []

    def step(_, parameters):
        norms.append(float(nn.utils.get_total_norm([p.grad for p in parameters])))

    job("mechanism=none", f"model.gradient_clip_val={bound}", on_step=step)
    assert len(norms) == STEPS
    if bound == "null":
        assert max(norms) > 0.1
    else:
        assert norms == pytest.approx([float(bound)] * STEPS, rel=1e-3)


@pytest.mark.parametrize(
    ("words", "rates", "later"),
    [
        (
            ("mechanism=none", "model.schedule=cosine", "model.average=last_half"),
            [0.5, *((1 + math.cos(math.pi * t / 5)) / 2 for t in range(5))],
            3,
        ),
        (
            ("mechanism=dpsgd", "model.schedule=constant", "model.average=none"),
            [1.0] * STEPS,
            1,
        ),
    ],
    ids=lambda given: given[0] if isinstance(given, tuple) else "",
)
def test_weights_move_as_the_config_says_and_the_mean_of_the_later_ones_is_kept(
    job, tmp_path, words, rates, later
):
    """SGD by hand: momentum, weight decay, the schedule's rates; of gradients as they were."""
    weights, gradients = [], []

    def step(watched, _):
        named = [(n, p) for n, p in watched.net.net.named_parameters() if not n.startswith("fc")]
        weights.append({n: p.detach().double().clone() for n, p in named})
        gradients.append({n: p.grad.double().clone() for n, p in named})

    job(
        *(*words, "model.momentum=0.6", "model.weight_decay=0.1", "model.learning_rate=0.02"),
        *("mechanism.noise_walk=null", "mechanism.whiten=false") * ("dpsgd" in words[0]),
        *("model.frozen=null", "model.gradient_clip_val=null"),
        on_step=step,
    )
    (kept,) = tmp_path.glob("job*/model.safetensors")
    for name, left in load_file(kept).items():
        if name not in weights[0]:  # the head, into which the threshold is folded, and buffers
            continue
        w, speed, after = weights[0][name], torch.zeros_like(left, dtype=torch.float64), []
        for rate, gradient in zip(rates, gradients, strict=True):
            speed = 0.6 * speed + gradient[name] + 0.1 * w
            w = w - 0.02 * rate * speed
            after.append(w)
        for stepped, seen in zip(after, weights[1:], strict=False):
            torch.testing.assert_close(seen[name], stepped, rtol=1e-4, atol=1e-6)
        mean = torch.stack(after[-later:]).mean(0)
        torch.testing.assert_close(left.double(), mean, rtol=1e-4, atol=1e-6)
        assert (after[-1] - after[0]).norm() > 1e-3 * w.norm() > 0


@pytest.mark.parametrize(
    ("shown", "mean", "std"),
    [("half", [0.5], [0.5]), ("imagenet", [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])],
)
def test_the_network_is_shown_images_as_the_config_says(job, shown, mean, std):
    net = job("mechanism=none", f"model.input={shown}").net
    inside, image = [], torch.rand(1, 1, 32, 32)
    net.net.register_forward_pre_hook(lambda _, inputs: inside.append(inputs[0]))
    net(image)
    channel = torch.tensor(mean).view(1, -1, 1, 1), torch.tensor(std).view(1, -1, 1, 1)
    expected = ((image - channel[0]) / channel[1]).expand(1, 3, -1, -1)
    torch.testing.assert_close(inside[0], expected)


def test_the_order_of_images_and_the_first_weights_follow_the_seed(job):
    def seen(seed):
        weights = []

        def step(watched, _):
            weights.append(watched.net.net.conv1.weight.detach().clone())

        done = job("mechanism=none", f"seed={seed}", on_step=step)
        return [*done.trained, weights[0]]

    first, again, other = seen(1), seen(1), seen(2)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_by_default_the_original_trains_every_layer_from_its_public_weights(job, tmp_path):
    public = build_network(SMALL, 2, "batch", None).net.state_dict()
    torch.save(public, tmp_path / "public.pth")
    job("mechanism=none", "model.norm=frozen_batch", f"model.weights={tmp_path / 'public.pth'}")
    (weights,) = tmp_path.glob("job*/model.safetensors")
    kept = load_file(weights)
    moved = {name for name in kept if not torch.equal(kept[name], public[name])}
    assert moved == {name for name in kept if name.endswith(("weight", "bias"))}


@pytest.mark.parametrize("engine", ["fast", pytest.param("opacus", marks=pytest.mark.slow)])
def test_frozen_layers_keep_their_public_weights_and_the_others_learn(job, tmp_path, engine):
    public = build_network(SMALL, 5, "batch", None).net.state_dict()
    torch.save(public, tmp_path / "public.pth")
    job(
        *("mechanism=dpsgd", f"mechanism.engine={engine}", "model.norm=frozen_batch"),
        *(f"model.weights={tmp_path / 'public.pth'}", "model.frozen=layer2"),
    )
    (weights,) = tmp_path.glob("job*/model.safetensors")
    kept = load_file(weights)
    learned = {name for name in kept if not torch.equal(kept[name], public[name])}
    assert {name.split(".")[0] for name in learned} == {"layer3", "layer4", "fc"}
    assert all(
        ("weight" in name or "bias" in name) == (name in learned)
        for name in kept
        if name.startswith(("layer3", "layer4", "fc"))
    )
