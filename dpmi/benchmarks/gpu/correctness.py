"""What must hold on a GPU before its speed counts: sums as defined, and the bound.

The fast engine clips the examples of a ResNet-18 on small images under each setting. Its norms and
clipped sums are compared with float64 on the CPU, where each example's gradient is made by itself.
What rounding may do is what it does to plain training, whose gradients under the same setting are
made on the same device, and clipped in float64.
"""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from hydra import compose, initialize_config_dir
from torch import Tensor

from dpmi.auditing.gradients import audit_gradients
from dpmi.auditing.result import rounded_down
from dpmi.benchmarks.gpu.settings import Setting
from dpmi.config.folder import config_dir
from dpmi.config.schema import load_config
from dpmi.mechanisms.layers import RULES
from dpmi.models.gradient import MeanGradient
from dpmi.models.network import ImageNetwork, build_network
from dpmi.privacy.engines.bookkeeping import BookKeeping
from dpmi.privacy.engines.rules import Sums
from dpmi.privacy.plan import ROUNDING

NORMS = ("frozen_batch", "group")
# What is checked, with a short title each: errors relative to float64, and contributions.
ERRORS = {"norms": "norms", "clipped sum": "clipped sum"}
ALONE, TOO_LITTLE, IN_A_BATCH, ONE_FEWER = (
    "one example alone, in units of C",
    "C, in units of one example alone",
    "one example in a batch, in units of C",
    "a batch beside one with an example fewer, in units of C",
)
CONTRIBUTIONS = {
    ALONE: "alone",
    TOO_LITTLE: "C / alone",
    IN_A_BATCH: "in a batch",
    ONE_FEWER: "one fewer",
}
_CLASSES, _SIDE, _EXAMPLES = 2, 32, 3
# Of plain training's error, what the engine's may be; and what float32 may do in any case.
_OF_PLAIN, _FLOAT32 = 2.0, 1e-4
# What the plan allows single precision, the other half being for the lattice.
BOUND = 1 + ROUNDING / 2
_CANARIES, _CONFIDENCE = 512, 0.999
# One step of all images, noise as large as the bound: an audit at sample rate 1.
_AUDITED = (
    *("mechanism=dpsgd", "mechanism.calibration=noise_multiplier", "mechanism.accountant=pld"),
    *("mechanism.delta=1e-4", "beta=0.5", "max_grad_norm=5", "data.batch_size=all"),
    *("trainer.max_epochs=1", "logger=csv", "model.prior=train"),
)


@dataclass(frozen=True)
class Check:
    """One figure, and what it may be.

    Attributes:
        what: was compared.
        where: the setting, and the norm layers.
        value: measured.
        limit: the most that is right; None where the figure has none.
    """

    what: str
    where: str
    value: float
    limit: float | None

    @property
    def holds(self) -> bool:
        """Whether it is within the limit; NaN is not."""
        return self.limit is None or self.value <= self.limit

    def __str__(self) -> str:
        """In one line."""
        what = f"error of the {self.what}, of float64" if self.what in ERRORS else self.what
        limit = "" if self.limit is None else f"; allowed is {self.limit:.7g} at most"
        return f"{self.where}: {what}: {self.value:.7g}{limit}"


def checks(device: torch.device, settings: Sequence[Setting]) -> Iterator[Check]:
    """All checks of the fast engine, one after another.

    Args:
        device: where it runs.
        settings: under each of which it is checked; compiled ones with one kind of norm layers.
    """
    torch.manual_seed(0)
    start = build_network("resnet18", _CLASSES, "batch", None, side=_SIDE).net.state_dict()
    images = torch.rand(_EXAMPLES, 1, _SIDE, _SIDE)
    labels = torch.arange(_EXAMPLES) % _CLASSES
    for norm in NORMS:
        net = build_network("resnet18", _CLASSES, norm, start, side=_SIDE).train()
        exact = _gradients(copy.deepcopy(net).double(), images.double(), labels, False)
        for setting in settings:
            if setting.compiled and norm != NORMS[0]:
                continue  # what is compiled lies between the layers, and takes a minute
            with setting.in_force():
                yield from _checked(
                    copy.deepcopy(net).to(device), images.to(device), labels.to(device),
                    [g.to(device) for g in exact], setting, f"{setting}, {norm}",
                )  # fmt: skip


def _checked(
    net: ImageNetwork,
    images: Tensor,
    labels: Tensor,
    exact: list[Tensor],
    setting: Setting,
    where: str,
) -> Iterator[Check]:
    if setting.channels_last:
        net = net.to(memory_format=torch.channels_last)
    plain = _gradients(net, images, labels, setting.autocast)
    norms, every = [_norm(gradient) for gradient in exact], range(len(labels))

    if not setting.compiled:
        with _clipping(net, setting, 10 * max(norms)) as clipped:  # none is clipped
            whole = [clipped(images[i : i + 1], labels[i : i + 1]) for i in every]
        yield _compared("norms", where, _norms(whole), _norms(plain), _norms(exact))
    bound = min(norms) / 2  # all are clipped
    with _clipping(net, setting, bound) as clipped:
        together = clipped(images, labels)
        # An image that is not a number contributes nothing, and leaves the shapes as they are.
        alone = [clipped(_without(images, [j for j in every if j != i]), labels) for i in every]
        others = [clipped(_without(images, [i]), labels) for i in every]
        rest = [[j for j in every if j != i] for i in every]
        fewer = [clipped(images[some], labels[some]) for some in rest]
    of_one = [_norm(one) / bound for one in alone]
    exactly = setting.precision == "float32"
    # Where products are rounded, an engine may keep a part of C for what that adds.
    spared = 0.0 if exactly else max(0.0, 1 / min(of_one) - 1)
    yield _compared(
        "clipped sum", where, [together], [_sum(plain, bound)], [_sum(exact, bound)], spared
    )
    yield Check(ALONE, where, _most(of_one), BOUND)
    yield Check(TOO_LITTLE, where, 1 / min(of_one), BOUND if exactly else None)
    moved = _most([_norm(together - some) / bound for some in others])
    yield Check(IN_A_BATCH, where, moved, BOUND)
    moved = _most([_norm(together - some) / bound for some in fewer])
    # Other shapes have other kernels, which round the other examples' gradients in another way.
    yield Check(ONE_FEWER, where, moved, BOUND if exactly else None)


def audited(device: torch.device) -> Check:
    """Audit a whole run on the device, of one step of all images, by canaries in gradient space.

    Returns:
        The bound from below on its ε, which holds with 99.9 %, beside the ε that it claims.

    Raises:
        UserError: the run did not complete.
    """
    accelerator = "cpu" if device.type == "cpu" else "gpu"
    with initialize_config_dir(config_dir(), version_base="1.3"):
        words = [*_AUDITED, f"trainer.accelerator={accelerator}"]
        config = load_config(compose("config", overrides=words))
    audit = audit_gradients(config, _CANARIES, seconds=0, confidence=_CONFIDENCE)
    what = f"ε of a run, from below ({rounded_down(audit.epsilon)} of {audit.claimed:.3g} claimed)"
    most = max(one.epsilon for one in audit.bounds.values())
    return Check(what, f"audit with {audit.canaries} canaries", most, audit.claimed)


def _compared(
    what: str,
    where: str,
    ours: Sequence[Tensor],
    plain: Sequence[Tensor],
    exact: Sequence[Tensor],
    spared: float = 0.0,
) -> Check:
    """The largest relative error, beside that of plain training and what was spared of C."""
    limit = max(_FLOAT32, _OF_PLAIN * _most(_errors(plain, exact))) + spared
    return Check(what, where, _most(_errors(ours, exact)), limit)


def _errors(some: Sequence[Tensor], exact: Sequence[Tensor]) -> list[float]:
    return [_norm(a - b) / _norm(b) for a, b in zip(some, exact, strict=True)]


def _most(values: Sequence[float]) -> float:
    return math.nan if any(map(math.isnan, values)) else max(values)


def _sum(gradients: Sequence[Tensor], bound: float) -> Tensor:
    """Σ_i clip_C(g_i), by the definition."""
    clipped = [g * min(1.0, bound / _norm(g)) for g in gradients]
    return torch.stack(clipped).sum(0)


def _gradients(net: ImageNetwork, images: Tensor, labels: Tensor, autocast: bool) -> list[Tensor]:
    """Each example's gradient, flat, made by itself and as plain training makes it."""
    found = []
    plain = MeanGradient(net)
    for image, label in zip(images.split(1), labels.split(1), strict=True):
        with torch.autocast(images.device.type, torch.bfloat16, enabled=autocast):
            plain(image, label)
        found.append(_flat([p.grad for p in net.parameters() if p.grad is not None]))
    net.zero_grad()
    return found


@contextlib.contextmanager
def _clipping(
    net: ImageNetwork, setting: Setting, bound: float
) -> Iterator[Callable[[Tensor, Tensor], Tensor]]:
    """The fast engine's clipped sum of a batch, flat, as it runs in training."""
    engine = BookKeeping(net, bound, RULES)
    if setting.compiled:  # after the engine, which changes how layers run
        torch.compiler.reset()  # else the kernels of earlier networks count against a limit
        net.compile(dynamic=True)

    def clipped(images: Tensor, labels: Tensor) -> Tensor:
        sums: Sums = {p: torch.zeros(p.shape, device=p.device) for p in net.parameters()}
        with torch.autocast(images.device.type, torch.bfloat16, enabled=setting.autocast):
            engine.add_clipped_sum(images, labels, sums, 1.0)
        return _flat(list(sums.values()))

    try:
        yield clipped
    finally:
        engine.close()


def _without(images: Tensor, chosen: Sequence[int]) -> Tensor:
    return images.index_fill(0, torch.tensor(chosen, device=images.device), math.nan)


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([t.detach().flatten() for t in tensors])


def _norm(flat: Tensor) -> float:
    return float(flat.norm(dtype=torch.float64))


def _norms(of: Sequence[Tensor]) -> list[Tensor]:
    return [torch.tensor(_norm(flat)) for flat in of]
