"""The door through which values come to a tracker, and so may leave the house."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from numpy.typing import NDArray
from pytorch_lightning.loggers import Logger
from rich.console import Console

from dpmi.base.redaction import redacted
from dpmi.privacy.guarantee import Guarantee
from dpmi.privacy.risk import Risk
from dpmi.run.logs.tracker import Summary, Tracker
from dpmi.run.logs.undefined import in_words, is_undefined
from dpmi.run.records.leaving import (
    leaving_metrics,
    public_config,
    public_guarantee,
    public_risk,
    refuse_unnamed,
)

SCOPE = {  # in a run's summary: which metrics it has, by whether all may leave
    True: "all metrics: those named nonprivate/ no ε covers",
    False: "what the guarantee covers, and statistics of the test images",
}


class Door(Logger):
    """Lets to a tracker what may leave; and where the tracker fails, says it once and goes on.

    Where not everything may leave, it lets out what ``dpmi.run.records.leaving`` lists and drops
    the rest; and metrics in one row at the end of the run, for the number of rows and their times
    would tell the sizes of the batches.

    Args:
        kind: of the tracker.
        start: makes the tracker.
        everything: what no ε covers may leave as well.
        console: shows a failure.
    """

    def __init__(
        self,
        kind: type[Tracker],
        start: Callable[[], Tracker],
        *,
        everything: bool,
        console: Console,
    ) -> None:
        super().__init__()
        self._kind, self._everything, self._console = kind, everything, console
        self._at_the_end: dict[str, Any] = {}
        self._tracker: Tracker | None = None
        self._attempt(lambda: setattr(self, "_tracker", start()))

    def _attempt(self, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:  # whatever the tracker does, training goes on
            self._tracker = None
            why = redacted(" ".join(f"{type(error).__name__}: {error}".split()))
            self._console.print(
                f"{self._kind.TITLE} stopped working ({why}); training goes on, "
                f"metrics are in metrics.csv{self._kind.AFTER}",
                style="yellow",
                markup=False,
            )

    @property
    def working(self) -> bool:
        """Whether the tracker has not failed so far."""
        return self._tracker is not None

    @property
    def name(self) -> str:
        """Kind of tracker."""
        return self._kind.TITLE

    @property
    def version(self) -> str | None:
        """The tracker's name for the run."""
        return self._tracker.version if self._tracker else None

    def log_hyperparams(
        self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any
    ) -> None:
        """Log those keys of a config, in plain values, that may leave."""
        values = vars(params) if isinstance(params, Namespace) else params
        if tracker := self._tracker:
            self._attempt(lambda: tracker.log_config(public_config(values)))

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log metrics of a step, or keep those that may leave until the end.

        Those that are not defined are left out: a chart has no place for them.

        Raises:
            UserError: a name does not say what covers its value.
        """
        refuse_unnamed(metrics)
        defined = {name: value for name, value in metrics.items() if not is_undefined(value)}
        if not self._everything:
            self._at_the_end |= leaving_metrics(defined)
        elif tracker := self._tracker:
            self._attempt(lambda: tracker.log_metrics(defined, step))

    def log_images(self, key: str, images: list[NDArray[Any]], captions: list[str]) -> None:
        """Log images (H, W, C) uint8 with a caption each, where everything may leave."""
        if self._everything and (tracker := self._tracker):
            self._attempt(lambda: tracker.log_images(key, images, captions))

    def summarise(
        self, guarantee: Guarantee, risk: Sequence[Risk], metrics: Mapping[str, float]
    ) -> None:
        """Put guarantee, bounds on an attacker and metrics into the summary, and which may leave.

        Of the bounds all but the curve, by unit. A metric that is not defined is there as the word.
        """
        values = metrics if self._everything else leaving_metrics(metrics)
        bounds = {one.unit: one.to_dict() for one in public_risk(risk)}
        summary = Summary(
            guarantee=public_guarantee(guarantee).to_dict(),
            risk={
                unit: {key: value for key, value in its.items() if key != "curve"}
                for unit, its in bounds.items()
            },
            metrics=in_words(values),
            scope=SCOPE[self._everything],
        )
        if tracker := self._tracker:
            self._attempt(lambda: tracker.summarise(summary))

    def finish(self, failed: bool) -> None:
        """End the run."""
        if tracker := self._tracker:
            self._attempt(lambda: self._end(tracker, failed))

    def _end(self, tracker: Tracker, failed: bool) -> None:
        if self._at_the_end:
            tracker.log_metrics(self._at_the_end, None)
        tracker.finish(failed)
