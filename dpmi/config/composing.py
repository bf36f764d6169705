"""A config of KEY=VALUE, for commands that run no job of Hydra's."""

from __future__ import annotations

import re
from collections.abc import Sequence

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from dpmi.base.errors import UserError
from dpmi.base.places import from_home
from dpmi.config.folder import config_dir
from dpmi.config.mistakes import explain
from dpmi.config.schema import Config, load_config


def with_home(words: Sequence[str]) -> list[str]:
    """KEY=VALUE with the home folder in place of a ``~/``, which Hydra's grammar refuses."""
    return [re.sub(r"(?<==)~/.*", lambda path: from_home(path[0]), word) for word in words]


def composed(words: Sequence[str]) -> Config:
    """The config that dpmi.train would have of the same words.

    Raises:
        UserError: a key or a value is not allowed.
    """
    try:
        with initialize_config_dir(config_dir(), version_base="1.3"):
            return load_config(compose("config", overrides=with_home(words)))
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(explain(error)) from error
