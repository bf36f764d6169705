"""What the headers of DICOM files say that is not in their pixels: whose they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import track

from dpmi.base.errors import UserError
from dpmi.data.decoding.dicom import is_dicom_file, require_pydicom
from dpmi.data.files import DICOM_SUFFIXES, IMAGE_SUFFIXES


@dataclass(frozen=True)
class _Header:
    patient: str  # "" where it names none
    burned_in: bool


def patients_of_files(root: Path, paths: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Whose each image is, by its PatientID: "patient 1", in the order in which they occur.

    The PatientID itself goes no further than this function. Two patients whom two hospitals gave
    the same one are taken for one, which protects both.

    Args:
        root: folder of the images.
        paths: below it, of images of any format.

    Returns:
        A name for each path, "" where the file is no DICOM file or names no patient; and what the
        user should know, a line each.

    Raises:
        UserError: there are DICOM files, and what reads them is not installed; or all of them have
            one PatientID.
    """
    dicom = [path for path in paths if _is_dicom(root / path)]
    if not dicom:
        return ("",) * len(paths), ()
    require_pydicom()
    console = Console(stderr=True)
    shown = track(dicom, "Reading DICOM headers", console=console, disable=not console.is_terminal)
    headers = {path: _read_header(root / path) for path in shown}
    notes: tuple[str, ...] = ()
    if burned := [path for path, header in headers.items() if header.burned_in]:
        notes = (
            f"{len(burned)} of {len(dicom)} DICOM files say that text is burned into their pixels "
            "(BurnedInAnnotation), which may name the patient, the first: "
            f"{burned[0]}. Look at them before you train.",
        )
    known = [header.patient for header in headers.values() if header.patient]
    if len(known) > 1 and len(set(known)) == 1:
        raise UserError(
            f"data.root={root}: all {len(known)} DICOM files that name a patient have the same "
            "PatientID, as after anonymisation; whose they are must be known. List them in a CSV "
            "file with the columns path, label and patient, and give data=csv data.csv=FILE."
        )
    numbers: dict[str, str] = {}
    for patient in known:
        numbers.setdefault(patient, f"patient {len(numbers) + 1}")
    nobody = _Header("", False)
    return tuple(numbers.get(headers.get(path, nobody).patient, "") for path in paths), notes


def _is_dicom(path: Path) -> bool:
    suffix = path.suffix.lower()
    return suffix in DICOM_SUFFIXES or (suffix not in IMAGE_SUFFIXES and is_dicom_file(path))


def _read_header(path: Path) -> _Header:
    """Of a file that cannot be read: of nobody; decoding says what is wrong with it."""
    from pydicom import dcmread

    try:
        tags = ["PatientID", "BurnedInAnnotation"]
        dataset = dcmread(path, stop_before_pixels=True, specific_tags=tags)
        patient = str(dataset.get("PatientID") or "").strip()
        return _Header(patient, str(dataset.get("BurnedInAnnotation") or "") == "YES")
    except Exception:  # of damaged files anything
        return _Header("", False)
