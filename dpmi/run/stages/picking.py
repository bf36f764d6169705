"""The stage that picks what trainer=auto leaves open, by timing a few steps of made images.

What is timed sees no image of the user, draws from no generator of the run and releases nothing:
neither its noise nor its batches depend on it. What was picked is kept with the run's state before
anything is released, so that a run that is resumed picks the same, and is in its record.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from dpmi.config.schema import Config
from dpmi.config.sections import DpsgdMechanism
from dpmi.data.prepare import PreparedData
from dpmi.mechanisms import batch_images, clipping_engine, epochs
from dpmi.models.gradient import MeanGradient
from dpmi.privacy.gradients import ran_out_of_memory
from dpmi.run.before import lacks_compiler
from dpmi.run.durability.resume import Resumption
from dpmi.run.parts import network
from dpmi.run.stages.context import Context
from dpmi.run.stages.images import Inputs

Precision = Literal["32-true", "bf16-mixed"]
_PRECISIONS: tuple[Precision, ...] = ("32-true", "bf16-mixed")
_ROUNDS = 3  # timed, after one that warms up
_FASTER = 0.95  # of the time of what is simpler: less is noise
_WORTH_COMPILING = 600.0  # seconds of training: compiling takes a minute or two
_IMAGES = {"cpu": 16, "cuda": 256}  # at most, in a step that is timed


@dataclass(frozen=True)
class Choice:
    """What is picked, under the names of the config's keys."""

    precision: Precision
    channels_last: bool = False
    compile: bool = False

    def __str__(self) -> str:
        words = [self.precision, "channels last"[: 13 * self.channels_last]]
        return ", ".join(filter(None, [*words, "compiled" * self.compile]))


def settle(context: Context, data: PreparedData, inputs: Inputs, begun: Resumption) -> Context:
    """Give what the config leaves open a value: as the run has it already, or by timing.

    Returns:
        The context, its config with values in place of "auto"; as it was where nothing is open.
    """
    trainer = context.config.trainer
    if not trainer.open:
        return context
    ranks, state = context.ranks, begun.state
    picked = state.picked
    if picked is None:
        with context.timed("pick"):
            picked = ranks.from_first(lambda: _picked(context, data, inputs))
        if ranks.is_first:
            begun.keep_picked(picked)
    if ranks.is_first:
        context.console.print(f"trainer=auto: {picked['why']}", markup=False)
    values = {key: picked[key] for key in trainer.open}
    config = context.config.model_copy(update={"trainer": trainer.model_copy(update=values)})
    return replace(context, config=config, picked=picked)


def _picked(context: Context, data: PreparedData, inputs: Inputs) -> dict[str, Any]:
    config = context.config
    if config.model.train == "head":
        only = next(_allowed(config))  # one product of matrices, which has no layout
        return asdict(only) | {"why": f"{only} (a head takes no time worth saving)", "seconds": {}}
    device = torch.device("cpu" if context.device == "cpu" else "cuda")
    given = context.given.net if context.given else None
    with torch.random.fork_rng(), torch.enable_grad():
        start = inputs.start.pretrained
        net = given or network(config, len(data.classes), start, inputs.features, data.channels)
        timing = Timing(config, net, data.channels, len(data.classes), device)
        seconds = timing.compared(list(_allowed(config)))
        best = fastest(seconds)
        steps = -(-inputs.train.n // batch_images(config, inputs.train.n)) * epochs(config)
        if _may_compile(config, device.type, steps * seconds[best]):
            compiled = replace(best, compile=True)
            seconds |= timing.compared([best, compiled])
            best = fastest(seconds)
    by_choice = {str(choice): took for choice, took in seconds.items()}
    others = ", ".join(f"{c} {_ms(t)}" for c, t in by_choice.items() if c != str(best))
    why = f"{best}: {_ms(by_choice[str(best)])} a step of {timing.images} made images"
    return asdict(best) | {"why": f"{why} ({others})" if others else why, "seconds": by_choice}


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.3g} ms"


def _allowed(config: Config) -> Iterator[Choice]:
    """What may be picked, what is simplest first; compiled code is left for later."""
    trainer, fixed = config.trainer, config.trainer.compile is True
    for precision in _PRECISIONS:
        for channels_last in (False, True):
            if trainer.precision in ("auto", precision) and trainer.channels_last in (
                "auto",
                channels_last,
            ):
                yield Choice(precision, channels_last, fixed)


def _may_compile(config: Config, device: str, seconds: float) -> bool:
    """Whether compiled code is worth trying: on a processor it is slower, and takes a minute."""
    mechanism: Any = config.mechanism
    hooks = mechanism.name == "dpsgd_published" or getattr(mechanism, "engine", "") == "opacus"
    if config.trainer.compile != "auto" or device == "cpu" or hooks:
        return False
    return seconds > _WORTH_COMPILING and lacks_compiler(device) is None


def fastest(seconds: dict[Choice, float]) -> Choice:
    """The first whose time no other undercuts by more than noise.

    Args:
        seconds: of a step by each choice, what is simplest first.
    """
    best, *others = seconds
    for choice in others:
        if seconds[choice] < _FASTER * seconds[best]:
            best = choice
    return best


class Timing:
    """Steps of made images by several choices, in turn.

    Args:
        config: of the run.
        net: as it will be trained; copied.
        channels: of its images.
        classes: of its labels.
        device: that will train.

    Attributes:
        images: in a step, halved until memory holds it.
    """

    def __init__(
        self, config: Config, net: nn.Module, channels: int, classes: int, device: torch.device
    ) -> None:
        self._config, self._net, self._device = config, net, device
        self._shape = (channels, config.data.image_size, config.data.image_size)
        self._classes = classes
        batch, most = config.data.batch_size, _IMAGES[device.type]
        piece = config.max_physical_batch_size
        bounds = [most, *(size for size in (batch, piece) if isinstance(size, int))]
        self.images = min(bounds)

    def compared(self, choices: list[Choice]) -> dict[Choice, float]:
        """Seconds of a step by each, medians of rounds in which each has its turn."""
        while True:
            try:
                steps = {choice: self._step(choice) for choice in choices}
                took: dict[Choice, list[float]] = {choice: [] for choice in choices}
                for number in range(1 + _ROUNDS):
                    for choice, step in steps.items():
                        started = time.perf_counter()
                        step()
                        if number:
                            took[choice].append(time.perf_counter() - started)
                return {choice: statistics.median(each) for choice, each in took.items()}
            except (RuntimeError, MemoryError) as error:
                if self.images == 1 or not ran_out_of_memory(error):
                    raise
                self.images //= 2

    def _step(self, choice: Choice) -> Callable[[], None]:
        net = copy.deepcopy(self._net).to(self._device).train()
        if choice.channels_last:
            net = net.to(memory_format=torch.channels_last)
        generator = torch.Generator().manual_seed(0)
        views = self._config.data.multiplicity
        shape = (self.images, *([views] if views > 1 else []), *self._shape)
        images = torch.rand(shape, generator=generator).to(self._device)
        labels = (torch.arange(self.images) % self._classes).to(self._device)
        gradient = self._gradient(net)
        if choice.compile:
            net.compile(dynamic=True)
        on_gpu, bfloat16 = self._device.type == "cuda", choice.precision == "bf16-mixed"

        def step() -> None:
            with torch.autocast(self._device.type, torch.bfloat16, enabled=bfloat16):
                gradient(images, labels)
            if on_gpu:
                torch.cuda.synchronize()

        return step

    def _gradient(self, net: nn.Module) -> Callable[[Tensor, Tensor], object]:
        """Clipped sums, without noise and ledger; without DP-SGD the mean gradient."""
        if not isinstance(self._config.mechanism, DpsgdMechanism):
            return MeanGradient(net)
        engine = clipping_engine(self._config.mechanism.engine, net, self._config.max_grad_norm)
        sums: dict[Tensor, Tensor] = {
            p: torch.zeros(p.shape, device=p.device) for p in net.parameters() if p.requires_grad
        }
        return lambda images, labels: engine.add_clipped_sum(images, labels, sums, 1.0)
