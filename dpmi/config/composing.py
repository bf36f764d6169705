"""A config of KEY=VALUE, for commands that run no job of Hydra's."""

from __future__ import annotations

from collections.abc import Sequence

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from dpmi.base.errors import UserError
from dpmi.config.folder import config_dir
from dpmi.config.mistakes import explain
from dpmi.config.schema import Config, load_config


def composed(words: Sequence[str]) -> Config:
    """The config that dpmi.train would have of the same words.

    Raises:
        UserError: a key or a value is not allowed.
    """
    try:
        with initialize_config_dir(config_dir(), version_base="1.3"):
            return load_config(compose("config", overrides=list(words)))
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(explain(error)) from error
