"""What the server of ``job_processes.py`` does once before it forks: what every job would do first.

It loads the libraries, composes a config, draws the images that DP-SGD whitens by, and computes the
noise of a tiny run.
"""

import gc
import os

import hydra
import torch
import wandb  # noqa: F401
import yaml

import dpmi.run.screen.terminal  # noqa: F401
from dpmi.config.folder import config_dir
from dpmi.pretraining.whitening import _drawn
from dpmi.privacy.accounting import calibrate_noise_multiplier
from tests import small_network  # noqa: F401
from tests.job_processes import pause_between_steps

yaml.SafeLoader = yaml.CSafeLoader  # as conftest.py has it
torch.set_num_threads(1)  # a pool of threads would not be there after a fork
with hydra.initialize_config_dir(config_dir(), version_base="1.3"):
    hydra.compose("config", overrides=["mechanism=dpsgd"])
_drawn(1, 32)
for accountant in ("prv", "rdp"):  # of a tiny run: 60 images in batches of 10
    calibrate_noise_multiplier(1.0, 1e-3, 10 / 60, 6, accountant)
if "PAUSED" in os.environ:  # this is the server of a job of several processes
    pause_between_steps()
# A run collects garbage twice: what is loaded here is none, and to look at it takes half a second.
gc.freeze()
