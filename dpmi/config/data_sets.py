"""The section `data` of a config, for each data set: its keys, their types and limits."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import BeforeValidator, Field, model_validator

from dpmi.config.values import (
    Count,
    CountOrAll,
    DepthOrAuto,
    Drawn,
    EachOnce,
    Fraction,
    Names,
    Place,
    Range,
    Section,
    Seed,
    TruthOrAuto,
    Window,
    listed,
)

SMALLEST_IMAGE = 32  # most networks halve an image five times: 32 px leave one value a channel


class _Images(Section):
    """Keys of every data set."""

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
    root: Place
    test: Literal["official", "other_patients", "held_out"]


class MedmnistData(_Images):
    """Sets of flat images with one label each that the medmnist package downloads."""

    name: Literal[
        "pathmnist", "dermamnist", "octmnist", "pneumoniamnist", "retinamnist", "breastmnist",
        "bloodmnist", "tissuemnist", "organamnist", "organcmnist", "organsmnist",
    ]  # fmt: skip
    root: Place | None
    size: Literal[28, 64, 128, 224]


NihFinding = Literal[
    "Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Effusion", "Emphysema", "Fibrosis",
    "Hernia", "Infiltration", "Mass", "Nodule", "Pleural_Thickening", "Pneumonia", "Pneumothorax",
]  # fmt: skip
ChexpertFinding = Literal[
    "Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Enlarged Cardiomediastinum",
    "Fracture", "Lung Lesion", "Lung Opacity", "Pleural Effusion", "Pleural Other", "Pneumonia",
    "Pneumothorax", "Support Devices",
]  # fmt: skip
_FIRST = "Pneumonia"  # the finding of task=classes where none is given


class _Task(Section):
    """One class an image, or several findings."""

    task: Literal["classes", "multilabel"]


class _Findings(_Task):
    """One finding against the rest, or several."""

    every: ClassVar[tuple[str, ...]]

    @model_validator(mode="before")
    @classmethod
    def _which(cls, given: Any) -> Any:
        """So that a record says which finding it was."""
        if isinstance(given, dict) and given.get("task") == "classes":
            return given | {"finding": given.get("finding") or _FIRST}
        return given

    @property
    def learned(self) -> tuple[str, ...]:
        """The findings that are learned."""
        given: Any = self
        if self.task == "classes":
            return (given.finding,)
        return tuple(given.findings or self.every)


class _ArchiveData(_Files):
    root: Place
    on_missing: Literal["error", "skip"]


class NihData(_ArchiveData, _Findings):
    """NIH ChestX-ray14."""

    name: Literal["nih"]
    finding: Literal[NihFinding, "No Finding"] | None
    findings: Annotated[Annotated[list[NihFinding], EachOnce] | None, BeforeValidator(listed)]
    every = get_args(NihFinding)
    val_fraction: Fraction
    split_seed: Seed


class _LabelledReports(_ArchiveData, _Findings):
    finding: Literal[ChexpertFinding, "No Finding"] | None
    findings: Annotated[Annotated[list[ChexpertFinding], EachOnce] | None, BeforeValidator(listed)]
    every = get_args(ChexpertFinding)
    uncertain: Literal["ignore", "positive", "negative"]
    views: Literal["frontal", "all"]


class ChexpertData(_LabelledReports):
    """CheXpert."""

    name: Literal["chexpert"]
    val_fraction: Fraction
    split_seed: Seed


class MimicData(_LabelledReports):
    """MIMIC-CXR-JPG."""

    name: Literal["mimic_cxr"]


class GradedData(_ArchiveData):
    """Both eyes of patients, graded for retinopathy."""

    name: Literal["eyepacs", "messidor2"]
    val_fraction: Fraction
    test_fraction: Fraction
    split_seed: Seed


ArchiveData = NihData | ChexpertData | MimicData | GradedData


class _OwnData(_Files):
    root: Place
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


class CsvData(_OwnData, _Task):
    """A user's images, listed in a CSV file."""

    name: Literal["csv"]
    csv: Place
    findings: Names


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
