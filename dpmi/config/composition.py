"""What a composed config may name, checked before Hydra imports or calls anything that it names.

Hydra composes a config and then instantiates from it: callbacks, the sweeper, the launcher, the
handlers of its logs. The check stands between the two, in the loader, for there is no hook: also
for the cells of a sweep, each of which is composed anew, wherever that is done. The schema
(``dpmi.config.schema``) checks the rest later. docs/operations.md lists what is allowed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Any

import hydra._internal.hydra as hydra_module
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository
from hydra.core.config_search_path import ConfigSearchPath
from omegaconf import DictConfig, OmegaConf

from dpmi.base.errors import UserError
from dpmi.base.redaction import secret_within
from dpmi.config.help import keys_help
from dpmi.config.identity import job_folder, output_dir, sweep_folder

# Whole names: dpmi.train.os.system begins with dpmi, too.
TARGETS = frozenset(
    {
        "dpmi.launch.local_pool.LocalPoolLauncher",
        "dpmi.launch.ray_cluster.RayLauncher",
        "dpmi.launch.slurm.SubmititLauncher",
        "dpmi.search.sweeper.OptunaSearch",
        "dpmi.launch.sweep.DistinctCells",
        "dpmi.launch.sweep.SweepCallback",
        "hydra._internal.core_plugins.basic_launcher.BasicLauncher",
        "hydra._internal.core_plugins.basic_sweeper.BasicSweeper",
    }
)
# Environment variables that a config may read: none of them holds a secret.
VARIABLES = frozenset({"HOME", "USER", "TMPDIR", "SCRATCH", "WORK", "SLURM_JOB_ID", "SLURM_TMPDIR"})
OWN_VARIABLES = "DPMI_"

_LOG_CLASSES = frozenset({"logging.StreamHandler", "logging.FileHandler", "logging.NullHandler"})
_LOG_STREAMS = frozenset({"ext://sys.stdout", "ext://sys.stderr"})
_LOG_FILE = "${hydra.runtime.output_dir}/${hydra.job.name}.log"

_TEXTS = (("hydra", "help"), ("hydra", "hydra_help"))

_Path = tuple[str, ...]


def guard_hydra() -> None:
    """Let every config that Hydra composes in this process be checked."""
    hydra_module.ConfigLoaderImpl = CheckedConfigLoader  # type: ignore[misc]


class CheckedConfigLoader(ConfigLoaderImpl):
    """Composes, and refuses what a config may not name.

    Raises:
        UserError: names the key, its value and what is allowed.
    """

    def __init__(self, config_search_path: ConfigSearchPath) -> None:
        self.config_search_path = config_search_path
        self.repository = _CheckedRepository(config_search_path)

    def load_configuration(self, *args: Any, **kwargs: Any) -> DictConfig:
        """Compose a config, with Hydra's own part, and check it."""
        register_resolvers()  # here, for a job may be composed in another process
        composed: DictConfig = super().load_configuration(*args, **kwargs)
        check_composed(composed)
        return composed


class _CheckedRepository(ConfigRepository):
    def initialize_sources(self, config_search_path: ConfigSearchPath) -> None:
        """Open the places to look for configs; a package is imported by looking into it."""
        for place in config_search_path.get_path():
            if place.provider == "schema" and place.path == "structured://":
                continue
            if "://" in place.path and not (
                place.path.startswith("file://") or place.path == "pkg://hydra.conf"
            ):
                raise UserError(
                    f"{place.path}: a config may not be looked for in a package, whose code that "
                    "would run; allowed is a folder (--config-dir, hydra.searchpath)"
                )
        super().initialize_sources(config_search_path)


def register_resolvers() -> None:
    """Register what a config may call in ``${...:...}``: each gives text, none code or sections."""
    for name, resolver in (
        ("output_dir", output_dir),
        ("job_folder", job_folder),
        ("sweep_folder", sweep_folder),
        ("keys_help", keys_help),
    ):
        OmegaConf.register_new_resolver(
            f"dpmi.{name}", lambda *, _root_, resolve=resolver: resolve(_root_), replace=True
        )
    OmegaConf.register_new_resolver("oc.env", _variable, replace=True)
    for name in ("oc.create", "oc.decode", "oc.deprecated", "oc.dict.keys", "oc.dict.values"):
        OmegaConf.clear_resolver(name)


def _variable(name: str, *default: str | None) -> str | None:
    """Value of an environment variable; what a config holds is recorded, so no secrets."""
    if name not in VARIABLES and not name.startswith(OWN_VARIABLES):
        raise UserError(
            f"${{oc.env:{name}}}: a config may not read this environment variable, since its "
            f"value is recorded; allowed are {OWN_VARIABLES}* and {', '.join(sorted(VARIABLES))}"
        )
    if name in os.environ:
        return os.environ[name]
    if not default:
        raise UserError(f"${{oc.env:{name}}}: no such environment variable; set it")
    return default[0]


def check_composed(composed: DictConfig) -> None:
    """Refuse a composed config that names what it may not.

    Args:
        composed: with the node ``hydra``.

    Raises:
        UserError: names the key, its value and what is allowed.
    """
    tree: Any = OmegaConf.to_container(composed, resolve=False)
    for path, value in _leaves(tree):
        if name := secret_within(f"{path[-1]} {value}"):
            raise UserError(
                f"{'.'.join(path[:-1]) or 'config'}: a value below it holds {name}, and the "
                "contents of a config are recorded; take it out"
            )
        # A launcher writes them into a shell script, line by line.
        if path[:2] not in _TEXTS and any("\n" in text for text in (*path, str(value))):
            raise _refused(path, value, "one line")
        if "_target_" in path and value not in TARGETS:
            raise _refused(
                path,
                value,
                "dpmi.launch.sweep.SweepCallback, and Hydra's and dpmi's launchers and sweepers "
                "(docs/operations.md lists them)",
            )
    for section in ("hydra_logging", "job_logging"):
        _check_logging(("hydra", section), tree["hydra"][section])
    job = tree["hydra"]["job"]
    if variables := job["env_set"]:  # hydra.job.env_copy has put its own there; values stay untold
        raise _refused(("hydra", "job", "env_set"), ", ".join(variables), "none: set them outside")
    if not re.fullmatch(r"[\w-]+", str(job["name"])):
        raise _refused(("hydra", "job", "name"), job["name"], "a name, without folders")


def _check_logging(section: _Path, content: Any) -> None:
    """Logging imports the classes and calls the factories that its dictionary names."""
    for path, value in _leaves(content, section):
        name, text = path[-1], str(value)
        if name == "filename" and value == _LOG_FILE:
            continue
        if "()" in path or "." in path:
            raise _refused(path, value, "no factory")
        if name == "class" and value not in _LOG_CLASSES:
            raise _refused(path, value, ", ".join(sorted(_LOG_CLASSES)))
        if name == "filename":
            raise _refused(path, value, _LOG_FILE)
        if name == "style" and value != "%":
            raise _refused(path, value, "%")
        if "${" in text or (re.match(r"\w+://", text) and text not in _LOG_STREAMS):
            raise _refused(path, value, f"plain text and {', '.join(sorted(_LOG_STREAMS))}")


def _leaves(node: Any, path: _Path = ()) -> Iterator[tuple[_Path, Any]]:
    """Every value of a tree with the keys that lead to it; an empty section is a value."""
    for key, value in node.items() if isinstance(node, dict) else enumerate(node):
        at = (*path, str(key))
        if isinstance(value, dict | list) and value:
            yield from _leaves(value, at)
        else:
            yield at, value


def _refused(path: _Path, value: Any, allowed: str) -> UserError:
    return UserError(
        f"{'.'.join(path)}={value}: a config may not name this, since the program would run it; "
        f"allowed is {allowed}"
    )
