"""SIGTERM: a batch scheduler or a shutdown wants the machine back."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class StoppedByRequest(BaseException):
    """The process was asked to end; the run can be resumed. No ``except Exception`` catches it."""


class StopRequest:
    """While it is entered, SIGTERM raises :class:`StoppedByRequest`, or waits for the right moment.

    Attributes:
        received: SIGTERM came.
    """

    def __init__(self) -> None:
        self.received = False
        self._waits = False
        self._before: Any = None

    def __enter__(self) -> StopRequest:
        """Listen; only the main thread may."""
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._hear)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Leave the signal as it was."""
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)

    def wait_for_the_step(self) -> None:
        """From now on a request waits until somebody asks for ``received``."""
        self._waits = True
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._hear)  # Lightning has put its own in its place

    def wait_no_longer(self) -> None:
        """From now on a request ends what is going on."""
        self._waits = False
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._hear)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self.received = True
        if not self._waits:
            raise StoppedByRequest
