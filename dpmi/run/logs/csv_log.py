"""The log that every run has: ``metrics.csv`` in the job's folder, which stays in the house."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import CSVLogger
from torch import Tensor

from dpmi.run.logs.undefined import in_words
from dpmi.run.records.leaving import refuse_unnamed


class CsvLog(CSVLogger):
    """``metrics.csv`` in the job's folder.

    Attributes:
        rows: all that was logged. Checkpoints hold them: the file may be half-written when a
            process is killed.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, name="", version="", flush_logs_every_n_steps=20)
        self.rows: list[dict[str, float]] = []

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Add a row; what is not defined is "undefined" in the file.

        Raises:
            UserError: a name does not say what covers its value.
        """
        refuse_unnamed(metrics)
        number = len(self.rows) if step is None else step
        plain = {name: v.item() if isinstance(v, Tensor) else v for name, v in metrics.items()}
        self.rows.append(plain | {"step": number})
        super().log_metrics(in_words(plain), number)

    def go_on_with(self, rows: list[dict[str, float]]) -> None:
        """Begin with these rows in place of what the file holds."""
        self.rows = list(rows)
        self.experiment.metrics = [in_words(row) for row in rows]
        self.save()
