"""What a model does on labelled images, in a private file of its own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from dpmi.models.groups import Measured, Subgroup, Worst
from dpmi.privacy.guarantee import Guarantee
from dpmi.run.records.record import Metric


class Evaluation(BaseModel):
    """Statistics of test images by a trained model.

    Attributes:
        private: that it is, for who opens the file.
        schema_name, version: what this file is.
        run: name of the run.
        weights: SHA-256 of its weights file.
        guarantee: of its training images; nothing of it is about the images here.
        dataset: name of the data set.
        images: digest of contents, labels and patients.
        own: whether they are the test images of the run itself.
        count: how many there are.
        patients: whose they are; None where it is known of none.
        class_counts: images by class.
        not_labelled: findings that are not known of any image, so that no metric of theirs is
            defined.
        skipped: images that could not be decoded and were left out.
        trained_on: how many of them the run was trained on; None where that is not known.
        metrics: as in the run's record, without ``test/``; NaN, in the file null, where not
            defined.
        intervals: of some of them, 95 %, over patients, or over images where these are not known.
        reliability: as in the record.
        groups, worst_groups: as in the record.
        environment: package versions, Python, device.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="strings")

    private: Literal[
        "statistics of test images, which no guarantee covers: keep this file where the images are"
    ] = "statistics of test images, which no guarantee covers: keep this file where the images are"
    schema_name: Literal["dpmi.evaluation"] = "dpmi.evaluation"
    version: Literal[1] = 1
    run: str
    weights: str
    guarantee: Guarantee
    dataset: str
    images: str
    own: bool
    count: int
    patients: int | None
    class_counts: dict[str, int]
    not_labelled: tuple[str, ...]
    skipped: int
    trained_on: int | None
    metrics: dict[str, Metric]
    intervals: dict[str, Measured]
    reliability: list[tuple[float, float, int]]
    groups: list[Subgroup]
    worst_groups: dict[str, Worst]
    environment: dict[str, Any]

    @property
    def file_name(self) -> str:
        """Another for other images."""
        return f"evaluation-{self.dataset}-{self.images[:8]}.json"

    def write(self, path: Path) -> None:
        """Write it whole or not at all; readable by its owner alone.

        Raises:
            OSError: it cannot be written.
        """
        part = path.with_name(f"{path.name}.part")
        try:
            with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
                file.write(self.model_dump_json(indent=1))
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)
