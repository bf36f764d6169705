"""The sections mechanism, model, trainer, privacy, logger of a config, their types and limits."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, get_args

from pydantic import AfterValidator, Field

from dpmi.backbones import names
from dpmi.config.values import (
    Count,
    DeltaOrAuto,
    EachOnce,
    Name,
    Place,
    Positive,
    RateOrAuto,
    Scale,
    Section,
    Share,
    WalkOrAuto,
)

NAMED_WEIGHTS = ("phantom", "imagenet", None)  # else a path


class MechanismSettings(Section):
    """What every mechanism has.

    Attributes:
        title: its name in tables and charts.
        has_epsilon: whether its guarantee is an ε.
        uses: keys outside of its section that change what it computes; the others are no part of a
            run's identity.
    """

    name: str
    title: ClassVar[str]
    has_epsilon: ClassVar[bool] = False
    uses: ClassVar[frozenset[str]] = frozenset({"beta"})


class NoMechanism(MechanismSettings):
    """Training without privacy."""

    name: Literal["none"]
    title = "original"
    uses = frozenset()


class LdpMechanism(MechanismSettings):
    """Local DP: Laplace noise on each training image, once."""

    name: Literal["ldp"]
    title = "LDP"
    has_epsilon = True
    pool: Literal[1, 2, 4]
    matched: bool


class LdpFeaturesMechanism(MechanismSettings):
    """Local DP of whole images: one randomized bit of each image's features and label, once."""

    name: Literal["ldp_features"]
    title = "LDP of features"
    has_epsilon = True


class BudgetShares(Section):
    """Shares of a run's budget, in μ², of what is released beside the steps."""

    centre: Share
    head: Share
    counts: Share
    logits: Share


class CentreShare(Section):
    """The same, where nothing but a centre is released beside."""

    centre: Share


class DpsgdMechanism(MechanismSettings):
    """DP-SGD: clipped per-example gradients with Gaussian noise."""

    name: Literal["dpsgd"]
    title = "DP-SGD"
    has_epsilon = True
    uses = frozenset({"beta", "max_grad_norm", "max_physical_batch_size"})
    calibration: Literal["epsilon", "noise_multiplier"]
    accountant: Literal["prv", "rdp", "pld"]
    delta: DeltaOrAuto
    engine: Literal["fast", "opacus"]
    whiten: bool
    noise_walk: WalkOrAuto
    shares: BudgetShares


class ClassMeansMechanism(MechanismSettings):
    """One Gaussian release of class sums, counts, moments; the classifier is post-processing."""

    name: Literal["class_means"]
    title = "class means"
    has_epsilon = True
    accountant: Literal["prv", "rdp", "pld"]
    delta: DeltaOrAuto
    count_scale: Scale
    moment_scale: Scale | None
    shares: CentreShare


class LdpPublishedMechanism(MechanismSettings):
    """LDP as the poster's authors ran it: one Laplace number an image. No ε."""

    name: Literal["ldp_published"]
    title = "LDP as published"


class DpsgdPublishedMechanism(MechanismSettings):
    """DP-SGD as the poster's authors ran it: microbatches and BatchNorm. No ε."""

    name: Literal["dpsgd_published"]
    title = "DP-SGD as published"
    uses = frozenset({"beta", "max_grad_norm"})
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
MECHANISMS: dict[str, type[MechanismSettings]] = {
    get_args(its.model_fields["name"].annotation)[0]: its
    for its in get_args(get_args(MechanismConfig)[0])
}


_Feature = Literal["layer1", "layer2", "layer3", "layer4", "penultimate"]


class FeatureSettings(Section):
    """What a head sees of an image."""

    stages: Annotated[list[_Feature], EachOnce]
    views: Annotated[list[Literal["identity", "mirror", "half_turn"]], EachOnce]
    exposure: Literal["as_is", "per_image"]
    project: Annotated[int, Field(ge=1, le=64)] | None
    drawn_classes: bool
    centre: bool


def _known_network(name: str) -> str:
    if name in names():
        return name
    raise ValueError(f"allowed are {', '.join(names())}")


class ModelSettings(Section):
    """A network, what of it is trained, and how it learns and decides."""

    name: Annotated[str, AfterValidator(_known_network)]
    weights: Place | None
    input: Literal["auto", "imagenet", "half", "xrv"]
    train: Literal["all", "head", "head_then_all"]
    frozen: Literal["auto", "all_but_norms", "stem", "layer1", "layer2", "layer3"] | None
    head: Literal["linear", "ordinal"]
    features: FeatureSettings
    prior: Literal["train", "uniform", "midway"]
    average: Literal["none", "last_half"]
    schedule: Literal["constant", "cosine"]
    norm: Literal["batch", "group", "frozen_batch", "layer"]
    learning_rate: RateOrAuto
    weight_decay: Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]
    momentum: Annotated[float, Field(ge=0, lt=1)]
    gradient_clip_val: Positive | None


class TrainerConfig(Section):
    """Lightning's Trainer."""

    max_epochs: Count
    accelerator: Literal["auto", "cpu", "gpu"]
    precision: Literal["auto", "32-true", "bf16-mixed"]
    channels_last: bool | Literal["auto"]
    compile: bool | Literal["auto"]
    devices: Count
    test_every_epoch: bool
    checkpoint_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)]

    @property
    def open(self) -> tuple[str, ...]:
        """Keys that leave it to a run to pick."""
        keys = ("precision", "channels_last", "compile")
        return tuple(key for key in keys if getattr(self, key) == "auto")


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
    experiment: Name
    tracking_uri: Name | None


LoggerConfig = Annotated[
    CsvLogger | WandbConfig | TensorboardConfig | MlflowConfig, Field(discriminator="name")
]
