"""Train one run, or a sweep of them.

    python -m dpmi.train mechanism=ldp beta=2
    python -m dpmi.train -m mechanism=ldp,dpsgd beta=1,2,4
    python -m dpmi.train -m data=chest_xray data.root=PATH mechanism=none,ldp,dpsgd beta=1,2,4

The same command again continues where it stopped, and runs nothing twice. Exit status: 0 done, 1 a
run failed, 2 bad input, 75 stopped by SIGTERM or busy (repeat the command), 130 interrupted.

A sweep runs its jobs one after another, or in parallel with hydra/launcher=local_pool, ray or
submitit_slurm. hydra/sweeper=optuna searches for the best values on synthetic images
(docs/operations.md).
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from dpmi.base.errors import (
    EXIT_BAD_INPUT,
    EXIT_FAILED_RUNS,
    EXIT_INTERRUPTED,
    EXIT_RESUMABLE,
    UserError,
)
from dpmi.base.loading import loading
from dpmi.base.redaction import redact_logs, redacted, secret_within
from dpmi.base.threads import let_idle_threads_sleep
from dpmi.config.composing import with_home
from dpmi.config.composition import TARGETS, guard_hydra
from dpmi.config.extras import require_extras
from dpmi.config.folder import config_dir
from dpmi.config.mistakes import explain
from dpmi.config.schema import load_config
from dpmi.launch.local_pool import LocalPoolLauncher
from dpmi.launch.ray_cluster import RayLauncher
from dpmi.launch.slurm import SubmititLauncher
from dpmi.launch.sweep import DistinctCells
from dpmi.run.before import make_folder, refuse_on_this_machine
from dpmi.search.sweeper import OptunaSearch


def job(composed: DictConfig) -> str:
    """Run one job; return its status."""
    redact_logs()
    config = load_config(composed)
    require_extras(config)
    _keep_libraries_in(Path(config.cache_dir))
    let_idle_threads_sleep()
    refuse_on_this_machine(config)  # again: a launcher may have taken the job to another
    with loading():  # torch: not to print help or to compose a config
        from dpmi.run.durability.stopping import StoppedByRequest
        from dpmi.run.screen.terminal import BUSY, run_job

    hydra_config = HydraConfig.get()
    try:
        status = run_job(config, Path(hydra_config.runtime.output_dir), hydra_config.overrides.task)
    except StoppedByRequest:
        print("stopped by SIGTERM; the same command continues", file=sys.stderr)
        sys.exit(EXIT_RESUMABLE)
    if hydra_config.mode == hydra.types.RunMode.RUN:  # in a sweep the others go on
        if status == "failed":
            sys.exit(EXIT_FAILED_RUNS)
        if status == BUSY:
            sys.exit(EXIT_RESUMABLE)
    return status


# Not as a decorator, which would hide the job from the processes that look it up by its name.
_run = hydra.main(version_base="1.3", config_path=config_dir(), config_name="config")(job)


def _keep_libraries_in(cache_dir: Path) -> None:
    """Give libraries a place for what they would leave in the home or in /tmp when imported."""
    make_folder("cache_dir", cache_dir)
    for variable, folder in (("MPLCONFIGDIR", "matplotlib"), ("TORCHINDUCTOR_CACHE_DIR", "torch")):
        os.environ.setdefault(variable, str(cache_dir / folder))


def _forget_namesakes() -> None:
    """Let no launcher or sweeper of a plugin that is installed, too, hold ours to its schema."""
    for own in Path(config_dir(), "hydra").glob("*/*.yaml"):
        ConfigStore.instance().repo.get("hydra", {}).get(own.parent.name, {}).pop(own.name, None)


def _stop_between_jobs(*_: object) -> None:
    """While no run is at work, which would write a checkpoint first, there is nothing to save."""
    sys.exit(EXIT_RESUMABLE)


def main() -> None:
    """Compose, check, run; every mistake of the user is one line."""
    signal.signal(signal.SIGTERM, _stop_between_jobs)
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # let errors come here instead of being printed
    guard_hydra()
    # Hydra asks that plugins lie in a package hydra_plugins; here a list of whole names says more.
    Plugins.is_in_toplevel_plugins_module = staticmethod(  # type: ignore[assignment]
        TARGETS.__contains__
    )
    _forget_namesakes()
    for plugin in (
        *(DistinctCells, OptunaSearch),
        *(LocalPoolLauncher, RayLauncher, SubmititLauncher),
    ):
        Plugins.instance().register(plugin)
    try:
        for number, argument in enumerate(sys.argv[1:], 1):
            if name := secret_within(argument):
                raise UserError(
                    f"argument {number} holds {name}, and the contents of a config are recorded; "
                    "take it out"
                )
        if get_args_parser().parse_args().experimental_rerun is not None:
            raise UserError(
                "--experimental-rerun: would run the contents of a pickle; repeat the command"
            )
        sys.argv[1:] = with_home(sys.argv[1:])
        _run()
    except (UserError, HydraException, OmegaConfBaseException, YAMLError) as error:
        line = " ".join(redacted(explain(error)).split())
        print(f"error: {line}", file=sys.stderr)
        sys.exit(EXIT_BAD_INPUT)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)


if __name__ == "__main__":
    main()
