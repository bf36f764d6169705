"""One small reader for each data set: from a config to a catalogue."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

from dpmi.base.errors import UserError
from dpmi.config.data_sets import BenchmarkData, CsvData, DataConfig, FolderData, MedmnistData
from dpmi.data.catalogue import Catalogue
from dpmi.data.readers.aptos import read_aptos
from dpmi.data.readers.chest_xray import read_chest_xray
from dpmi.data.readers.chexpert import read_chexpert
from dpmi.data.readers.csv_file import read_csv_file
from dpmi.data.readers.folder import read_folder
from dpmi.data.readers.graded import read_eyepacs, read_messidor2
from dpmi.data.readers.medmnist import read_medmnist
from dpmi.data.readers.medmnist_sets import MEDMNIST
from dpmi.data.readers.mimic_cxr import read_mimic_cxr
from dpmi.data.readers.nih import read_nih
from dpmi.data.readers.phantom import read_phantom
from dpmi.data.splitting import held_out_patients, patients_of_test_left_out

# By the config's data.name. Each reader takes its own section and the folder for downloads.
READERS: dict[str, Callable[[Any, Path], Catalogue]] = {
    "phantom_xray": lambda config, _: read_phantom(config),
    "phantom_fundus": lambda config, _: read_phantom(config),
    "chest_xray": lambda config, _: read_chest_xray(config),
    "aptos": lambda config, _: read_aptos(config),
    "nih": lambda config, _: read_nih(config),
    "chexpert": lambda config, _: read_chexpert(config),
    "mimic_cxr": lambda config, _: read_mimic_cxr(config),
    "eyepacs": lambda config, _: read_eyepacs(config),
    "messidor2": lambda config, _: read_messidor2(config),
    **dict.fromkeys(get_args(MedmnistData.model_fields["name"].annotation), read_medmnist),
    "folder": lambda config, _: read_folder(config),
    "csv": lambda config, _: read_csv_file(config),
}


# Of the images as they are decoded, by the config's data.name; a user's own have data.channels.
CHANNELS: dict[str, int] = {
    "phantom_xray": 1,
    "phantom_fundus": 3,
    "chest_xray": 1,
    "aptos": 3,
    "nih": 1,
    "chexpert": 1,
    "mimic_cxr": 1,
    "eyepacs": 3,
    "messidor2": 3,
    **{name: its.channels for name, its in MEDMNIST.items()},
}

_TESTS: dict[str, Callable[[Catalogue], Catalogue]] = {
    "official": lambda catalogue: catalogue,
    "other_patients": patients_of_test_left_out,
    "held_out": held_out_patients,
}


def read_catalogue(config: DataConfig, cache_dir: Path) -> Catalogue:
    """Find the images of a data set, their labels, patients, splits and groups; decode nothing.

    Of groups those that ``data.groups`` asks for.

    Raises:
        UserError: there are no such data, or they cannot be used, or have no such groups.
    """
    catalogue = READERS[config.name](config, cache_dir)
    requested = config.groups or ()
    for column in requested:
        if column not in catalogue.groups:
            raise _no_such_groups(config, column, sorted(catalogue.groups))
    catalogue = catalogue.grouped_by(requested)
    return _TESTS[config.test](catalogue) if isinstance(config, BenchmarkData) else catalogue


def _no_such_groups(config: DataConfig, column: str, known: list[str]) -> UserError:
    refusal = f"data.groups={column}: data={config.name} has no such groups; allowed "
    if known:
        return UserError(f"{refusal}are {', '.join(known)}, or null")
    if isinstance(config, FolderData):
        return UserError(
            f"{refusal}is null. To have them, list the images in a CSV file with the columns path, "
            f"label and {column}, and give data=csv data.csv=FILE"
        )
    if isinstance(config, CsvData):
        return UserError(f"{refusal}is null: its table has no column beside those known; add one")
    return UserError(f"{refusal}is null")
