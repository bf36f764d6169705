"""Whole runs, by the command, on image files as hospitals have them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom import Dataset, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid

from dpmi.run.records.reading import read_record

OWN = (*("data=folder", "data.root=images", "data.image_size=32", "data.batch_size=10"),)
SIDE = 32


@pytest.fixture
def train(place, tiny) -> Callable:
    """Train on ``images``: ``train("data.bit_depth=12")`` gives the record and the screen."""
    settings = [word for word in tiny if not word.startswith("data")]

    def run(*words: str):
        done = place.train(*settings, *OWN, *words)
        assert (done.returncode, done.stderr) == (0, ""), done.stdout
        path = Path(done.stdout.split()[-1])
        return read_record(place.cwd / path), done.stdout

    return run


def values(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 4096, (SIDE, SIDE), np.uint16)


def write_dicom(path: Path, number: int) -> None:
    """Of patient number // 2: half in MONOCHROME1, some with text in their pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = DigitalXRayImageStorageForPresentation
    dataset.SOPInstanceUID = generate_uid()
    dataset.PatientID, dataset.PatientName = f"KLINIK-{number // 2}", "Mustermann^Erika"
    dataset.BurnedInAnnotation = "YES" if number == 5 else "NO"
    dataset.Rows = dataset.Columns = SIDE
    dataset.SamplesPerPixel, dataset.PixelRepresentation = 1, 0
    dataset.PhotometricInterpretation = f"MONOCHROME{number % 2 + 1}"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.WindowCenter, dataset.WindowWidth = 2048, 4096
    dataset.PixelData = values(number).tobytes()
    dcmwrite(path, dataset, enforce_file_format=True)


def test_a_folder_of_dicom_files_is_trained_on_by_patient_and_no_patient_is_named(place, train):
    for number in range(48):
        name = f"{number}.dcm" if number % 2 else f"1.2.276.{number}"
        write_dicom(place.cwd / "images" / ("ill" if number // 2 % 2 else "well") / name, number)
    (place.cwd / "images" / "ill" / "report.xml").write_text("<report/>")
    record, screen = train("mechanism=dpsgd", "mechanism.accountant=rdp")
    assert record.data["counts"] == {"train": 36, "val": 4, "test": 8}
    assert record.data["patients_in_two_splits"] == 0
    assert record.data["channels"] == 1
    assert record.guarantee.unit == "patient"
    assert "1 of 49 files in the class folders is no image in a known format" in screen
    assert "1 of 48 DICOM files say that text is burned into their pixels" in screen
    for folder in (place.outputs, place.cache):
        for path in folder.rglob("*"):
            left = path.read_bytes() if path.is_file() else b""
            assert b"KLINIK" not in left, path
            assert b"Mustermann" not in left, path


def test_a_folder_of_12_bits_in_16_is_trained_on_with_all_its_levels_of_gray(place, train):
    for number in range(40):
        path = place.cwd / "images" / ("ill", "well")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(values(number)).save(path)
    record, screen = train("mechanism=none", "data.bit_depth=12")
    assert record.config["data"]["bit_depth"] == 12
    assert "levels of brightness" not in screen  # the note that names the key where it is not set
    (pixels,) = place.cache.glob("images/*/pixels.npy")
    assert len(np.unique(np.load(pixels))) == 256
