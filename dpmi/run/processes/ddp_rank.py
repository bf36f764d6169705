"""One of the processes that train a run together: how it joins the others, and how it ends."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
import time
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
import torch.distributed as dist
from filelock import FileLock

from dpmi.base.errors import UserError
from dpmi.base.ranks import Ranks
from dpmi.base.redaction import redact_logs
from dpmi.config.schema import Config

if TYPE_CHECKING:  # it brings Lightning
    from dpmi.run.given import Given

HOST = "127.0.0.1"
# Who waits for the others is not stuck: they may be writing a checkpoint, or syncing with W&B. That
# one of them has died is noticed by who started them all.
PATIENCE = timedelta(days=1)
_log = logging.getLogger(__name__)
_LOG_FORMAT = "[%(asctime)s][%(name)s][%(levelname)s] - %(message)s"  # as Hydra's


@dataclass(frozen=True)
class Outcome:
    """What a process reports before it ends.

    Attributes:
        status: of its run.
        reason: why it did not complete.
        at: when, by the machine's monotonic clock.
        recorded: its record is written.
    """

    status: Literal["completed", "failed", "interrupted"]
    reason: str | None
    at: float
    recorded: bool


def work(
    config: Config,
    folder: Path,
    ranks: Ranks,
    port: int,
    threads: int,
    outcomes: Connection,
    given: Given | None,
) -> None:
    """Train with the others, in a process of its own.

    Args:
        config: the checked config.
        folder: the job's folder.
        ranks: which process this is.
        port: of the store, on this machine, where the processes find each other.
        threads: of an operation.
        outcomes: where the outcome goes.
        given: images and network in place of the config's.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who started this process hears it, too
    threading.Thread(target=_die_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    log = folder / "train.log"
    logging.basicConfig(filename=log, level=logging.INFO, format=_LOG_FORMAT, force=True)
    redact_logs()
    _log.info("process %d of %d has pid %d", ranks.rank + 1, ranks.size, os.getpid())
    # Not before: Lightning and Opacus speak to the terminal where nobody has set up logging.
    from rich.console import Console

    from dpmi.run.durability.job_folder import LOCK_FILE
    from dpmi.run.durability.stopping import StoppedByRequest
    from dpmi.run.job import Run

    console = Console() if ranks.is_first else Console(quiet=True, force_terminal=False)
    lock = FileLock(folder / f"{LOCK_FILE}-{ranks.rank}")
    status: Literal["completed", "failed", "interrupted"] = "failed"
    reason: str | None = None
    recorded = ranks.is_first
    with lock:  # the processes of a job that was killed may need a moment to notice
        try:
            _join(ranks, port, config.trainer.accelerator)
            record = Run(config, folder, console, ranks, given).execute()
            status, reason = record.status, record.reason
        except StoppedByRequest:
            status = "interrupted"
        except UserError as error:  # the record cannot be written
            reason, recorded = str(error), False
        except Exception as error:
            _log.exception("the process failed")
            reason, recorded = f"{type(error).__name__}: {error}", False
        outcomes.send(Outcome(status, reason, time.monotonic(), recorded))
        outcomes.close()
    if status != "completed":
        os._exit(1)  # the others may never come to where the group could be left together
    dist.destroy_process_group()


def _join(ranks: Ranks, port: int, accelerator: str) -> None:
    """Meet the others; whole numbers travel by gloo in any case."""
    on_gpu = accelerator != "cpu" and torch.cuda.is_available()
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if on_gpu else "gloo",
        store=dist.TCPStore(HOST, port, is_master=False, timeout=PATIENCE),
        rank=ranks.rank,
        world_size=ranks.size,
        timeout=PATIENCE,
    )


def _die_with_parent() -> None:
    """Nobody would supervise these processes any more, nor hold the folder's lock."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGKILL)
