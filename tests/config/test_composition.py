"""Attacks by a config: each would create the file ``ran``, had the program done what it names."""

import pickle
import re
import subprocess
import sys

import pytest
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.utils import get_class
from omegaconf import OmegaConf

from dpmi.config.composition import TARGETS

TOUCH = "{_target_: os.system, command: 'touch ran'}"
LOG = "++hydra.{}_logging.handlers.evil"
POPEN = "{'()': subprocess.Popen, args: [touch, ran]}"

BY_OVERRIDE = {
    "a key of its own": ["+x._target_=os.system", "+x.command='touch ran'"],
    "a class below this package that is not its own": ["+x._target_=dpmi.train.os.system"],
    "a callback": [f"+hydra.callbacks.evil={TOUCH}"],
    "the callback's own target": [
        "hydra.callbacks.sweep._target_=os.system",
        "+hydra.callbacks.sweep.command='touch ran'",
    ],
    "an argument of the callback": [f"+hydra.callbacks.sweep.x={TOUCH}"],
    "a callback by interpolation": [f"+x={TOUCH}", "+hydra.callbacks.evil=${x}"],
    "a callback decoded from text": [
        "+hydra.callbacks.evil=${oc.decode:'{_target_: os.mkdir, path: ran}'}"
    ],
    "a callback whose target comes from the environment": [
        "+hydra.callbacks.evil={_target_: '${oc.env:DPMI_TARGET}', command: 'touch ran'}"
    ],
    "the launcher": ["-m", "hydra.launcher._target_=os.system", "+hydra.launcher.command=x"],
    "the sweeper": ["-m", "hydra.sweeper._target_=evil.Evil", "beta=1,2"],
    "a factory of a handler in the job's log": [f"{LOG.format('job')}={POPEN}"],
    "a factory of a handler in Hydra's log": [f"{LOG.format('hydra')}={POPEN}"],
    "a factory of a formatter": [f"++hydra.job_logging.formatters.evil={POPEN}"],
    "a factory of a filter": [f"++hydra.job_logging.filters.evil={POPEN}"],
    "a class of a handler": [f"{LOG.format('hydra')}={{class: evil.Evil}}"],
    "a class of a formatter": ["++hydra.hydra_logging.formatters.evil={class: evil.Evil}"],
    "an external object in a log": [
        f"{LOG.format('hydra')}={{class: logging.StreamHandler, stream: 'ext://evil.Evil'}}"
    ],
    "a log by interpolation": [f"+x={POPEN}", "++hydra.job_logging.handlers.evil=${x}"],
    "a log in another file": [
        "hydra.job_logging.handlers.file.filename=ran",
        "hydra.job_logging.formatters.simple.format='touch ran'",
    ],
    "a log in another file by the job's name": ["hydra.job.name=../../../ran"],
    "a log in another file by Hydra": [
        f"{LOG.format('hydra')}={{class: logging.FileHandler, filename: ran}}"
    ],
    "a package to look for configs in": ["hydra.searchpath=[pkg://evil]"],
    "a module of structured configs": ["hydra.searchpath=[structured://evil]"],
    "a package as the place of configs": ["--config-path", "pkg://evil"],
    "an environment variable that runs a program": ["+hydra.job.env_set.PATH=."],
    "an override of two lines": ["hydra.launcher={'x\ntouch ran': 1}"],
    "a pickle of an earlier run": ["--experimental-rerun", "evil.pickle"],
}


@pytest.fixture
def hostile(place):
    """A working directory that holds a module, a program and a pickle that create the file."""
    module = "open('ran', 'w').close()\nclass Evil:\n    pass\n"
    (place.cwd / "evil.py").write_text(module)
    (place.cwd / "git").write_text("#!/bin/sh\ntouch ran\n")
    (place.cwd / "git").chmod(0o755)
    (place.cwd / "evil.pickle").write_bytes(pickle.dumps(Payload()))
    place.before = place.files(place.cwd)
    return place


class Payload:
    def __reduce__(self):
        return (open, ("ran", "w"))


def refused(place, *words):
    """Run, and see that the attack was told in one line and did nothing."""
    done = place.train(*words, DPMI_TARGET="os.system", SECRET="hunter2hunter2")
    assert (done.returncode, done.stdout) == (2, ""), (done.stdout, done.stderr)
    assert re.fullmatch(r"error: [^\n]+\n", done.stderr), done.stderr
    assert place.files(place.cwd) == place.before
    assert place.files(place.home) == set()
    assert not place.cache.exists()
    return done.stderr


def test_the_traps_work(hostile):
    """Else the tests below would pass with nothing refused."""
    for command in ("import evil", "import pickle; pickle.load(open('evil.pickle', 'rb'))"):
        subprocess.run([sys.executable, "-c", command], cwd=hostile.cwd, check=True)
        (hostile.cwd / "ran").unlink()


@pytest.mark.parametrize("attack", BY_OVERRIDE, ids=str)
def test_an_override_runs_nothing_that_the_schema_does_not_name(hostile, attack):
    refused(hostile, *BY_OVERRIDE[attack])


FACTORY = {"()": "subprocess.Popen", "args": ["touch", "ran"]}
FILES = {
    "callbacks": {"callbacks": {"evil": {"_target_": "os.system", "command": "touch ran"}}},
    "sweeper": {"sweeper": {"_target_": "evil.Evil"}},
    "job_logging": {"job_logging": {"handlers": {"evil": FACTORY}}},
    "hydra_logging": {"hydra_logging": {"handlers": {"evil": FACTORY}}},
}


# Loggers of jobs are configured as Hydra's are.
@pytest.mark.parametrize(
    "where", [pytest.param(key, marks=[pytest.mark.slow] * (key == "job_logging")) for key in FILES]
)
def test_an_experiment_from_a_foreign_folder_is_held_to_the_same(hostile, where):
    folder = hostile.cwd / "foreign" / "experiment"
    folder.mkdir(parents=True)
    OmegaConf.save({"hydra": FILES[where]}, folder / "evil.yaml")
    text = (folder / "evil.yaml").read_text()
    (folder / "evil.yaml").write_text(f"# @package _global_\n{text}")
    (folder / "good.yaml").write_text("# @package _global_\nbeta: 2\n")
    hostile.before = hostile.files(hostile.cwd)
    for place in (["--config-dir", "foreign"], ["hydra.searchpath=[foreign]"]):
        refused(hostile, *place, "experiment=evil")
        # Of a sweep only the second cell is hostile, and no cell runs.
        refused(hostile, "-m", *place, "experiment=good,evil")


def test_a_foreign_primary_config_is_held_to_the_same(hostile):
    (hostile.cwd / "other.yaml").write_text(
        "hydra:\n  searchpath: ['pkg://evil']\ndefaults: [{data: phantom_xray}]\n"
    )
    (hostile.cwd / "python.yaml").write_text("x: !!python/object/apply:os.system ['touch ran']\n")
    hostile.before = hostile.files(hostile.cwd)
    for name in ("other", "python"):
        refused(hostile, "--config-dir", ".", "--config-name", name)


SECRETS = [
    ["output_dir=${oc.env:SECRET}"],
    ["logger.project=${oc.env:SECRET,x}"],
    ["hydra.run.dir=${oc.env:SECRET}"],
    ["-m", "beta=1,2", "logger.project=${oc.env:SECRET}"],
    ["+hydra.job.env_copy=[SECRET]", "logger.project=${hydra:job.env_set.SECRET}"],
]


@pytest.mark.parametrize("words", SECRETS, ids=lambda words: words[-1])
def test_a_config_reads_no_secret_from_the_environment(hostile, words):
    assert "hunter2" not in refused(hostile, *words)


def test_a_config_reads_the_environment_variables_that_are_named(place):
    done = place.train("--cfg", "job", "--resolve", "output_dir=${oc.env:TMPDIR}/x")
    assert f"output_dir: {place.tmp}/x" in done.stdout
    assert f"cache_dir: {place.cache}" in done.stdout


@pytest.mark.parametrize(
    "words",
    [
        ["+hydra.launcher.partition='x\ntouch ran\n#'"],
        ["hydra/launcher=submitit_slurm", "hydra.launcher.gres=${output_dir}", "output_dir='x\ny'"],
        ["-m", "hydra/launcher=submitit_slurm", "hydra.sweep.dir='x\ntouch ran\n#'"],
        ["hydra/launcher=ray", "+hydra.launcher.resources.x='x\ntouch ran'"],
    ],
    ids=lambda words: words[0],
)
def test_a_launcher_writes_no_line_of_a_script_that_is_not_its_own(hostile, words):
    assert "allowed is one line" in refused(hostile, *words)


@pytest.mark.parametrize(
    "text", ["${hydra.help.header}", "${dpmi.keys_help:}", "${hydra.${logger.entity}.template}"]
)
@pytest.mark.parametrize("key", ["launcher: {partition: ", "sweep: {dir: "])
def test_nor_a_line_of_the_help_that_a_config_refers_to(hostile, key, text):
    folder = hostile.cwd / "theirs" / "experiment"
    folder.mkdir(parents=True)
    (folder / "evil.yaml").write_text(
        "# @package _global_\ndefaults: [{override /hydra/launcher: submitit_slurm}]\n"
        "logger: {entity: help}\n"
        f'hydra:\n  help: {{header: "x\\ntouch ran #"}}\n  {key}"{text}"}}\n'
    )
    words = ["--config-dir", str(folder.parent), "-m", "experiment=evil", "beta=1,2"]
    done = hostile.train(*words)
    assert done.returncode == 2
    *_, last = done.stderr.splitlines()  # Hydra may warn of the text before
    assert re.fullmatch(r"error: hydra\..*: has several lines; allowed is one line", last)
    assert not list(hostile.cwd.glob("**/*.sh"))


@pytest.mark.parametrize("address", ["evil://x", "evil", "ray://evil:1"])
def test_ray_is_given_no_module_for_an_address(hostile, address):
    """Ray imports the module that stands before ://, whatever its name."""
    words = ["-m", "beta=1,2", "hydra/launcher=ray", f"hydra.launcher.address={address}"]
    assert "hydra.launcher.address" in refused(hostile, *words)


@pytest.mark.parametrize(
    ("launcher", "key"),
    [
        ("submitit_slurm", "setup"),
        ("submitit_slurm", "srun_args"),
        ("ray", "runtime_env"),
        ("ray", "ray.init.runtime_env"),
        ("local_pool", "setup"),
    ],
)
def test_a_launcher_is_given_no_command(hostile, launcher, key):
    words = ["-m", "beta=1,2", f"hydra/launcher={launcher}", f"+hydra.launcher.{key}=[touch ran]"]
    assert key.split(".")[0] in refused(hostile, *words)


def test_every_allowed_target_that_is_installed_is_what_it_is_allowed_as():
    discovered = {
        f"{found.__module__}.{found.__name__}"
        for kind in (Launcher, Sweeper)
        for found in Plugins.instance().discover(kind)
    }
    for target in TARGETS:
        if target.split(".")[0] == "dpmi":
            assert get_class(target)
        elif target.startswith("hydra._internal."):
            assert target in discovered
