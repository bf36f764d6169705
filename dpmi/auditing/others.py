"""Audit of a DP-SGD step by an adversary who knows all images, or patients, but one.

The adversary knows everything that DP-SGD does not hide: the weights, the other images, which of
them were drawn, the public augmentation. So the step's clipped gradients can be added up twice,
with image 0 and without it, by the program's own data set and engine. If the two sums differ by
more than C, the noise does not cover the image: this finds an image that changes the contributions
of others, for example where an augmentation depends on the place in the batch.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytorch_lightning as L
import torch
from torch import Tensor, nn

from dpmi.auditing import attacks
from dpmi.auditing.bounds import Family, Rates, measured
from dpmi.auditing.canaries import CLASSES, SIDE, auditors_data, owners
from dpmi.auditing.replica import PIECE, again, execute, on_own_network, replica
from dpmi.auditing.result import Bound, Found
from dpmi.config.schema import Config
from dpmi.data.batches import NumberedBatch
from dpmi.data.prepare import PreparedData
from dpmi.mechanisms import DPSGD, build_mechanism
from dpmi.models.prior import DecidingNetwork
from dpmi.privacy.engines.bookkeeping import BookKeeping
from dpmi.privacy.plan import PrivacyPlan
from dpmi.run.given import Given

N = 128
STEPS = 96  # of a run: each is a trial
_RATE = 2  # of the steps one draws an image: as many trials of either kind
_REHEARSED = 20_000
_MARGIN = SIDE // 4  # rows at the edges without a line: none is moved out of the image

TRIALS = (
    "the neighbour is a training set of which image 0 is never drawn; steps are independent "
    "trials, as they are in DP-SGD as claimed, but for weights that hardly move"
)
FAMILY = f"{TRIALS}; the noise of a step is Gaussian, and the run's ε is that of its plan with it"


class KnownOthers(L.Callback):
    """Compares each step's release with what it would be with image 0 and without it.

    The run's own sampler decides whether image 0 is drawn, every second step: a coin that the
    auditor looks up, as he may since he has the run's key.

    Attributes:
        drawn: of each step, whether image 0 was.
        scores: of each step, the log likelihood ratio of the two sums under the plan's noise.
    """

    def __init__(self, max_grad_norm: float, noise_multiplier: float) -> None:
        self._bound, self._noise = max_grad_norm, noise_multiplier
        self.drawn: list[bool] = []
        self.scores: list[float] = []
        self._net: nn.Module | None = None
        self._engine: BookKeeping | None = None
        self._sums: tuple[Tensor, Tensor] | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Copy the network before the run's engine takes hold of it: he must change nothing."""
        net = copy.deepcopy(pl_module.net)
        assert isinstance(net, nn.Module)
        self._net, self._engine = net, BookKeeping(net, self._bound, {})

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Add up both sums; the learning rate is so small that the weights are still the first."""
        loader: Any = trainer.train_dataloader
        step = trainer.global_step
        members = loader.batch_sampler.batches.draw(step)
        others = [index for index in members if index]
        self.drawn.append(len(others) < len(members))
        self._sums = (
            self._sum(loader.dataset.__getitems__(NumberedBatch(others, step))),
            self._sum(loader.dataset.__getitems__(NumberedBatch([0, *others], step))),
        )

    def _sum(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Of clipped gradients, in units of the clipping norm: (P,)."""
        assert self._net is not None
        assert self._engine is not None
        sums: dict[Tensor, Tensor] = {p: torch.zeros_like(p) for p in self._net.parameters()}
        images, labels = (part.to(next(iter(sums)).device) for part in batch)
        if len(labels):
            self._engine.add_clipped_sum(images, labels, sums, 1 / self._bound)
        return torch.cat([one.flatten() for one in sums.values()]).cpu().double()

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        """Which of the two is nearer to what was released, and by how much."""
        loader: Any = trainer.train_dataloader
        plan = loader.batch_sampler.batches.plan
        assert self._sums is not None
        net = pl_module.net
        assert isinstance(net, nn.Module)
        gradients = [p.grad.flatten() for p in net.parameters() if p.grad is not None]
        released = torch.cat(gradients).cpu().double() * plan.expected_batch_size / self._bound
        without, included = self._sums
        self.scores.append(
            attacks.nearer((released - without).numpy(), (included - without).numpy(), self._noise)
        )


class SmallNet(DecidingNetwork):
    """A ResNet's layers in small: a convolution, a GroupNorm, a linear head; sees where lines are.

    Args:
        max_grad_norm: C; gradients are several times as long before they are clipped.
    """

    def __init__(self, max_grad_norm: float) -> None:
        super().__init__(len(CLASSES))
        last = nn.Linear(400, len(CLASSES))
        self.net = nn.Sequential(
            *(nn.Conv2d(1, 4, 5, stride=3), nn.GroupNorm(2, 4), nn.ReLU()),
            *(nn.Flatten(), last),
        )
        self._steepness = max_grad_norm
        with torch.no_grad():  # logits near 0, where gradients are longest
            last.weight /= self._steepness

    def forward(self, images: Tensor) -> Tensor:
        """(B, 1, S, S) to logits (B, 2)."""
        return self.decided(self._steepness * self.net(images))

    def exported(self) -> dict[str, Tensor]:
        """All layers' weights."""
        state: dict[str, Tensor] = self.net.state_dict()
        return state


def audit_others(
    config: Config,
    n: int,
    *,
    seconds: float,
    confidence: float = 0.95,
    steps: int = STEPS,
    progress: Callable[[int, float], None] = lambda runs, passed: None,
) -> Found:
    """Run the step of ``config`` on known images and one that is drawn or not; bound the run's ε.

    Args:
        config: of a run with ``mechanism=dpsgd``;
            patients are protected where its ``privacy.unit=patient``.
        n: training images of that run, or patients.
        seconds: that may pass; one run is made in any case.
        confidence: with which both bounds hold at once.
        steps: of a run.
        progress: called after each run.

    Raises:
        UserError: a run did not complete.
    """
    rng = np.random.default_rng()
    plan = planned(config, n)
    seen = again(lambda _: _watched(config, plan, steps, rng), seconds, progress)
    coin = np.concatenate([one.drawn for one in seen])
    score = np.concatenate([one.scores for one in seen])
    _, outside = attacks.rehearse(plan.noise_multiplier, 1.0, 1, _REHEARSED, rng)
    tests = [(0.0, 0.6), *((float(np.quantile(outside, 1 - p)), 0.2) for p in (0.2, 0.03))]
    rates = [
        measured(score[coin], score[~coin], at, share * (1 - confidence), fair=False)
        for at, share in tests
    ]
    return Found(
        bounds={
            "known others": Bound(_run_epsilon(rates, plan), FAMILY),
            "known others, trials": Bound(
                max(one.sampled(plan.sample_rate).epsilon(plan.delta) for one in rates), TRIALS
            ),
        },
        canaries=len(coin),
        runs=len(seen),
    )


def planned(config: Config, n: int) -> PrivacyPlan:
    """What a run of ``config`` with n training images is to execute."""
    unit = "patient" if config.privacy.unit == "patient" else "image"
    mechanism = build_mechanism(on_own_network(config), n, unit=unit)
    assert isinstance(mechanism, DPSGD)
    return mechanism.plan


def _run_epsilon(rates: list[Rates], plan: PrivacyPlan) -> float:
    """ε of the run, if each step has the most noise that one step was seen not to have."""
    noise = Family(1.0, 1).refuted(rates, plan.noise_multiplier)
    whole = Family(plan.sample_rate, plan.steps)
    return whole.epsilon(noise, plan.delta) if noise else 0.0


def _watched(
    config: Config, plan: PrivacyPlan, steps: int, rng: np.random.Generator
) -> KnownOthers:
    with TemporaryDirectory(prefix="dpmi-audit-") as name:
        one = replica(
            on_own_network(config),
            Path(name),
            data={"image_size": SIDE, "resize": None, "batch_size": N // _RATE},
            trainer={"max_epochs": steps // _RATE, "devices": 1},
            mechanism={"calibration": "noise_multiplier", "accountant": "rdp", "delta": "auto"},
            privacy={"max_epsilon": None, "max_total_epsilon": None},
        ).model_copy(update={"beta": plan.noise_multiplier, "max_physical_batch_size": PIECE})
        seen = KnownOthers(plan.max_grad_norm, plan.noise_multiplier)
        data = _lines(config.privacy.unit == "patient", rng)
        execute(one, Path(name), Given(data, SmallNet(plan.max_grad_norm), (seen,)))
        return seen


def _lines(patients: bool, rng: np.random.Generator) -> PreparedData:
    """Black images with a white line each, that lies elsewhere when an image is moved."""
    whose = owners(N, patients)
    n = len(whose)
    pixels = np.zeros((n, 1, SIDE, SIDE), np.uint8)
    pixels[np.arange(n), 0, rng.integers(_MARGIN, SIDE - _MARGIN, n)] = 255
    labels = rng.integers(0, len(CLASSES), n)
    return auditors_data(pixels, labels, whose if patients else None)
