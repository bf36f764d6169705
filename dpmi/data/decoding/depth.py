"""From a file's values to 8 bits, by what is declared and never by the values that occur."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpmi.data.decoding.settings import BadImageError

Values = NDArray[Any]


def from_bits(values: Values, bits: int) -> NDArray[np.uint8]:
    """The upper 8 of unsigned values' ``bits``; fewer bits are spread over all of 0 to 255.

    Raises:
        BadImageError: a value needs more bits.
    """
    most = int(values.max(initial=0))
    if most >= 1 << bits:
        raise BadImageError(
            f"it has values up to {most}, and {bits} bits end at {(1 << bits) - 1}: check "
            "data.bit_depth"
        )
    if bits < 8:
        return (values.astype(np.uint16) * 255 // ((1 << bits) - 1)).astype(np.uint8)
    return (values >> (bits - 8)).astype(np.uint8)


def from_range(values: Values, low: float, high: float) -> NDArray[np.uint8]:
    """``low`` and below become 0, ``high`` and above 255.

    Raises:
        BadImageError: a value is no finite number.
    """
    if not np.isfinite(values).all():
        raise BadImageError("it has values that are no finite numbers")
    share = (values.astype(np.float64) - low) / (high - low)
    return np.rint(share.clip(0, 1) * 255).astype(np.uint8)


def from_window(
    values: Values, centre: float, width: float, function: str = "LINEAR"
) -> NDArray[np.uint8]:
    """A window on values, as DICOM defines it (PS3.3, C.11.2.1.2 and C.11.2.1.3).

    Args:
        values: after the modality transform.
        centre: in the units of the values.
        width: the same; at least 1 (LINEAR), or above 0.
        function: LINEAR, LINEAR_EXACT or SIGMOID.

    Raises:
        BadImageError: there is no such window, or a value is no finite number.
    """
    if not width >= (1 if function == "LINEAR" else 1e-12):
        raise BadImageError(f"its window has a width of {width:g}")
    if function == "LINEAR":
        # From centre - 0.5 - (width - 1)/2 to centre - 0.5 + (width - 1)/2; a width of 1 is a step.
        centre, width = centre - 0.5, max(width - 1, 1e-12)
    elif function == "SIGMOID":
        with np.errstate(over="ignore"):
            values = 1 / (1 + np.exp(-4 * (values.astype(np.float64) - centre) / width))
        return from_range(values, 0, 1)
    elif function != "LINEAR_EXACT":
        raise BadImageError(f"its VOI LUT function {function} is not known")
    return from_range(values, centre - width / 2, centre + width / 2)
