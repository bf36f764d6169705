"""The section `data` of a config, for each data set: its keys, their types and limits."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from dpmi.config.values import (
    Count,
    CountOrAll,
    DepthOrAuto,
    Drawn,
    Fraction,
    Names,
    Range,
    Section,
    Seed,
    TruthOrAuto,
    Window,
)

SMALLEST_IMAGE = 32  # most networks halve an image five times: 32 px leave one value a channel


class _Images(Section):
    """What every data set is asked."""

    image_size: Annotated[int, Field(ge=SMALLEST_IMAGE, le=1024)]
    resize: Annotated[int, Field(ge=SMALLEST_IMAGE, le=1024)] | None
    batch_size: CountOrAll
    augment: Literal["none", "affine"]
    multiplicity: Count
    on_corrupt: Literal["error", "skip"]
    num_workers: Annotated[int, Field(ge=0, le=1024)]
    resident: TruthOrAuto
    groups: Names


class PhantomData(_Images):
    """Images drawn by the program."""

    name: Literal["phantom_xray", "phantom_fundus"]
    seed: Annotated[int, Field(ge=0)]
    train_images: Annotated[Drawn, Field(ge=1)]
    val_images: Drawn
    test_images: Annotated[Drawn, Field(ge=1)]


class _Files(_Images):
    max_left_out: Annotated[float, Field(ge=0, le=1)]


class BenchmarkData(_Files):
    """The poster's two sets, from disk."""

    name: Literal["chest_xray", "aptos"]
    root: str
    test: Literal["official", "other_patients", "held_out"]


class MedmnistData(_Images):
    """Sets of flat images with one label each that the medmnist package downloads."""

    name: Literal[
        "pathmnist", "dermamnist", "octmnist", "pneumoniamnist", "retinamnist", "breastmnist",
        "bloodmnist", "tissuemnist", "organamnist", "organcmnist", "organsmnist",
    ]  # fmt: skip
    root: str | None
    size: Literal[28, 64, 128, 224]


_NihFinding = Literal[
    "Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Effusion", "Emphysema", "Fibrosis",
    "Hernia", "Infiltration", "Mass", "Nodule", "Pleural_Thickening", "Pneumonia", "Pneumothorax",
    "No Finding",
]  # fmt: skip
_ChexpertFinding = Literal[
    "Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Enlarged Cardiomediastinum",
    "Fracture", "Lung Lesion", "Lung Opacity", "Pleural Effusion", "Pleural Other", "Pneumonia",
    "Pneumothorax", "Support Devices", "No Finding",
]  # fmt: skip


class _ArchiveData(_Files):
    root: str
    on_missing: Literal["error", "skip"]


class NihData(_ArchiveData):
    """NIH ChestX-ray14: one finding against the rest."""

    name: Literal["nih"]
    finding: _NihFinding
    val_fraction: Fraction
    split_seed: Seed


class _LabelledReports(_ArchiveData):
    finding: _ChexpertFinding
    uncertain: Literal["ignore", "positive", "negative"]
    views: Literal["frontal", "all"]


class ChexpertData(_LabelledReports):
    """CheXpert: one finding against the rest."""

    name: Literal["chexpert"]
    val_fraction: Fraction
    split_seed: Seed


class MimicData(_LabelledReports):
    """MIMIC-CXR-JPG: one finding against the rest."""

    name: Literal["mimic_cxr"]


class GradedData(_ArchiveData):
    """Both eyes of patients, graded for retinopathy."""

    name: Literal["eyepacs", "messidor2"]
    val_fraction: Fraction
    test_fraction: Fraction
    split_seed: Seed


ArchiveData = NihData | ChexpertData | MimicData | GradedData


class _OwnData(_Files):
    root: str
    channels: Literal[1, 3]
    bit_depth: DepthOrAuto
    window: Window
    value_range: Range
    graded: bool
    many_classes: bool
    val_fraction: Fraction
    test_fraction: Fraction
    split_seed: Seed


class FolderData(_OwnData):
    """A user's images, a class per subfolder."""

    name: Literal["folder"]


class CsvData(_OwnData):
    """A user's images, listed in a CSV file."""

    name: Literal["csv"]
    csv: str


DataConfig = Annotated[
    PhantomData
    | BenchmarkData
    | MedmnistData
    | NihData
    | ChexpertData
    | MimicData
    | GradedData
    | FolderData
    | CsvData,
    Field(discriminator="name"),
]
