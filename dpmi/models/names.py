"""Names of metrics, importable without torch: records and tables use them too."""

from __future__ import annotations

import math
from collections.abc import Mapping

# Prefix of whatever is computed on the training images without noise: no ε covers it.
NONPRIVATE = "nonprivate"
TRAIN_METRICS = f"{NONPRIVATE}/train"

# Of the calibration error, of equal width, over the probability of the class chosen or a finding.
BINS = 15

UNDEFINED = "undefined"  # what tables say of a metric that is not defined of the images at hand


def in_one_number(metrics: Mapping[str, float], of: str) -> str | None:
    """A run in one number, as "accuracy 81.2%"; of findings, which have none, "AUROC 0.812".

    Args:
        metrics: by name.
        of: prefix of the images: "test", "val", ...

    Returns:
        None where neither is there.
    """
    if (accuracy := metrics.get(f"{of}/accuracy")) is not None:
        return f"accuracy {accuracy:.1%}"
    auroc = metrics.get(f"{of}/auroc")
    if auroc is None:
        return None
    return f"AUROC {UNDEFINED if math.isnan(auroc) else f'{auroc:.3f}'}"
