"""Print docs/tried-files.md: each row is made by trying the file.

python tests/data/tried_files.py > docs/tried-files.md
"""

from trials import Trial, lines
from tried_images import DICOM, FORMATS, NAMES
from tried_tables import TABLES

TRIED: dict[str, list[Trial]] = {
    "Formats": FORMATS,
    "DICOM": DICOM,
    "Names and folders": NAMES,
    "Tables": TABLES,
}

INTRODUCTION = """\
# Files that were tried

Each row was made by writing such files and preparing them as
`python -m dpmi.train data=folder data.root=PATH` does, or `data=csv`, with the keys that the row
names. What is refused stops the run with the message, before anything is trained. The rules are in
[Image files](own-data.md). `tests/data/test_tried_files.py` tries all of them again; after a change
`python tests/data/tried_files.py > docs/tried-files.md` writes this page anew."""


def page() -> str:
    """The whole page."""
    return "\n".join([INTRODUCTION, *lines(TRIED)]) + "\n"


if __name__ == "__main__":
    print(page(), end="")
