"""What can be known before any work: what this machine lacks for a run, and where it cannot write.

A config that fits the schema may still ask for a GPU where there is none, and a library would say
so after an hour of decoding.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sysconfig
from pathlib import Path

from dpmi.base.errors import UserError
from dpmi.base.loading import loading
from dpmi.base.threads import let_idle_threads_sleep
from dpmi.config.schema import Config
from dpmi.config.sections import NAMED_WEIGHTS, LdpMechanism
from dpmi.models.weight_file import refuse_absent


def refuse_on_this_machine(config: Config) -> None:
    """Refuse what cannot run here, whatever the images are; write nothing.

    Raises:
        UserError: a GPU, a compiler or the file of weights is not here, or the noise does not
            exist.
    """
    trainer = config.trainer
    if trainer.accelerator == "gpu" or (trainer.accelerator == "auto" and trainer.devices > 1):
        _check_gpus(trainer.accelerator, trainer.devices)
    if trainer.compile is True and (lacking := lacks_compiler(trainer.accelerator)):
        raise UserError(f"trainer.compile=True: needs {lacking}, or set trainer.compile=false")
    if config.model.weights not in NAMED_WEIGHTS:
        refuse_absent(Path(str(config.model.weights)))
    if isinstance(config.mechanism, LdpMechanism):
        from dpmi.privacy.laplace import mean_moves, pixel_noise  # numpy, not needed for --help

        try:
            pixel_noise(config.beta, mean_moves(config.mechanism.pool))
        except ValueError as error:
            raise UserError(str(error)) from error


def make_folder(key: str, folder: Path) -> None:
    """Make a folder that a key names, if it is not there.

    Raises:
        UserError: it cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        why = error.strerror or error
        raise UserError(f"{key}={folder}: no folder can be made there ({why})") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"{key}={folder}: this folder cannot be written to; give another")


def refuse_unwritable(key: str, folder: Path) -> None:
    """Refuse a folder that a key names and that cannot be made or written to; leave nothing.

    Raises:
        UserError: as ``make_folder``.
    """
    missing = [place for place in (folder, *folder.parents) if not _exists(place)]
    try:
        make_folder(key, folder)
    finally:
        for place in missing:
            with contextlib.suppress(OSError):  # another process may write there by now
                place.rmdir()


def _exists(place: Path) -> bool:
    try:
        return place.exists()
    except OSError:  # its name is too long
        return False


def _check_gpus(accelerator: str, devices: int) -> None:
    let_idle_threads_sleep()
    with loading():  # not where a run says that it is for the processor
        import torch

    here = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not here and accelerator == "gpu":
        raise UserError(
            "trainer.accelerator=gpu: there is no GPU here that torch can use; allowed are auto "
            "and cpu"
        )
    if here and devices > here:
        raise UserError(
            f"trainer.devices={devices}: there are {here} GPUs here; allowed is 1 to {here}, or "
            "any number with trainer.accelerator=cpu"
        )


def lacks_compiler(accelerator: str) -> str | None:
    """What torch.compile needs and does not find here, and what to do about it; None if nothing.

    Inductor compiles C++ for the processor; for a GPU Triton compiles a little C.
    """
    variable, usual = ("CXX", "g++") if accelerator == "cpu" else ("CC", "gcc")
    compiler = os.environ.get(variable, usual)
    if not shutil.which(compiler):
        return (
            f"a compiler, and there is no {compiler} here; install it, name another in the "
            f"environment variable {variable}"
        )
    header = Path(sysconfig.get_paths()["include"], "Python.h")
    if not header.is_file():
        return (
            f"Python's headers, and there is no {header}; install them (python3-dev, python3-devel)"
        )
    return None
