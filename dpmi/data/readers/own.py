"""What the two readers of a user's own images share."""

from __future__ import annotations

import re
from collections.abc import Iterable

from dpmi.base.errors import UserError


def order_classes(names: Iterable[str], *, graded: bool, where: str) -> tuple[str, ...]:
    """Order class names: integers by value, other names by the alphabet.

    Args:
        names: of all images' classes, in any order.
        graded: whether the order means a grade.
        where: the file or folder that named the classes, for messages.

    Raises:
        UserError: the classes are said to be graded, and their names give no order; or there is
            only one class.
    """
    unique = set(names)
    if len(unique) < 2:
        raise UserError(
            f"{where}: there is only one class, {', '.join(unique)}; training needs two or more."
        )
    if all(re.fullmatch(r"[+-]?\d+", name) for name in unique):
        return tuple(sorted(unique, key=lambda name: (int(name), name)))
    if graded:
        raise UserError(
            f"{where}: data.graded=true needs integer class names, which give the order; found "
            f"{', '.join(sorted(unique))}. Name the classes 0, 1, ... or set data.graded=false."
        )
    return tuple(sorted(unique))
