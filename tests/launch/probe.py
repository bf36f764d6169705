"""A job that tells where it runs instead of training; run by ``python -m tests.launch.probe``."""

import json
import os
import signal
import sys
import time
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig

from dpmi import train
from dpmi.launch import local_pool

KILLED, ENDLESS, NOISY = 13, 14, 15  # seeds


def task(config):
    """Write facts about the process into the job's folder."""
    facts = {"began": time.time(), "torch came with the job": "torch" in sys.modules}
    facts |= {"gpu": os.environ["CUDA_VISIBLE_DEVICES"], "cores": sorted(os.sched_getaffinity(0))}
    if "PROBE_THREADS" in os.environ:  # seconds a job
        import torch

        facts["threads"] = torch.get_num_threads()
    facts |= {"pid": os.getpid(), "cwd": os.getcwd()}
    folder = Path(HydraConfig.get().runtime.output_dir)
    (folder / "facts.json").write_text(json.dumps(facts))
    if config.seed == KILLED:
        os.kill(os.getpid(), signal.SIGKILL)
    if config.seed == NOISY:
        os.write(2, b"a library's last words\n")
        os._exit(3)
    try:
        for _ in range(6000 if config.seed == ENDLESS else 3):
            time.sleep(0.1)
    except KeyboardInterrupt:
        (folder / "interrupted").touch()
        raise
    (folder / "facts.json").write_text(json.dumps(facts | {"ended": time.time()}))
    return "completed"


if __name__ == "__main__":
    from dpmi.config.folder import config_dir
    from tests.launch import probe  # by the name that other processes know it by

    if named := os.environ.get("PROBE_GPUS"):
        local_pool.visible_gpus = lambda: named.split(",")
    train._run = hydra.main(version_base="1.3", config_path=config_dir(), config_name="config")(
        probe.task
    )
    train.main()
