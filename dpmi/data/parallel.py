"""Threads for work that releases the interpreter's lock: reading, hashing, decoding, resizing."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

# A task of one image would spend a tenth of its time in the queue, at a small image's 0.5 ms.
_IMAGES_PER_TASK = 16
_TASKS_AHEAD = 4  # per thread: enough to stay busy while a slow image holds up the order


def cpu_count() -> int:
    """Processors this process may use (a container or a batch scheduler may grant fewer)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def in_threads(work: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    """Yield ``work(item)`` for each item, in order, computed by one thread per processor.

    The first error in the order of the items is raised, whichever thread met one first, so that
    a message names the same image at every try; what has not begun by then is dropped. Results
    wait for their turn in a window of bounded length, not all in memory.
    """
    threads = cpu_count()

    def task(start: int) -> list[Result]:
        return [work(item) for item in items[start : start + _IMAGES_PER_TASK]]

    pending: deque[Future[list[Result]]] = deque()
    with ThreadPoolExecutor(max_workers=threads) as pool:
        try:
            for start in range(0, len(items), _IMAGES_PER_TASK):
                pending.append(pool.submit(task, start))
                if len(pending) > _TASKS_AHEAD * threads:
                    yield from pending.popleft().result()
            while pending:
                yield from pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
