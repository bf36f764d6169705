"""Which labelled images a model is evaluated on: the run's own test images, or others'."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dpmi.base.errors import UserError
from dpmi.base.places import cache_folder
from dpmi.config.composing import composed
from dpmi.config.data_sets import (
    ChexpertData,
    CsvData,
    DataConfig,
    FolderData,
    MimicData,
    NihData,
)
from dpmi.data.prepare import PreparedData, prepare_test
from dpmi.data.readers import CHANNELS
from dpmi.data.readers.csv_file import labelled_findings
from dpmi.privacy.account import Accounts
from dpmi.run.left import Left
from dpmi.run.parts import prepared_data
from dpmi.run.records.reading import config_of
from dpmi.run.records.record import RECORD_FILE
from dpmi.using.loading import channels_of, is_multilabel

# What the user may say of the images; all else is as it was in the run.
_KEYS = frozenset({
    "data", "cache_dir",
    *(f"data.{key}" for key in (
        "root", "csv", "groups", "on_corrupt", "test", "size", "seed", "train_images",
        "val_images", "test_images",
    )),
})  # fmt: skip


@dataclass(frozen=True)
class LabelledImages:
    """Test images alone, with labels in the order of the run's classes.

    Attributes:
        data: with the one split "test".
        own: whether they are the test images that the run itself was tested on.
        trained_on: how many of them are among the run's training images; None where the account
            of these is not at hand.
        cache_dir: where what is computed of them is kept.
    """

    data: PreparedData
    own: bool
    trained_on: int | None
    cache_dir: Path


def labelled_images(left: Left, words: Sequence[str]) -> LabelledImages:
    """Prepare the images that a command line names.

    Args:
        left: by the run.
        words: KEY=VALUE; without ``data=...`` the run's own test images, with it others': their
            test split where splits are given, all of them where not.

    Raises:
        UserError: a word is no such key, or the data cannot be used.
    """
    for word in words:
        key, equals, _ = word.partition("=")
        if not equals or key not in _KEYS:
            raise UserError(
                f"{word}: allowed are KEY=VALUE of the images ({', '.join(sorted(_KEYS))}); all "
                "else is as it was in the run"
            )
    keys = {word.partition("=")[0] for word in words}
    if "data" in keys:
        return _others(left, words)
    if wrong := keys - {"data.groups", "cache_dir"}:
        raise UserError(f"{min(wrong)}: of which images? Give data=..., too, as data=folder")
    return _own(left, words)


def _own(left: Left, words: Sequence[str]) -> LabelledImages:
    if left.private is None:
        raise UserError(
            f"{left.folder}: which images the run was tested on, {RECORD_FILE} says, and it is not "
            "here; give others by data=... data.root=..."
        )
    config = config_of(left.private, left.folder / RECORD_FILE)
    if words:  # of groups, or of a cache elsewhere
        given = composed(words)
        keys = {word.partition("=")[0] for word in words}
        groups = given.data.groups if "data.groups" in keys else config.data.groups
        cache_dir = given.cache_dir if "cache_dir" in keys else config.cache_dir
        data_config = config.data.model_copy(update={"groups": groups})
        config = config.model_copy(update={"data": data_config, "cache_dir": cache_dir})
    whole = prepared_data(config)
    if left.private.data is None or left.private.data["sha256"] != whole.fingerprint.sha256:
        raise UserError(
            f"{left.folder}: its images have changed since it was run; run it again, or give data="
            "... to evaluate on others"
        )
    return LabelledImages(_test_alone(whole), True, 0, Path(config.cache_dir))


def _test_alone(whole: PreparedData) -> PreparedData:
    """The test images of a data set, as a data set of their own."""
    fingerprint = replace(whole.fingerprint, sha256=f"test images of {whole.fingerprint.sha256}")
    return replace(whole, splits={"test": whole.splits["test"]}, fingerprint=fingerprint)


def _others(left: Left, words: Sequence[str]) -> LabelledImages:
    run = left.record.config["data"]
    sizes = [f"data.image_size={run['image_size']}", f"data.resize={run['resize'] or 'null'}"]
    given = composed([*words, *sizes])
    data_config, channels = given.data, channels_of(run)
    learned = _task_of_the_run(left, data_config)
    if isinstance(data_config, FolderData | CsvData):
        fixed = {"channels": channels, "test_fraction": 1.0, "val_fraction": 0.0}
        data_config = data_config.model_copy(update=fixed | learned)
    elif CHANNELS[data_config.name] > channels:
        raise UserError(
            f"data={data_config.name}: has images in colour, and the run was trained on gray ones"
        )
    else:
        data_config = data_config.model_copy(update=learned)
    named = any(word.startswith("cache_dir=") for word in words)
    cache_dir = cache_folder(given.cache_dir) if named else left.cache_dir
    graded = any(metric.endswith("/kappa") for metric in left.record.metrics)
    data, digests = prepare_test(data_config, cache_dir, left.provenance.classes, graded=graded)
    trained_on = _trained_on(left, digests)
    return LabelledImages(data, False, trained_on, cache_dir)


def _task_of_the_run(left: Left, data: DataConfig) -> dict[str, Any]:
    """What changes in the config of others' images, so that they are labelled as the run's were.

    Raises:
        UserError: their labels are of another task, or of none of the run's findings.
    """
    if not is_multilabel(left.record.config["data"]):
        return {}
    if not isinstance(data, NihData | ChexpertData | MimicData | CsvData):
        raise UserError(
            f"data={data.name}: each image is of one class, and the run learned several findings; "
            "allowed are csv, nih, chexpert and mimic_cxr"
        )
    learned = left.provenance.classes
    if isinstance(data, CsvData):
        labelled = labelled_findings(data, learned)
    else:
        labelled = tuple(name for name in learned if name in data.every)
    if not labelled:
        raise UserError(
            f"data={data.name}: labels none of the findings that the run learned "
            f"({', '.join(learned)}); name them alike"
        )
    task = {"task": "multilabel", "findings": list(labelled)}
    return task if isinstance(data, CsvData) else task | {"finding": None}


def _trained_on(left: Left, digests: Sequence[str]) -> int | None:
    """How many images, by the SHA-256 of their contents, are in the run's account."""
    account = left.provenance.taken[-1].account
    for one in Accounts(left.cache_dir).read():
        if one.id == account and one.images is not None:
            return sum(bytes.fromhex(digest) in one.images for digest in digests)
    return None
