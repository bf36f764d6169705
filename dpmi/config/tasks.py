"""What must fit together in a config by its task: one class an image, or several findings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dpmi.config.data_sets import CsvData

if TYPE_CHECKING:
    from dpmi.config.schema import Config

_OF_FINDINGS = ("none", "ldp", "dpsgd")


def check_task(config: Config) -> None:
    """Refuse what another task than the config's has, or has not.

    Raises:
        ValueError: names the key, its value and what is allowed.
    """
    data, model, mechanism = config.data, config.model, config.mechanism.name
    finding, findings = (getattr(data, key, None) for key in ("finding", "findings"))
    if not config.multilabel:
        if findings is not None:
            raise ValueError(
                f"data.findings={','.join(findings)}: several findings are learned under "
                "data.task=multilabel; under data.task=classes allowed is null"
            )
        return
    if finding is not None:
        raise ValueError(
            f"data.finding={finding}: one finding against the rest is data.task=classes; under "
            f"data.task=multilabel allowed is null (data.findings=[{finding}] learns it alone)"
        )
    if isinstance(data, CsvData) and data.graded:
        raise ValueError(
            "data.graded=True: findings are present or absent, without grades; under "
            "data.task=multilabel allowed is false"
        )
    if mechanism not in _OF_FINDINGS:
        raise ValueError(
            f"data.task=multilabel: several findings of an image are learned under mechanism "
            f"{', '.join(_OF_FINDINGS)}; under mechanism={mechanism} allowed is classes"
        )
    if model.train == "head_then_all":
        raise ValueError(
            "model.train=head_then_all: its head comes from sums of images that are of one class; "
            "under data.task=multilabel allowed are all and head"
        )
    if model.train == "head" and model.head != "linear":
        raise ValueError(
            f"model.head={model.head}: findings have no order; under data.task=multilabel allowed "
            "is linear"
        )
    if config.trainer.test_every_epoch:
        raise ValueError(
            "trainer.test_every_epoch=True: it follows the test accuracy, which findings have "
            "none of; under data.task=multilabel allowed is false"
        )
