"""What may leave the house: the one list, which ``public.json`` and the door to trackers go by.

Of public data sets (drawn by the program, or published by others) all metrics may leave. Of a
user's own only what is listed here, unless ``logger.nonprivate=true``: a name that nobody has
listed stays. Whoever adds a metric, a config key or a field of the guarantee decides here.

Groups of a user's own test images never leave: neither their names, which come from the user's
table and may identify people, nor their metrics, which for a group of one are a diagnosis.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import fields
from typing import Any, TypeVar

from dpmi.base.errors import UserError
from dpmi.config.sections import NAMED_WEIGHTS
from dpmi.models.names import NONPRIVATE
from dpmi.privacy.guarantee import Guarantee
from dpmi.privacy.risk import Risk

Value = TypeVar("Value")
Group = TypeVar("Group")

# What users bring, and sets that are lent to who signed not to pass them on; others are public.
LENT = frozenset({"chexpert", "mimic_cxr", "messidor2"})
OWN_DATA = frozenset({"folder", "csv"}) | LENT

# Values of training steps that a mechanism released, and those that no image has a part in.
RELEASED = frozenset({"epsilon", "delta"})
WITHOUT_IMAGES = frozenset({"learning_rate", "epoch"})
# Metrics by what they are a statistic of: no ε covers those images either, and the names say so.
TEST, SELECTED, VALIDATION = "test/", "selected_on_test/", "val/"
_NAMED = (f"{NONPRIVATE}/", TEST, SELECTED, VALIDATION)
_PUBLIC_NAMES = {TEST: "test_images/", SELECTED: "selected_on_test_images/"}

# Of the config, whatever the data: what is to be known to judge the guarantee and the accuracy.
CONFIG = frozenset({
    "seed", "beta", "max_grad_norm",
    *(f"privacy.{key}" for key in ("unit", "max_epsilon", "max_total_epsilon")),
    *(f"data.{key}" for key in ("name", "image_size", "resize", "channels", "graded")),
    *(f"data.{key}" for key in ("bit_depth", "window", "value_range")),
    "data.augment", "data.multiplicity", "data.uncertain", "data.views",
    "data.task", "data.finding", "data.findings",
    *(f"mechanism.{key}" for key in (
        "name", "matched", "pool", "calibration", "accountant", "delta", "engine", "whiten",
        "noise_walk", "count_scale", "moment_scale", "shares.centre", "shares.head",
        "shares.counts", "shares.logits",
    )),
    *(f"model.{key}" for key in (
        "name", "weights", "input", "norm", "learning_rate", "weight_decay", "momentum", "train",
        "gradient_clip_val", "head", "prior", "average", "schedule", "frozen",
        *(f"features.{key}" for key in (
            "stages", "views", "exposure", "project", "centre", "drawn_classes",
        )),
    )),
    *(f"trainer.{key}" for key in (
        "max_epochs", "accelerator", "precision", "channels_last", "compile", "devices",
        "test_every_epoch",
    )),
})  # fmt: skip
# Of public data beside it: batches, and which of its images.
CONFIG_OF_PUBLIC_DATA = frozenset({
    "max_physical_batch_size",
    *(f"data.{key}" for key in (
        "test", "batch_size", "seed", "train_images", "val_images", "test_images", "size",
        "on_corrupt", "on_missing", "val_fraction", "test_fraction", "split_seed", "num_workers",
        "resident",
    )),
    *(f"mechanism.{key}" for key in ("claimed_delta", "microbatches", "noise_multipliers")),
})  # fmt: skip
# Of public data: what was executed, from which others can compute ε. It tells the batch size.
_EXECUTED = frozenset({
    "plan", "ledger", "lost_steps", "microbatches", "max_grad_norm", "noise_multiplier", "steps",
    "least_blank_share", "learning_rate",
})  # fmt: skip

# Fields of the guarantee that state it. The others are facts about the images.
GUARANTEE = frozenset({
    "mechanism", "epsilon", "delta", "unit", "adjacency", "accountant", "pixel_epsilon",
    "image_epsilon", "epsilons", "replace_one_epsilon", "assumptions", "reason",
    "claim",
})  # fmt: skip
# Of what an attacker can do: all of it follows from what was executed, as ε at several δ does.
RISK = frozenset({
    "unit", "adjacency", "advantage", "accuracy", "true_positive_rates", "candidates", "curve",
})  # fmt: skip
# Of an audit, whose canaries are drawn: all but its coins and how long it took.
AUDIT = frozenset({
    "lower_bound", "method", "refuted", "claimed", "delta", "unit", "confidence", "bounds",
    "canaries", "runs", "says",
})  # fmt: skip


def is_own(config: Mapping[str, Any]) -> bool:
    """Whether the images are a user's own, or lent to them."""
    return config["data"]["name"] in OWN_DATA


def everything_may_leave(config: Mapping[str, Any]) -> bool:
    """Whether what no ε covers may leave as well: the data are public, or the user said so.

    Args:
        config: plain values of a composed config.
    """
    return not is_own(config) or bool(config["logger"]["nonprivate"])


def public_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Those keys of a config that may leave, in its own order."""
    allowed = CONFIG | CONFIG_OF_PUBLIC_DATA if everything_may_leave(config) else CONFIG
    chosen = _allowed(config, allowed, "")
    if chosen.get("model", {}).get("weights") not in NAMED_WEIGHTS:
        chosen["model"]["weights"] = "a file"
    return chosen


def _allowed(values: Mapping[str, Any], allowed: AbstractSet[str], prefix: str) -> dict[str, Any]:
    """Those values of a section whose dotted keys are allowed, and sections of such values."""
    chosen: dict[str, Any] = {}
    for name, value in values.items():
        if f"{prefix}{name}" in allowed:
            chosen[name] = value
        elif isinstance(value, Mapping) and (
            section := _allowed(value, allowed, f"{prefix}{name}.")
        ):
            chosen[name] = section
    return chosen


def public_metrics(metrics: Mapping[str, Value]) -> dict[str, Value]:
    """Metrics on test images under names that say what they are: ``test_images/accuracy``."""
    return {
        public + name.removeprefix(prefix): value
        for name, value in metrics.items()
        for prefix, public in _PUBLIC_NAMES.items()
        if name.startswith(prefix)
    }


def tested_metrics(metrics: Mapping[str, Value]) -> dict[str, Value]:
    """Public metrics under the names that they have in the house."""
    return {
        prefix + name.removeprefix(public): value
        for name, value in metrics.items()
        for prefix, public in _PUBLIC_NAMES.items()
        if name.startswith(public)
    }


def public_test_images(data: Mapping[str, Any] | None, reliability: Sequence[Any]) -> int | None:
    """The number of test images, which a reliability diagram tells where there is one."""
    return None if data is None or reliability else data["counts"].get("test")


def public_groups(groups: Sequence[Group], config: Mapping[str, Any]) -> list[Group]:
    """Metrics by group, of public data; of a user's own none, whatever ``logger.nonprivate``."""
    return [] if is_own(config) else list(groups)


def leaving_metrics(metrics: Mapping[str, Value]) -> dict[str, Value]:
    """Those that may leave though the images are a user's own, under their own names."""
    return {
        name: value
        for name, value in metrics.items()
        if name in RELEASED or name.startswith(tuple(_PUBLIC_NAMES))
    }


def public_guarantee(guarantee: Guarantee) -> Guarantee:
    """The guarantee without facts about the images."""
    return Guarantee(
        **{f.name: getattr(guarantee, f.name) for f in fields(guarantee) if f.name in GUARANTEE}
    )


def public_risk(risk: Iterable[Risk]) -> tuple[Risk, ...]:
    """The bounds on an attacker, of which nothing but the guarantee is a part."""
    return tuple(
        Risk(**{f.name: getattr(one, f.name) for f in fields(one) if f.name in RISK})
        for one in risk
    )


def public_execution(mechanism: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """What was executed, of public data; of a user's own nothing: it reveals the batch size."""
    return _only(mechanism, _EXECUTED) if everything_may_leave(config) else {}


def public_audit(audit: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The bound of an audit and what it is compared with."""
    return None if audit is None else _only(audit, AUDIT)


def refuse_unnamed(names: Iterable[str]) -> None:
    """Let nothing be logged under a name that does not say what covers it.

    Raises:
        UserError: neither released by a mechanism, nor without images, nor named for them.
    """
    for name in names:
        if name not in RELEASED | WITHOUT_IMAGES and not name.startswith(_NAMED):
            raise UserError(
                f"{name}: logged under a name that does not say what covers it; what is computed "
                f"on training images is named {NONPRIVATE}/{name}, and what a mechanism released "
                "is listed in dpmi/run/records/leaving.py"
            )


def _only(values: Mapping[str, Any], allowed: Iterable[str]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key in allowed}
