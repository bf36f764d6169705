"""A Ray cluster, or a Ray of this machine's own: each job asks for its resources."""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
from collections.abc import Sequence
from typing import Any

from omegaconf import OmegaConf

from dpmi.base.errors import EXIT_FAILED_RUNS, EXIT_INTERRUPTED, UserError
from dpmi.launch.jobs import Ending, Job, work
from dpmi.launch.launcher import SideBySideLauncher, devices_of, whole_number

_ADDRESS = re.compile(r"auto|[\w.\-\[\]:]+:\d+")  # any other scheme names a module to import
CONNECT_SECONDS = 10.0  # Ray itself would go on trying for minutes
_OBJECT_STORE_BYTES = 100 * 2**20  # jobs hand over nothing but how they ended


class RayLauncher(SideBySideLauncher):
    """Runs each job as a Ray task, in a new process on the node that has its resources.

    A task whose process or node dies is started again elsewhere by Ray, and goes on from the
    checkpoint in the job's folder, which all nodes must see.

    Args:
        address: of the cluster, "auto" for the one that this machine belongs to; None for a Ray
            of this machine's own, which ends with the sweep.
        cpus, gpus, memory_gb, resources: of a job; None for GPUs: one a
            device of a run, where there are some.
        retries: how often a job whose process died is started again.
    """

    def __init__(
        self, address: Any, cpus: Any, gpus: Any, memory_gb: Any, resources: Any, retries: Any
    ) -> None:
        super().__init__()
        self._address, self._retries = address, retries
        self._cpus, self._gpus, self._memory_gb = cpus, gpus, memory_gb
        self._resources: Any = resources
        self._running: dict[Any, Job] = {}

    def check(self) -> None:
        """Connect."""
        whole_number("cpus", self._cpus, 1)
        whole_number("gpus", self._gpus, 0, or_null=True)
        whole_number("memory_gb", self._memory_gb, 1, or_null=True)
        whole_number("retries", self._retries, 0)
        if OmegaConf.is_config(self._resources):
            self._resources = OmegaConf.to_container(self._resources)
        if not isinstance(self._resources, dict):
            raise UserError(
                f"hydra.launcher.resources={self._resources}: allowed is {{NAME: NUMBER}}"
            )
        address = self._address
        if address is not None and not _ADDRESS.fullmatch(str(address)):
            raise UserError(
                f"hydra.launcher.address={address}: allowed are auto, HOST:PORT, or null for a Ray "
                "of this machine's own"
            )
        self._connect(address)
        if self._gpus is None:
            wanted = self.config.trainer.accelerator != "cpu"
            there = wanted and self._ray.cluster_resources().get("GPU")
            self._gpus = devices_of(self.config) if there else 0

    def _connect(self, address: str | None) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray would send statistics
        try:
            import ray
        except ImportError as error:
            raise UserError(
                "hydra/launcher=ray: Ray is not installed; pip install 'dpmi[ray]'"
            ) from error
        own: dict[str, Any] = {
            "include_dashboard": False,
            "object_store_memory": _OBJECT_STORE_BYTES,
        }
        try:
            if address not in (None, "auto"):
                host, _, port = str(address).rpartition(":")
                socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
            ray.init(
                address=address or "local",
                log_to_driver=False,  # a job writes to its own log
                logging_level=logging.ERROR,
                **({} if address else own),
            )
        except (OSError, RuntimeError, ValueError) as error:
            line = " ".join(str(error).split())
            raise UserError(f"hydra.launcher.address={address}: no Ray there ({line})") from error
        self._ray = ray

    def begin(self, jobs: Sequence[Job]) -> None:
        """Submit them all; Ray lets them wait."""
        memory = {} if self._memory_gb is None else {"memory": self._memory_gb * 2**30}
        remote = self._ray.remote(
            num_cpus=self._cpus,
            num_gpus=self._gpus,
            resources=self._resources,
            max_retries=self._retries,
            max_calls=1,  # a process for each job
            **memory,
        )
        task = remote(_work_on_node)
        self._warn_if_no_node_has_them()
        for job in jobs:
            self._running[task.remote(job, self._gpus)] = job

    def _warn_if_no_node_has_them(self) -> None:
        requested = {"CPU": self._cpus, "GPU": self._gpus, **self._resources}
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        if not any(all(n.get(name, 0) >= requested[name] for name in requested) for n in nodes):
            needed = ", ".join(f"{name} {number}" for name, number in requested.items() if number)
            self.note(f"no node of the cluster has {needed}: the jobs wait until one has")

    def poll(self, seconds: float) -> list[tuple[Job, Ending]]:
        """Wait for Ray."""
        tasks = list(self._running)
        if not tasks:
            return []
        self._ray.wait(tasks, timeout=seconds)
        ready, _ = self._ray.wait(tasks, num_returns=len(tasks), timeout=0)
        self.notice_starts(self._running.values())
        return [(self._running.pop(task), self._ending(task)) for task in ready]

    def _ending(self, task: Any) -> Ending:
        try:
            ending: Ending = self._ray.get(task)
        except self._ray.exceptions.TaskCancelledError:
            return Ending(EXIT_INTERRUPTED)
        except self._ray.exceptions.RayError as error:
            return Ending(EXIT_FAILED_RUNS, f"Ray gave it up: {_one_line(error)}")
        return ending

    def stop(self, number: int) -> None:
        """Cancel all: those that run are interrupted, or killed."""
        for task in self._running:
            self._ray.cancel(task, force=number == signal.SIGKILL)

    @property
    def running(self) -> int:
        """Tasks that have not ended."""
        return len(self._running)


def _one_line(error: Exception) -> str:
    """One line for an error: of one in a task Ray gives a whole stack, the cause last."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[-1] if hasattr(error, 'cause') else lines[0]}"


def _work_on_node(job: Job, gpus: int) -> Ending:
    """Run a job in a Ray worker, which has the GPUs that Ray gave it and no other."""
    # A Ray that was started in the background of a shell is deaf to what cancels a task.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if not gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # Ray would leave all of them in sight
    return work(job)
