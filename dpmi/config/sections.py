"""The sections of a config, their types and limits: data, mechanism, model, trainer, logger."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator

from dpmi.models.backbones import names

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1)]


def _count_or_auto(value: object) -> object:
    if value == "auto" or (type(value) is int and value >= 1):
        return value
    raise ValueError("allowed are auto and integers greater than or equal to 1")


def _truth_or_auto(value: object) -> object:
    if value == "auto" or type(value) is bool:
        return value
    raise ValueError("allowed are auto, true and false")


def _count_or_all(value: object) -> object:
    if value == "all" or (type(value) is int and value >= 1):
        return value
    raise ValueError("allowed are all and integers greater than or equal to 1")


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

SMALLEST_IMAGE = 32  # most networks halve an image five times: 32 px leave one value a channel


class Section(BaseModel):
    """Refuses keys that it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class _Images(Section):
    """What every data set is asked."""

    image_size: Annotated[int, Field(ge=SMALLEST_IMAGE, le=1024)]
    resize: Annotated[int, Field(ge=SMALLEST_IMAGE, le=1024)] | None
    batch_size: CountOrAll
    augment: Literal["none", "affine"]
    multiplicity: Count
    on_corrupt: Literal["error", "skip"]
    num_workers: Annotated[int, Field(ge=0)]
    resident: TruthOrAuto
    groups: Names


class PhantomData(_Images):
    """Images drawn by the program."""

    name: Literal["phantom_xray", "phantom_fundus"]
    seed: Annotated[int, Field(ge=0)]
    train_images: Count
    val_images: Annotated[int, Field(ge=0)]
    test_images: Count


class BenchmarkData(_Images):
    """The poster's two sets, from disk."""

    name: Literal["chest_xray", "aptos"]
    root: str
    test: Literal["official", "other_patients", "held_out"]


class MedmnistData(_Images):
    """Sets that the medmnist package downloads."""

    name: Literal["pneumoniamnist", "retinamnist"]
    root: str | None
    size: Literal[28, 64, 128, 224]


class _OwnData(_Images):
    root: str
    channels: Literal[1, 3]
    graded: bool
    val_fraction: Fraction
    test_fraction: Fraction
    split_seed: Annotated[int, Field(ge=0)]


class FolderData(_OwnData):
    """A user's images, a class per subfolder."""

    name: Literal["folder"]


class CsvData(_OwnData):
    """A user's images, listed in a CSV file."""

    name: Literal["csv"]
    csv: str


DataConfig = Annotated[
    PhantomData | BenchmarkData | MedmnistData | FolderData | CsvData,
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
    count_scale: Positive
    moment_scale: Positive | None
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
    learning_rate: Positive
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)]
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


class CsvLogger(Section):
    """The CSV log alone."""

    name: Literal["csv"]
    sample_images: Literal["public", "all", "none"]
    nonprivate: bool


class WandbConfig(Section):
    """Weights & Biases beside the CSV log."""

    name: Literal["wandb"]
    project: str
    entity: str | None
    mode: Literal["auto", "online", "offline"]
    sample_images: Literal["public", "all", "none"]
    nonprivate: bool


LoggerConfig = Annotated[CsvLogger | WandbConfig, Field(discriminator="name")]
