"""Several findings of an image: what of them can be learned."""

from __future__ import annotations

import numpy as np

from dpmi.base.errors import UserError
from dpmi.data.catalogue import Catalogue, Labels

NO_FINDING = "No Finding"  # in a label, where an image shows none


def check_findings(catalogue: Catalogue, train: Labels, which: str) -> None:
    """Refuse findings of which nothing can be learned.

    Args:
        catalogue: of the data set.
        train: (n, K), of the training images.
        which: of the images: "" or " that can be used".

    Raises:
        UserError: no training image is known to show one of them, or none not to.
    """
    names = np.asarray(catalogue.classes)
    never, always = (names[~(train == value).any(0)].tolist() for value in (1, 0))
    for missing, what in ((never, "shows"), (always, "is known to be without")):
        if missing:
            left = [name for name in catalogue.classes if name not in {*never, *always}]
            others = f", as data.findings=[{','.join(left)}]" if left else ""
            raise UserError(
                f"data={catalogue.name}: no training image{which} {what} {', '.join(missing)}. "
                f"Add such images, or name the findings to learn by data.findings{others}."
            )
