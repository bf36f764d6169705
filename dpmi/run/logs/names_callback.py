"""Nothing computed on training images is logged under a name that hides it."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as L

from dpmi.run.logs.often import looks_at
from dpmi.run.records.leaving import refuse_unnamed


class NamedForWhatCoversIt(L.Callback):
    """Refuses values that are logged under a name that does not say what covers them.

    Also those that go to no logger, but to the screen or to other callbacks. Must stand after the
    callbacks that log.

    Raises:
        UserError: after the step, or the evaluation, that logged one.
    """

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        """Look at what the step logged, where its values are logged, too."""
        if looks_at(trainer):
            refuse_unnamed(_logged(trainer))

    def on_train_epoch_end(self, trainer: L.Trainer, *_: Any) -> None:
        """Look at what the epoch logged, its validation too."""
        refuse_unnamed(_logged(trainer))

    def on_test_epoch_end(self, trainer: L.Trainer, *_: Any) -> None:
        """Look at what the evaluation logged."""
        refuse_unnamed(_logged(trainer))


def _logged(trainer: L.Trainer) -> set[str]:
    return trainer.callback_metrics.keys() | trainer.progress_bar_metrics.keys()
