"""Fixtures that every folder of tests may use."""

from __future__ import annotations

import gc
import logging
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hydra import compose, initialize_config_dir
from made_once import made_once
from small_network import SMALL

from dpmi.config.folder import config_dir
from dpmi.config.schema import Config, load_config
from dpmi.data.prepare import DataFingerprint, PreparedData, Split

# Hydra reads twenty files for a config, and Python's parser takes a quarter of the time.
yaml.SafeLoader = yaml.CSafeLoader

REPOSITORY = Path(__file__).resolve().parents[1]
NEW_INTERPRETERS = REPOSITORY / "tests" / "new_interpreters"  # on their path

# Random weights, 60 phantoms of 32 px, one epoch of six batches, no statistics.
TINY = (
    *("data=phantom_xray", "data.image_size=32", "data.batch_size=10", "data.train_images=60"),
    *("data.val_images=10", "data.test_images=30", "trainer.max_epochs=1"),
    *("trainer.accelerator=cpu", "model.weights=null", "model.norm=group", "logger=csv"),
    *("model.prior=train", f"model.name={SMALL}"),
)


def pytest_collection_finish():
    """A run collects garbage twice: what was imported is none, and takes a second to search."""
    gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def _what_a_module_leaves_is_searched_once():
    """Libraries that it loaded, reports of its tests: later runs would search them, too."""
    yield
    gc.collect()
    gc.freeze()


def pytest_unconfigure():
    gc.unfreeze()  # or libraries would report what was never freed


@pytest.fixture(autouse=True)
def _logging_is_enabled_again():
    """Doors that are called in this process silence libraries for good: theirs ends after them."""
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture(scope="session")
def shared():
    """Real images and weights that are no part of the project: DPMI_SHARED, or ../shared."""
    folder = Path(os.environ.get("DPMI_SHARED", REPOSITORY.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"no real images or weights: {folder} is absent (set DPMI_SHARED)")
    return folder


@pytest.fixture(scope="session")
def tiny() -> tuple[str, ...]:
    """Overrides of the command line that make a run of half a second."""
    return TINY


@pytest.fixture(scope="session")
def composed() -> Callable[..., Config]:
    """Compose and check a config: ``composed("beta=2", "mechanism=ldp")``."""

    def make(*overrides: str) -> Config:
        with initialize_config_dir(config_dir(), version_base="1.3"):
            return load_config(compose("config", overrides=list(overrides)))

    return make


class Place:
    """A folder of its own to run the program in: working directory, home, cache, temporary files.

    What a run leaves anywhere in it can be listed.
    """

    def __init__(self, folder: Path) -> None:
        self.cwd, self.home, self.tmp = (folder / name for name in ("cwd", "home", "tmp"))
        self.cache, self.outputs = folder / "cache", self.cwd / "outputs"
        for path in (self.cwd, self.home, self.tmp):
            path.mkdir(parents=True)

    def start(
        self,
        *words: str,
        command: tuple[str, str] = ("-m", "dpmi.train"),
        stdout: int = subprocess.PIPE,
        **variables: str,
    ) -> subprocess.Popen[str]:
        """Start ``python -m dpmi.train WORDS`` without credentials and with nobody to ask."""
        return subprocess.Popen(
            [sys.executable, *command, *words],
            cwd=self.cwd,
            env=self.environment() | variables,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            # A shell that runs the tests in the background makes its children deaf to SIGINT.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def run(self, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """The same, to its end."""
        process = self.start(*words, **options)
        try:
            out, err = process.communicate(timeout=600)
        finally:
            process.kill()
        return subprocess.CompletedProcess(words, process.returncode, out, err)

    def train(self, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """The same as ``run``, forked from a process that has loaded what takes seconds to load.

        What is loaded was loaded by another: where this matters, ``run`` is to be used.
        """
        import job_processes

        with tempfile.TemporaryDirectory() as folder:
            out, err = (Path(folder, name) for name in ("stdout", "stderr"))
            process = job_processes.context().Process(
                target=job_processes.command,
                args=(words, self.cwd, self.environment() | variables, out, err),
            )
            process.start()
            process.join(600)
            ended = process.exitcode is not None
            process.kill()
            assert ended
            return subprocess.CompletedProcess(
                words, process.exitcode, out.read_text("utf-8"), err.read_text("utf-8")
            )

    def environment(self) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "TMPDIR": str(self.tmp),
            "PYTHONPATH": os.pathsep.join(map(str, (REPOSITORY, NEW_INTERPRETERS))),
            "PYTHONDONTWRITEBYTECODE": "1",
            "DPMI_CACHE": str(self.cache),
            "OMP_NUM_THREADS": "1",  # several tests may share two cores
            "COLUMNS": "1000",  # no line is wrapped
        }

    def files(self, folder: Path) -> set[str]:
        """Everything below a folder, as relative paths."""
        return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """An empty place to run the program in."""
    return Place(tmp_path)


@pytest.fixture(scope="module")
def shared_place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """One for all tests of a module."""
    return Place(tmp_path_factory.mktemp("place"))


@pytest.fixture(scope="session")
def stripes() -> Callable[..., PreparedData]:
    """Images that a ResNet-18 learns in ten steps: stripes, standing (0) or lying (1).

    ``stripes(train, side)``: half of each class, of random phase, with some noise.
    """

    def split(n: int, side: int, seed: int) -> Split:
        rng = np.random.default_rng(seed)
        wave = (np.arange(side)[None] // 2 + rng.integers(0, 4, (n, 1))) % 2 * 200
        pixels = np.repeat(wave[:, None, :], side, axis=1)
        labels = np.arange(n) % 2
        pixels[labels == 1] = pixels[labels == 1].transpose(0, 2, 1)
        pixels += rng.integers(0, 56, pixels.shape)
        return Split(pixels[:, None].astype(np.uint8), labels.astype(np.int64), ("",) * n)

    def make(train: int = 64, side: int = 32) -> PreparedData:
        splits = {"train": split(train, side, 0), "test": split(32, side, 1)}
        nothing = DataFingerprint("0" * 64, side, 1, {}, {}, 0, 0, 0, 0, None, None, 1)
        return PreparedData("stripes", ("standing", "lying"), False, 1, side, splits, nothing)

    return make


@pytest.fixture(scope="session")
def real_sweeps(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Records that real runs of a second left, in two sweeps.

    The first: original, LDP and DP-SGD at β = 1, two seeds. The second: one original again, the
    authors' LDP at β = 4, a DP-SGD that failed, and in another set-up (BatchNorm, batches of 32)
    original and DP-SGD as the authors ran it, with the best test epoch.
    """
    base = made_once(tmp_path_factory, "real", _run_two_sweeps)
    return [base / "first", base / "second"]


def _run_two_sweeps(base: Path) -> None:
    from rich.console import Console

    from dpmi.run.job import Run

    (no_folder := base / "file").touch()
    quick = (*TINY, "trainer.max_epochs=2", f"cache_dir={base / 'cache'}")
    theirs = (
        *("model.norm=batch", "data.batch_size=32", "trainer.test_every_epoch=true", "beta=2"),
        "seed=1",
    )
    means_of_4 = "mechanism.microbatches.phantom_xray=8"  # as the authors', of a smaller batch
    dpsgd = ("mechanism=dpsgd", "mechanism.accountant=rdp")  # the quickest to compute
    mechanisms = [("mechanism=none",), ("mechanism=ldp",), dpsgd]
    first = [(*mechanism, f"seed={seed}") for mechanism in mechanisms for seed in (1, 2)]
    second = [
        ("mechanism=none", "seed=1"),
        ("mechanism=ldp_published", "beta=4", "seed=1"),
        (*dpsgd, "beta=4", "seed=1", f"cache_dir={no_folder}"),
        ("mechanism=none", *theirs),
        ("mechanism=dpsgd_published", means_of_4, *theirs),
    ]
    with initialize_config_dir(config_dir(), version_base="1.3"):
        for sweep, cells in (("first", first), ("second", second)):
            for number, words in enumerate(cells):
                folder = base / sweep / str(number)
                folder.mkdir(parents=True)
                config = load_config(compose("config", overrides=[*quick, *words]))
                Run(config, folder, Console(quiet=True)).execute()


@pytest.fixture(scope="session")
def real_records(real_sweeps: list[Path]) -> list[list[Any]]:
    """Their records, sweep by sweep."""
    from dpmi.run.records.reading import read_records

    return [read_records(sweep) for sweep in real_sweeps]


@pytest.fixture(scope="session")
def real_report(real_sweeps: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of both sweeps, by the command."""
    from dpmi.report import main

    def write(out: Path) -> None:
        assert main([*map(str, real_sweeps), "--out", str(out)]) == 0

    return made_once(tmp_path_factory, "report", write)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Tiny tensors are not worth a second thread, least of all where cores are shared."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def disk() -> Callable[..., AbstractContextManager[Path]]:
    """Mount a small disk in memory: ``with disk(folder, "size=100k") as folder``."""

    @contextmanager
    def mount(folder: Path, options: str) -> Iterator[Path]:
        folder.mkdir(parents=True, exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("no right to mount a disk here, so a full or read-only one is not tested")
        try:
            yield folder
        finally:
            subprocess.run(["umount", str(folder)], check=True)

    return mount


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    """Real runs on images in files, each made when it is first asked for: ``trained("ldp")``."""
    from trained_runs import read, train, write_inputs

    inputs = made_once(tmp_path_factory, "inputs", write_inputs)
    copies = tmp_path_factory.mktemp("trained")

    @cache
    def make(name: str) -> Any:
        base = made_once(tmp_path_factory, f"trained-{name}", partial(train, inputs, name))
        return read(base, copies / name)

    return make
