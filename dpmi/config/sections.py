"""The sections of a config, their types and limits: data, mechanism, model, trainer, logger."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator

from dpmi.backbones import names

# Nobody means numbers beyond these, on which libraries fail late, or compute infinities.
_MOST = 2**31 - 1
_LEAST_SCALE, _MOST_SCALE = 1e-9, 1e9
_MOST_RATE = 1e6

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Scale = Annotated[float, Field(ge=_LEAST_SCALE, le=_MOST_SCALE, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1, le=_MOST)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]  # numpy's and scikit-learn's generators take no other
_Drawn = Annotated[int, Field(ge=0, le=10_000_000)]  # images of which a list is kept in memory


def _count_or_auto(value: object) -> object:
    if value == "auto" or (type(value) is int and 1 <= value <= _MOST):
        return value
    raise ValueError(f"allowed are auto and integers greater than or equal to 1 and up to {_MOST}")


def _truth_or_auto(value: object) -> object:
    if value == "auto" or type(value) is bool:
        return value
    raise ValueError("allowed are auto, true and false")


def _count_or_all(value: object) -> object:
    if value == "all" or (type(value) is int and 1 <= value <= _MOST):
        return value
    raise ValueError(f"allowed are all and integers greater than or equal to 1 and up to {_MOST}")


def _each_once(names: list[str]) -> list[str]:
    if names and len(set(names)) == len(names):
        return names
    raise ValueError("name one or more, each once")


def _names(value: object) -> object:
    """A name, or several with commas between them, as a list."""
    return [name.strip() for name in value.split(",")] if isinstance(value, str) else value


def _known_network(name: str) -> str:
    if name in names():
        return name
    raise ValueError(f"allowed are {', '.join(names())}")


def _delta_or_auto(value: object) -> object:
    if value == "auto" or (isinstance(value, float) and 0 < value < 1):
        return value
    raise ValueError("allowed are auto, and numbers greater than 0 and less than 1")


TruthOrAuto = Annotated[bool | Literal["auto"], PlainValidator(_truth_or_auto)]
CountOrAuto = Annotated[int | Literal["auto"], PlainValidator(_count_or_auto)]
CountOrAll = Annotated[int | Literal["all"], PlainValidator(_count_or_all)]
Share = Annotated[float, Field(gt=0, lt=1)]
_EachOnce = AfterValidator(_each_once)
_Name = Annotated[str, Field(min_length=1)]
Names = Annotated[Annotated[list[_Name], _EachOnce] | None, BeforeValidator(_names)]

DeltaOrAuto = Annotated[float | Literal["auto"], PlainValidator(_delta_or_auto)]

NAMED_WEIGHTS = ("phantom", "imagenet", None)  # else a path
SMALLEST_IMAGE = 32  # most networks halve an image five times: 32 px leave one value a channel


class Section(BaseModel):
    """Refuses keys that it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _two_numbers(value: object) -> tuple[float, float] | None:
    """From a list, or from a text with a comma between them."""
    if value is None:
        return None
    parts = value.split(",") if isinstance(value, str) else value
    try:
        first, second = (float(part) for part in parts)  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        first = second = math.nan
    if not (math.isfinite(first) and math.isfinite(second)):
        raise ValueError("allowed are null and two numbers, as [0,4095]")
    return first, second


def _range(value: object) -> tuple[float, float] | None:
    pair = _two_numbers(value)
    if pair is not None and pair[0] >= pair[1]:
        raise ValueError("the first number must be lower than the second")
    return pair


def _window(value: object) -> tuple[float, float] | None:
    pair = _two_numbers(value)
    if pair is not None and pair[1] < 1:
        raise ValueError("the second number, the width, must be 1 or more")
    return pair


def _depth_or_auto(value: object) -> object:
    if value == "auto" or (type(value) is int and 8 <= value <= 16):
        return value
    raise ValueError("allowed are auto and integers from 8 to 16")


_Pair = tuple[float, float] | None
Range = Annotated[_Pair, PlainValidator(_range)]
Window = Annotated[_Pair, PlainValidator(_window)]
DepthOrAuto = Annotated[int | Literal["auto"], PlainValidator(_depth_or_auto)]


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
    train_images: Annotated[_Drawn, Field(ge=1)]
    val_images: _Drawn
    test_images: Annotated[_Drawn, Field(ge=1)]


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


class NoMechanism(Section):
    """Training without privacy."""

    name: Literal["none"]


class LdpMechanism(Section):
    """Local DP: Laplace noise on each training image, once."""

    name: Literal["ldp"]
    pool: Literal[1, 2, 4]
    matched: bool


class LdpFeaturesMechanism(Section):
    """Local DP of whole images: one randomized bit of each image's features and label, once."""

    name: Literal["ldp_features"]


class BudgetShares(Section):
    """Shares of a run's budget, in μ², of what is released beside the steps."""

    centre: Share
    head: Share
    counts: Share
    logits: Share


class CentreShare(Section):
    """The same, where nothing but a centre is released beside."""

    centre: Share


class DpsgdMechanism(Section):
    """DP-SGD: clipped per-example gradients with Gaussian noise."""

    name: Literal["dpsgd"]
    calibration: Literal["epsilon", "noise_multiplier"]
    accountant: Literal["prv", "rdp", "pld"]
    delta: DeltaOrAuto
    engine: Literal["fast", "opacus"]
    shares: BudgetShares


class ClassMeansMechanism(Section):
    """One Gaussian release of class sums, counts, moments; the classifier is post-processing."""

    name: Literal["class_means"]
    accountant: Literal["prv", "rdp", "pld"]
    delta: DeltaOrAuto
    count_scale: Scale
    moment_scale: Scale | None
    shares: CentreShare


class LdpPublishedMechanism(Section):
    """LDP as the poster's authors ran it: one Laplace number an image. No ε."""

    name: Literal["ldp_published"]


class DpsgdPublishedMechanism(Section):
    """DP-SGD as the poster's authors ran it: microbatches and BatchNorm. No ε."""

    name: Literal["dpsgd_published"]
    claimed_delta: Annotated[float, Field(gt=0, lt=1)]
    microbatches: dict[str, Count]
    noise_multipliers: dict[str, dict[Positive, Positive]]


MechanismConfig = Annotated[
    NoMechanism
    | LdpMechanism
    | LdpFeaturesMechanism
    | DpsgdMechanism
    | ClassMeansMechanism
    | LdpPublishedMechanism
    | DpsgdPublishedMechanism,
    Field(discriminator="name"),
]


_Feature = Literal["layer1", "layer2", "layer3", "layer4", "penultimate"]


class FeatureSettings(Section):
    """What a head sees of an image."""

    stages: Annotated[list[_Feature], _EachOnce]
    views: Annotated[list[Literal["identity", "mirror", "half_turn"]], _EachOnce]
    exposure: Literal["as_is", "per_image"]
    project: Annotated[int, Field(ge=1, le=64)] | None
    centre: bool


class ModelSettings(Section):
    """A network, what of it is trained, and how it learns and decides."""

    name: Annotated[str, AfterValidator(_known_network)]
    weights: str | None
    input: Literal["auto", "imagenet", "half", "xrv"]
    train: Literal["all", "head", "head_then_all"]
    frozen: Literal["stem", "layer1", "layer2", "layer3"] | None
    head: Literal["linear", "ordinal"]
    features: FeatureSettings
    prior: Literal["train", "uniform", "midway"]
    average: Literal["none", "last_half"]
    schedule: Literal["constant", "cosine"]
    norm: Literal["batch", "group", "frozen_batch", "layer"]
    learning_rate: Annotated[float, Field(gt=0, le=_MOST_RATE, allow_inf_nan=False)]
    weight_decay: Annotated[float, Field(ge=0, le=_MOST_RATE, allow_inf_nan=False)]
    momentum: Annotated[float, Field(ge=0, lt=1)]


class TrainerConfig(Section):
    """Lightning's Trainer."""

    max_epochs: Count
    accelerator: Literal["auto", "cpu", "gpu"]
    precision: Literal["32-true", "bf16-mixed"]
    channels_last: bool
    compile: bool
    devices: Count
    test_every_epoch: bool
    checkpoint_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)]


class PrivacyConfig(Section):
    """Whom ε protects, and what may be spent."""

    unit: Literal["auto", "image", "patient"]
    max_epsilon: Positive | None
    max_total_epsilon: Positive | None


class _Logger(Section):
    sample_images: Literal["public", "all", "none"]
    nonprivate: bool


class CsvLogger(_Logger):
    """The CSV log alone."""

    name: Literal["csv"]


def _project_name(name: str) -> str:
    if name and len(name) <= 128 and not set(name) & set("/\\#?%:"):
        return name
    raise ValueError("W&B takes 1 to 128 characters, and none of / \\ # ? % :")


_Project = Annotated[str, AfterValidator(_project_name)]


class WandbConfig(_Logger):
    """Weights & Biases beside the CSV log."""

    name: Literal["wandb"]
    project: _Project
    entity: str | None
    mode: Literal["auto", "online", "offline"]


class TensorboardConfig(_Logger):
    """TensorBoard beside the CSV log."""

    name: Literal["tensorboard"]


class MlflowConfig(_Logger):
    """MLflow beside the CSV log."""

    name: Literal["mlflow"]
    experiment: _Name
    tracking_uri: _Name | None


LoggerConfig = Annotated[
    CsvLogger | WandbConfig | TensorboardConfig | MlflowConfig, Field(discriminator="name")
]
