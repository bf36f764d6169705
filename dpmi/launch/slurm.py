"""SLURM, by submitit: each job of the sweep is one of an array."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dpmi.base.errors import EXIT_FAILED_RUNS, EXIT_INTERRUPTED, UserError
from dpmi.launch.jobs import Ending, Job, work
from dpmi.launch.launcher import SideBySideLauncher, whole_number

CLUSTERS = ("slurm", "local")
_SIGNAL_SECONDS = 120  # from the signal that SLURM sends before it kills to the kill


class SubmititLauncher(SideBySideLauncher):
    """Submits the jobs and waits for them.

    A job that runs out of its time, or is preempted, is put into the queue again by submitit, and
    goes on from the checkpoint in its folder.

    Args:
        cluster: "slurm"; "local" for processes on this machine's processor, without SLURM.
        partition, account, qos, constraint, gres: as SLURM knows them; None for its defaults.
        cpus, gpus, memory_gb, minutes: of a job; None for SLURM's defaults.
        parallel: most jobs at a time.
        retries: how often a job that ran out of its time is queued again.
    """

    def __init__(
        self,
        cluster: Any,
        partition: Any,
        account: Any,
        qos: Any,
        constraint: Any,
        gres: Any,
        cpus: Any,
        gpus: Any,
        memory_gb: Any,
        minutes: Any,
        parallel: Any,
        retries: Any,
    ) -> None:
        super().__init__()
        self._cluster, self._parallel, self._retries = cluster, parallel, retries
        self._cpus, self._gpus, self._memory_gb, self._minutes = cpus, gpus, memory_gb, minutes
        self._of_slurm = {
            "slurm_partition": partition,
            "slurm_account": account,
            "slurm_qos": qos,
            "slurm_constraint": constraint,
            "slurm_gres": gres,
        }
        self._running: dict[int, tuple[Job, Any]] = {}

    def check(self) -> None:
        """Find SLURM."""
        if self._cluster not in CLUSTERS:
            raise UserError(
                f"hydra.launcher.cluster={self._cluster}: allowed are {' and '.join(CLUSTERS)}"
            )
        for name in ("cpus", "memory_gb", "minutes", "parallel"):
            whole_number(name, getattr(self, f"_{name}"), 1, or_null=name != "minutes")
        whole_number("gpus", self._gpus, 0, or_null=True)
        whole_number("retries", self._retries, 0)
        # submitit writes them into a script. What a config refers to may have more lines than it.
        written = {f"launcher.{k.removeprefix('slurm_')}": v for k, v in self._of_slurm.items()}
        for key, value in (written | {"sweep.dir": self.config.hydra.sweep.dir}).items():
            if len(str(value).splitlines()) > 1:
                raise UserError(f"hydra.{key}: has several lines; allowed is one line")
        try:
            import submitit
        except ImportError as error:
            raise UserError(
                "hydra/launcher=submitit_slurm: submitit is not installed; pip install "
                "'dpmi[slurm]'"
            ) from error
        if self._cluster == "slurm" and submitit.SlurmExecutor.affinity() < 0:
            raise UserError(
                "hydra.launcher.cluster=slurm: no SLURM here (srun is not found); start the sweep "
                "on a machine that submits to it"
            )
        self._submitit = submitit

    def begin(self, jobs: Sequence[Job]) -> None:
        """Submit them all."""
        folder = Path(str(self.config.hydra.sweep.dir)).absolute() / ".submitit" / "%j"
        executor = self._submitit.AutoExecutor(
            folder=folder,
            cluster=self._cluster,
            **{f"{self._cluster}_max_num_timeout": self._retries},
        )
        executor.update_parameters(
            name=f"dpmi-{folder.parents[1].name}",
            timeout_min=self._minutes,
            cpus_per_task=self._cpus,
            gpus_per_node=self._gpus if self._cluster == "slurm" else 0,  # there they would share
            mem_gb=self._memory_gb,
            tasks_per_node=1,
            nodes=1,
            slurm_array_parallelism=self._parallel,
            slurm_signal_delay_s=_SIGNAL_SECONDS,
            **self._of_slurm,
        )
        submitted = executor.map_array(Submitted(), jobs)
        self._running = {
            job.number: (job, handle) for job, handle in zip(jobs, submitted, strict=True)
        }

    def poll(self, seconds: float) -> list[tuple[Job, Ending]]:
        """Ask for results, which appear as files, and now and then SLURM for the rest."""
        time.sleep(seconds)
        self.notice_starts([job for job, _ in self._running.values()])
        ready = [pair for pair in self._running.values() if pair[1].done()]
        for job, _ in ready:
            del self._running[job.number]
        return [(job, self._ending(handle)) for job, handle in ready]

    def _ending(self, handle: Any) -> Ending:
        try:
            ending: Ending = handle.result()
        except self._submitit.core.utils.UncompletedJobError:
            state = str(handle.state)
            if state.startswith("CANCELLED"):
                return Ending(EXIT_INTERRUPTED)
            return Ending(
                EXIT_FAILED_RUNS, f"job {handle.job_id} left no result ({state}); its process died"
            )
        except self._submitit.core.utils.FailedJobError as error:
            line = next(iter(str(error).strip().splitlines()), "")
            return Ending(EXIT_FAILED_RUNS, f"job {handle.job_id}: {line}")
        return ending

    def stop(self, number: int) -> None:
        """Cancel all."""
        for _, handle in self._running.values():
            handle.cancel(check=False)

    @property
    def running(self) -> int:
        """Jobs that have not ended."""
        return len(self._running)


class Submitted:
    """What runs on a node; pickled there and back when the job is queued again."""

    requeued = False

    def __call__(self, job: Job) -> Ending:
        """Run a job; one that is queued again leaves no result yet."""
        from submitit.local.local import LOCAL_REQUEUE_RETURN_CODE

        ending = work(job)
        if self.requeued:
            sys.exit(LOCAL_REQUEUE_RETURN_CODE)  # SLURM has requeued it: any status will do
        return ending

    def checkpoint(self, job: Job) -> Any:
        """Be queued again, as submitit asks on a signal that comes before the kill."""
        import submitit

        Submitted.requeued = True
        return submitit.helpers.DelayedSubmission(Submitted(), job)
