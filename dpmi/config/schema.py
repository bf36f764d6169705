"""The schema of a composed config: what Hydra's YAML must satisfy before any work is done.

``conf/`` holds the values and says in a comment what each key means; its neighbours hold the
types and the limits of each, this file what must hold between them. Neither imports torch or
Lightning, so that ``--help`` stays fast.
"""

from __future__ import annotations

from typing import Annotated, Any, Self, get_args

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from dpmi.base.errors import UserError, cause_for_user
from dpmi.config.beta import check_beta
from dpmi.config.data_sets import DataConfig
from dpmi.config.heads import check_heads
from dpmi.config.networks import check_network
from dpmi.config.sections import (
    DpsgdMechanism,
    DpsgdPublishedMechanism,
    LdpMechanism,
    LoggerConfig,
    MechanismConfig,
    ModelSettings,
    PrivacyConfig,
    TrainerConfig,
)
from dpmi.config.tasks import check_task
from dpmi.config.values import CountOrAuto, Place, Scale, Section, Seed

SAME_VIEWS = "under data.augment=none all views of an image are the same; allowed is 1"
GIVEN = "given"  # stands for the number of a noise_seed


class Config(Section):
    """A whole run."""

    seed: Seed
    noise_seed: Annotated[int, Field(ge=0)] | None
    beta: Scale
    max_grad_norm: Scale
    max_physical_batch_size: CountOrAuto
    output_dir: Place
    cache_dir: Place
    rerun: bool
    privacy: PrivacyConfig
    data: DataConfig
    mechanism: MechanismConfig
    model: ModelSettings
    trainer: TrainerConfig
    logger: LoggerConfig

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.data.resize is not None and self.data.resize < self.data.image_size:
            raise ValueError(
                f"data.resize={self.data.resize}: smaller than data.image_size="
                f"{self.data.image_size}, which is cut out of it; allowed is "
                f"{self.data.image_size} or more, or null"
            )
        if self.data.resident is True and self.data.num_workers:
            raise ValueError(
                f"data.num_workers={self.data.num_workers}: under data.resident=true batches are "
                "made where the images lie, by the training process; allowed is 0"
            )
        if isinstance(self.mechanism, DpsgdMechanism) and self.model.norm == "batch":
            raise ValueError(
                "model.norm=batch: BatchNorm mixes the images of a batch, so clipping bounds "
                f"nothing under mechanism={self.mechanism.name}; allowed are group and frozen_batch"
            )
        if self.trainer.devices > 1 and self.mechanism.name == "dpsgd_published":
            raise ValueError(
                f"trainer.devices={self.trainer.devices}: mechanism=dpsgd_published is what the "
                "poster's authors ran, with BatchNorm over one device's batch; allowed is 1"
            )
        if self.trainer.devices > 1 and self.model.norm == "batch":
            raise ValueError(
                f"model.norm=batch: with trainer.devices={self.trainer.devices} each device would "
                "keep statistics of its own part of a batch; allowed are group and frozen_batch"
            )
        check_network(self)
        check_task(self)
        check_heads(self)
        check_beta(self)
        self._can_show_views()
        self._can_be_frozen()
        side = self.data.resize or self.data.image_size
        if isinstance(self.mechanism, LdpMechanism) and side % self.mechanism.pool:
            raise ValueError(
                f"mechanism.pool={self.mechanism.pool}: blocks of that side do not fill an image "
                f"of {side} x {side} pixels (data.resize, else data.image_size); allowed is what "
                f"divides {side}"
            )
        if isinstance(self.mechanism, DpsgdPublishedMechanism):
            self._is_as_published(self.mechanism)
        if self.trainer.test_every_epoch and self.mechanism.has_epsilon:
            raise ValueError(
                "trainer.test_every_epoch=True: choosing an epoch on the test images flatters it, "
                f"and is not done under mechanism={self.mechanism.name}; allowed is false"
            )
        for budget in ("max_epsilon", "max_total_epsilon"):
            value = getattr(self.privacy, budget)
            if value is not None and not self.mechanism.has_epsilon:
                raise ValueError(
                    f"privacy.{budget}={value:g}: no ε holds for mechanism={self.mechanism.name}, "
                    "so no budget does; allowed is null"
                )
            if value is not None and self.noise_seed is not None:
                raise ValueError(
                    f"privacy.{budget}={value:g}: no ε holds where noise_seed repeats the noise, "
                    "so no budget does; allowed is null, or noise_seed=null"
                )
        if self.noise_seed is not None and self.trainer.open:
            raise ValueError(
                f"trainer.{self.trainer.open[0]}=auto: noise_seed repeats a run to the bit, and "
                "another time another value may be picked; give one, or noise_seed=null"
            )
        if self.trainer.compile is True and (
            isinstance(self.mechanism, DpsgdPublishedMechanism)
            or (isinstance(self.mechanism, DpsgdMechanism) and self.mechanism.engine == "opacus")
        ):
            raise ValueError(
                "trainer.compile=True: compiled code runs no hooks of Opacus, and goes backward "
                "once, not once for each microbatch; allowed is false, or mechanism none, ldp, or "
                "dpsgd with mechanism.engine=fast"
            )
        if self.model.norm == "frozen_batch" and self.model.weights is None:
            raise ValueError(
                "model.norm=frozen_batch: freezes the statistics of pretraining, but "
                "model.weights=null has none; allowed are batch and group, or give model.weights"
            )
        return self

    @property
    def multilabel(self) -> bool:
        """Whether an image has several findings, in place of one class."""
        return getattr(self.data, "task", "classes") == "multilabel"

    @property
    def frozen(self) -> str | None:
        """``model.frozen`` without auto: which layers keep their public weights."""
        model = self.model
        if model.frozen != "auto":
            return model.frozen
        private = isinstance(self.mechanism, DpsgdMechanism)
        return "all_but_norms" if private and self._frozen_refused() is None else None

    @property
    def learning_rate(self) -> float:
        """``model.learning_rate`` without auto."""
        rate = self.model.learning_rate
        if rate != "auto":
            return rate
        return 0.05 if self.frozen == "all_but_norms" else 0.01

    @property
    def noise_walk(self) -> float | None:
        """``mechanism.noise_walk`` without auto; None where noise may move weights as it does.

        Scales of normalisation layers are about 1, and kernels some hundredths: what is far for
        these is not for those.
        """
        if not isinstance(self.mechanism, DpsgdMechanism) or self.model.train == "head":
            return None
        walk = self.mechanism.noise_walk
        if walk != "auto":
            return walk
        return 0.05 if self.frozen == "all_but_norms" else 0.008

    @property
    def draws_patients(self) -> bool:
        """Whether a batch may have patients, of whom ``data.multiplicity`` images are drawn."""
        return self.privacy.unit != "image" and isinstance(self.mechanism, DpsgdMechanism)

    def _can_show_views(self) -> None:
        refused = None
        if self.data.augment == "none" and not self.draws_patients:
            refused = SAME_VIEWS
        elif self.mechanism.name == "dpsgd_published":
            refused = (
                "mechanism=dpsgd_published is what the poster's authors ran, one view of an image "
                "at each step; allowed is 1"
            )
        if self.data.multiplicity > 1 and refused:
            raise ValueError(f"data.multiplicity={self.data.multiplicity}: {refused}")

    def _can_be_frozen(self) -> None:
        layers, refused = self.model.frozen, self._frozen_refused()
        if layers not in (None, "auto") and refused:
            raise ValueError(f"model.frozen={layers}: {refused}; allowed is null")

    def _frozen_refused(self) -> str | None:
        """Why no layer may keep its public weights."""
        if self.model.train == "head":
            return "under model.train=head all layers but the head are frozen"
        if self.model.weights is None:
            return "model.weights=null are random, and would stay so"
        if self.model.norm == "batch":
            return "model.norm=batch would still move the statistics of the frozen layers"
        return None

    def _is_as_published(self, mechanism: DpsgdPublishedMechanism) -> None:
        """There is nothing to rerun where the authors ran nothing."""
        numbers = mechanism.noise_multipliers.get(self.data.name)
        microbatches = mechanism.microbatches.get(self.data.name)
        if numbers is None or microbatches is None:
            raise ValueError(
                f"data={self.data.name}: mechanism=dpsgd_published has no numbers for it; allowed "
                f"are {', '.join(sorted(mechanism.noise_multipliers.keys()))}"
            )
        if self.beta not in numbers:
            raise ValueError(
                f"beta={self.beta:g}: mechanism.noise_multipliers has no number for it; allowed "
                f"are {', '.join(f'{beta:g}' for beta in sorted(numbers))}"
            )
        if self.data.batch_size == "all" or self.data.batch_size % microbatches:
            raise ValueError(
                f"data.batch_size={self.data.batch_size}: cannot be divided into {microbatches} "
                f"equal microbatches; allowed are multiples of {microbatches}"
            )
        if self.model.norm != "batch":
            raise ValueError(
                f"model.norm={self.model.norm}: mechanism=dpsgd_published is what the poster's "
                "authors ran, with BatchNorm in training mode; allowed is batch"
            )


def plain_values(config: Config, exclude: Any = None) -> dict[str, Any]:
    """Plain values of a config, to be written down or shown.

    Of ``noise_seed`` only whether one was given: whoever has it can take the noise off.

    Args:
        config: the config.
        exclude: keys to leave out, as pydantic takes them.
    """
    values = config.model_dump(mode="json", exclude=exclude)
    return values | {"noise_seed": None if config.noise_seed is None else GIVEN}


def schema_keys() -> set[str]:
    """Every key that some config may have, dotted: ``beta``, ``data.root``, ..."""
    return _keys(Config)


def _keys(section: type[BaseModel]) -> set[str]:
    keys = set()
    for name, field in section.model_fields.items():
        members = get_args(field.annotation) or (field.annotation,)  # a union: one for each option
        for member in members:
            if isinstance(member, type) and issubclass(member, BaseModel):
                keys |= {f"{name}.{key}" for key in _keys(member)}
            else:
                keys.add(name)
    return keys


def load_config(composed: DictConfig) -> Config:
    """Check what Hydra composed (its own ``hydra`` node aside) against the schema.

    Raises:
        UserError: names every key that does not fit, its value, and what is allowed.
    """
    own = OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "hydra"])
    try:
        values = OmegaConf.to_container(own, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        if refusal := cause_for_user(error):  # of a resolver
            raise UserError(f"{error.full_key}={refusal}") from error
        line = " ".join(str(error).split()).split(" full_key:")[0]
        raise UserError(f"{error.full_key}: {line[0].lower()}{line[1:]}") from error
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise UserError("; ".join(_explain(e) for e in error.errors())) from error


def _explain(error: ErrorDetails) -> str:
    """One clause a mistake: key, value, what is allowed."""
    if error["type"] == "value_error" and not error["loc"]:  # of the whole: names its keys itself
        return str(error["ctx"]["error"])
    # In a union pydantic puts the member's name second: data.phantom_xray.image_size.
    keys = [str(part) for part in error["loc"]]
    if keys[0] in ("data", "mechanism", "logger") and len(keys) > 2:
        del keys[1]
    key, message = ".".join(keys), error["msg"]
    if error["type"] == "extra_forbidden":
        return f"{key}: no such key here; remove it"
    if error["type"] == "union_tag_invalid":
        return f"{key}.name={error['ctx']['tag']}: allowed are {', '.join(_names_for(key, error))}"
    if error["type"] == "missing":
        return f"{key}: no value; give one"
    message = message.removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    return f"{key}={error['input']}: {message}"


def _names_for(section: str, error: ErrorDetails) -> list[str]:
    """Names that a section of these keys may have; of all its options where none has them."""
    options = get_args(Config.model_fields[section].annotation)
    fits = [option for option in options if option.model_fields.keys() == error["input"].keys()]
    return [
        name
        for option in fits or options
        for name in get_args(option.model_fields["name"].annotation)
    ]
