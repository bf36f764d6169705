"""Settings of a GPU that change how a step is computed, and not what."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch

_TENSOR_CORES = (8, 0)  # compute capability from which there are TF32 and bfloat16 (Ampere)


@dataclass(frozen=True)
class Setting:
    """How forward and backward passes run.

    Attributes:
        precision: float32; TF32, whose factors have 11 bits; or bf16, under autocast.
        channels_last: in memory.
        compiled: by torch.compile.
    """

    precision: str
    channels_last: bool = False
    compiled: bool = False

    def __str__(self) -> str:
        """As ``bf16, compiled``."""
        words = [self.precision]
        words += ["channels last"] * self.channels_last + ["compiled"] * self.compiled
        return ", ".join(words)

    @property
    def autocast(self) -> bool:
        """Whether passes run in bfloat16."""
        return self.precision == "bf16"

    @contextlib.contextmanager
    def in_force(self) -> Iterator[None]:
        """Let float32 products be rounded to TF32, or not, whatever torch's defaults are."""
        matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
        before = matmul.allow_tf32, cudnn.allow_tf32
        matmul.allow_tf32 = cudnn.allow_tf32 = self.precision == "TF32"
        try:
            yield
        finally:
            matmul.allow_tf32, cudnn.allow_tf32 = before


_ALL = (  # the most important first
    Setting("bf16", compiled=True),
    Setting("float32"),
    Setting("TF32"),
    Setting("bf16"),
    Setting("bf16", channels_last=True),
    Setting("bf16", channels_last=True, compiled=True),
    Setting("float32", channels_last=True),
)
_ON_A_CPU = (Setting("bf16", channels_last=True), Setting("float32"))


def settings_of(device: torch.device) -> tuple[Setting, ...]:
    """What is measured there.

    On a CPU, where the bench is only tried, neither TF32, which it does not have, nor compiled
    code, which takes it minutes; on a GPU without tensor cores for them neither TF32 nor bf16.
    """
    if device.type == "cpu":
        return _ON_A_CPU
    if torch.cuda.get_device_capability(device) < _TENSOR_CORES:
        return tuple(s for s in _ALL if s.precision == "float32")
    return _ALL
