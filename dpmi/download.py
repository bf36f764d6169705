"""Fetch the poster's data sets from Kaggle.

    python -m dpmi.download                        # both, into data/
    python -m dpmi.download chest_xray --root DIR  # one, into DIR/chest_xray

A set that is there already is left as it is. Kaggle asks for an account: kagglehub finds its
token by itself, and nothing here reads or prints it. Exit status: 0 if the data are in place,
2 if not.
"""

from __future__ import annotations

import argparse
import errno
import os
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dpmi.base.errors import UserError
from dpmi.config.data_sets import BenchmarkData
from dpmi.data.readers import read_catalogue

DEFAULT_ROOT = Path("data")  # conf/data/*.yaml look for each set in data/<name>

_DISK_ERRORS = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.ENOTDIR,
    errno.EEXIST,
}


@dataclass(frozen=True)
class KaggleSet:
    """A data set on Kaggle."""

    handle: str
    competition: bool  # needs its rules to be accepted, once, in the browser
    shape: str  # what its folder holds
    instead: str  # a set of the same kind that needs no download

    @property
    def page(self) -> str:
        """Where a person downloads it."""
        kind = "competitions" if self.competition else "datasets"
        return f"https://www.kaggle.com/{kind}/{self.handle}"


SETS = {
    "chest_xray": KaggleSet(
        handle="paultimothymooney/chest-xray-pneumonia",
        competition=False,
        shape="train/, val/ and test/, each with NORMAL/ and PNEUMONIA/",
        instead="phantom_xray",
    ),
    "aptos": KaggleSet(
        handle="aptos2019-blindness-detection",
        competition=True,
        shape="train.csv and train_images/",
        instead="phantom_fundus",
    ),
}


def main(arguments: list[str] | None = None) -> int:
    """Fetch what the command line asks for; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m dpmi.download", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("set", nargs="?", choices=sorted(SETS), help="which set (default: both)")
    parser.add_argument(
        "--root",
        type=Path,
        default=DEFAULT_ROOT,
        help="folder that holds a folder for each set (default: %(default)s)",
    )
    options = parser.parse_args(arguments)
    status = 0
    for name in [options.set] if options.set else list(SETS):
        try:
            fetch(name, options.root / name)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            status = 2
        else:
            place = options.root / name
            print(f"{name}: {_images(name, place)} images in {place}. Train on them with")
            setting = "" if options.root == DEFAULT_ROOT else f" data.root={place}"
            print(f"  python -m dpmi.train data={name}{setting}")
    return status


def fetch(name: str, place: Path) -> None:
    """Download a set into the folder ``place``, unless it lies there already.

    Raises:
        UserError: kagglehub is not installed, Kaggle gives no data (an account, the rules, the
            network), or ``place`` cannot be written.
    """
    if _images(name, place):
        return
    if place.exists() and any(place.iterdir()):
        raise UserError(
            f"{place} holds something else than {name} ({SETS[name].shape}). Move it away, or "
            "choose another --root."
        )
    try:
        import kagglehub
    except ImportError:
        print(_by_hand(name, place), file=sys.stderr)
        raise UserError(
            f"{name}: downloading from Kaggle needs kagglehub, which is not installed. "
            "Run `pip install dpmi[kaggle]`, or place the data by hand as described above."
        ) from None
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        # Beside its place and renamed at the end: a broken-off download is never taken for data.
        partial = Path(tempfile.mkdtemp(dir=place.parent, prefix=f"{name}.", suffix=".partial"))
        try:
            _download(kagglehub, SETS[name], partial)
            if place.exists():
                place.rmdir()
            os.replace(partial, place)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    except Exception as error:  # kagglehub, requests and the disk raise many types
        if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
            raise UserError(
                f"{name}: {place.parent} cannot be written: {error.strerror}. Make room, or "
                "choose another --root."
            ) from error
        print(_by_hand(name, place), file=sys.stderr)
        # The error's text may hold a signed address: only its kind is shown.
        code = getattr(getattr(error, "response", None), "status_code", None)
        kind = type(error).__name__ + (f", HTTP status {code}" if code else "")
        raise UserError(
            f"{name}: Kaggle gave no data ({kind}). Check the account and the network, or place "
            "the data by hand as described above."
        ) from None


def _download(kagglehub: Any, kaggle_set: KaggleSet, folder: Path) -> None:
    download = (
        kagglehub.competition_download if kaggle_set.competition else kagglehub.dataset_download
    )
    download(kaggle_set.handle, output_dir=str(folder))


def _images(name: str, place: Path) -> int:
    """How many images of the set lie in ``place``; 0 if it is not there."""
    config = BenchmarkData.model_validate(
        {
            "name": name,
            "root": str(place),
            "image_size": 224,
            "resize": None,
            "batch_size": 1,
            "augment": "none",
            "multiplicity": 1,
            "on_corrupt": "error",
            "max_left_out": 0.1,
            "num_workers": 0,
            "resident": False,
            "groups": None,
            "test": "official",
        }
    )
    try:
        return len(read_catalogue(config, place).paths)
    except UserError:
        return 0


def _by_hand(name: str, place: Path) -> str:
    kaggle_set = SETS[name]
    rules = (
        f"\n     and accept the rules at {kaggle_set.page}/rules" if kaggle_set.competition else ""
    )
    return f"""How to get {name}:
  1. With a Kaggle account: make an API token at https://www.kaggle.com/settings{rules}
     and run this command again.
  2. By hand: download {kaggle_set.page}
     and unpack it so that {place} holds {kaggle_set.shape}.
  3. Or train on images that need no download:
     python -m dpmi.train data={kaggle_set.instead}"""


if __name__ == "__main__":
    sys.exit(main())
