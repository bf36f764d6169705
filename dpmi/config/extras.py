"""Packages that only some configs need."""

from __future__ import annotations

from importlib.util import find_spec

from dpmi.base.errors import UserError
from dpmi.config.schema import Config

# Modules that a logger needs, all of which the extra of its name installs.
_OF_LOGGERS = {"tensorboard": ("tensorboard",), "mlflow": ("mlflow", "sqlalchemy", "alembic")}


def require_extras(config: Config) -> None:
    """Refuse a config whose logger needs a package that is not installed.

    Raises:
        UserError: names the package, and how to install it.
    """
    name = config.logger.name
    for module in _OF_LOGGERS.get(name, ()):
        if find_spec(module) is None:
            raise UserError(
                f"logger={name}: the package {module} is not installed; pip install 'dpmi[{name}]'"
            )
