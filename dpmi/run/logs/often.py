"""At which steps the values of a step are looked at: to be logged, shown, and checked."""

from __future__ import annotations

import pytorch_lightning as L

_ON_A_DEVICE = 10


def steps_between_looks(device: str) -> int:
    """Every step on the processor; on a GPU every tenth, for looking at a value waits for it.

    Args:
        device: "cpu", or the name of a GPU.
    """
    return 1 if device == "cpu" else _ON_A_DEVICE


def looks_at(trainer: L.Trainer) -> bool:
    """Whether the step that was just taken is one of them, or training stops, or is not on."""
    every: int = getattr(trainer, "log_every_n_steps")  # noqa: B009  # set by Lightning, untyped
    return not trainer.training or trainer.should_stop or trainer.global_step % every == 0
