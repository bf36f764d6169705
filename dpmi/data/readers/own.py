"""What the two readers of a user's own images share: the classes and their order."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from typing import Literal

from dpmi.base.errors import UserError

MOST_CLASSES = 50


def order_classes(
    names: Iterable[str], images: Iterable[str], *, graded: bool, many: bool, where: str
) -> tuple[str, ...]:
    """Order class names: integers by value, other names by the alphabet.

    Args:
        names: of all classes, in any order, also more than once.
        images: the class of each image, in any order.
        graded: whether the order means a grade.
        many: whether more than 50 classes, or mostly classes of one image, are meant.
        where: the file or folder that named the classes, for messages.

    Raises:
        UserError: the classes are said to be graded, and their names give no order; there is only
            one class; or they look as if something else than a class had been taken for one.
    """
    unique = set(names)
    if len(unique) < 2:
        raise UserError(
            f"{where}: there is only one class, {', '.join(unique)}; training needs two or more."
        )
    if not many:
        check_number(unique, Counter(images), where)
    if all(re.fullmatch(r"[+-]?\d+", name) for name in unique):
        return tuple(sorted(unique, key=lambda name: (int(name), name)))
    if graded:
        shown = sorted(unique)[:MOST_CLASSES]
        raise UserError(
            f"{where}: data.graded=true needs integer class names, which give the order; found "
            f"{', '.join(shown)}. Name the classes 0, 1, ... or set data.graded=false."
        )
    return tuple(sorted(unique))


def several_findings(name: str) -> str | None:
    """Why a name cannot be that of a class, where it joins several, as ``Effusion|Mass``."""
    if "|" not in name:
        return None
    findings = [finding.strip() for finding in name.split("|")]
    return (
        f"label {name!r} names several findings, and here each image is of one class. To learn all "
        "of them, list the images in a table and set data=csv data.task=multilabel; to learn one, "
        f"label every image by whether it shows it ({findings[0]} or no {findings[0]})."
    )


def check_number(
    classes: set[str], images: Counter[str], where: str, of: Literal["class", "finding"] = "class"
) -> None:
    """Refuse what a column of names, numbers or dates looks like when it is taken for labels.

    Args:
        classes: names.
        images: of each.
        where: the file or folder that names them, for messages.
        of: what they are names of.

    Raises:
        UserError: they are more than 50, or most of them are of one image.
    """
    several = {"class": "classes", "finding": "findings"}[of]
    single = sorted(name for name in classes if images[name] == 1)
    if len(classes) > MOST_CLASSES:
        first = ", ".join(repr(name) for name in sorted(classes)[:3])
        found = f"there are {len(classes)} {several} ({first}, ...), more than {MOST_CLASSES}"
    elif len(classes) > 2 and len(single) > len(classes) / 2:
        first = ", ".join(repr(name) for name in single[:3])
        found = f"{len(single)} of {len(classes)} {several} have one image ({first})"
    else:
        return
    raise UserError(
        f"{where}: {found}. Is something else than the {of} taken for it? If they are meant, set "
        "data.many_classes=true."
    )
