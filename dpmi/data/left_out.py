"""Files that are left out of a data set, and how many may be."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

from dpmi.base.errors import UserError
from dpmi.config.data_sets import DataConfig, MedmnistData, PhantomData
from dpmi.data.catalogue import Catalogue

_NAMED = 3


def note_of_unknown(catalogue: Catalogue) -> tuple[str, ...]:
    """A line on files beside the images that are no images; none where there are none."""
    if not (unknown := catalogue.unknown):
        return ()
    files = len(unknown) + len(catalogue.paths)
    are = (
        "is no image in a known format and is"
        if len(unknown) == 1
        else ("are no images in a known format and are")
    )
    return (
        f"{len(unknown)} of {files} files in the class folders {are} left out: {_first(unknown)}.",
    )


def note_of_undecoded(bad: Mapping[str, str]) -> tuple[str, ...]:
    """A line on images that cannot be decoded, from their paths and the reasons."""
    if not bad:
        return ()
    path, reason = next(iter(bad.items()))
    are = "image cannot be decoded and is" if len(bad) == 1 else "images cannot be decoded and are"
    return (f"{len(bad)} {are} left out (data.on_corrupt=skip), the first: {path}: {reason}.",)


def check_share(config: DataConfig, catalogue: Catalogue, undecoded: Collection[str] = ()) -> None:
    """Refuse a data set of which too much would be left out.

    Args:
        config: of the data; drawn images, and those of one file, are never left out.
        catalogue: what there is.
        undecoded: paths of images that cannot be decoded.

    Raises:
        UserError: more than ``data.max_left_out`` of all files.
    """
    if isinstance(config, PhantomData | MedmnistData):
        return
    left_out = len(undecoded) + len(catalogue.unknown)
    files = len(catalogue.paths) + len(catalogue.unknown)
    if left_out > config.max_left_out * files:
        raise UserError(
            f"data.max_left_out={config.max_left_out:g}: {left_out} of {files} files of "
            f"data={config.name} are no images in a known format, or cannot be decoded: "
            f"{_first([*catalogue.unknown, *undecoded])}. Mend or remove them, or set "
            f"data.max_left_out={_above(left_out / files):g} to train on the rest."
        )


def _first(names: Sequence[str]) -> str:
    others = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + others


def _above(share: float) -> float:
    return min(1.0, math.ceil(100 * share) / 100)
