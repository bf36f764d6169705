from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from dicom_files import dicom

from dpmi.base.errors import UserError
from dpmi.config.data_sets import DataConfig
from dpmi.data.prepare import prepare
from dpmi.data.readers import read_catalogue

Config = Callable[..., DataConfig]
NAMES = ("{}.dcm", "{}.DICOM", "1.2.840.113619.{}", "IM{}")  # the last two known by their content


def xray(number: int, patient: str | None = None, **elements: object) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 4096, (36, 40), np.uint16)
    named = {} if patient is None else {"PatientID": patient, "PatientName": "Doe^Jane"}
    return dicom(pixels, 12, **named, **elements)


@pytest.fixture
def studies(tmp_path: Path) -> Path:
    """Forty DICOM files in two classes, two of each of twenty patients."""
    root = tmp_path / "studies"
    for number in range(40):
        folder = root / ("ill" if number // 2 % 2 else "well")
        folder.mkdir(parents=True, exist_ok=True)
        name = NAMES[number % 4].format(number)
        (folder / name).write_bytes(xray(number, f"SECRET-{number // 2}"))
    return root


def test_dicom_files_are_found_by_ending_or_content_and_split_by_patient(
    config: Config, studies: Path, tmp_path: Path
) -> None:
    catalogue = read_catalogue(config("folder", root=studies), tmp_path)
    assert len(catalogue.paths) == 40
    assert catalogue.unknown == ()
    homes: dict[str, set[str]] = {}
    for patient, split in zip(catalogue.patients, catalogue.splits, strict=True):
        homes.setdefault(patient, set()).add(split)
    assert len(homes) == 20
    assert all(len(splits) == 1 for splits in homes.values())


def test_a_patients_id_goes_no_further_than_the_header(
    config: Config, studies: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = prepare(config("folder", root=studies), tmp_path / "cache")
    assert data.fingerprint.largest_images_per_patient == 2
    assert data.fingerprint.patients_in_two_splits == 0
    found = repr([data.splits[s].patients for s in data.splits]) + repr(data.fingerprint)
    for file in (tmp_path / "cache").rglob("*"):
        if file.is_file():
            found += file.read_bytes().decode("latin1")
    assert "SECRET" not in found + caplog.text
    assert "Doe" not in found + caplog.text


def test_which_files_are_whose_is_part_of_the_fingerprint_and_their_names_are_not(
    config: Config, studies: Path, tmp_path: Path
) -> None:
    def patients() -> tuple[str, ...]:
        return read_catalogue(config("folder", root=studies), tmp_path).patients

    before = patients()
    for file in studies.rglob("*"):
        if file.is_file():
            file.write_bytes(file.read_bytes().replace(b"SECRET", b"PUBLIC"))
    assert patients() == before


def listed(root: Path, column: str) -> None:
    lines = [f"path,label{column and ',patient'}"]
    for number, file in enumerate(sorted(path for path in root.rglob("*") if path.is_file())):
        value = f",own {number // 4}" if column else ""
        lines.append(f"{file.relative_to(root)},{file.parent.name}{value}")
    (root / "labels.csv").write_text("\n".join(lines))


@pytest.mark.parametrize("column", ["", "patient"])
def test_a_tables_own_patients_come_before_those_of_dicom_files(
    config: Config, studies: Path, tmp_path: Path, column: str
) -> None:
    listed(studies, column)
    catalogue = read_catalogue(config("csv", root=studies), tmp_path)
    assert len(set(catalogue.patients)) == (10 if column else 20)
    assert catalogue.patients[0].startswith("own" if column else "patient")


def test_a_table_may_leave_out_the_ending_of_dicom_files(
    config: Config, studies: Path, tmp_path: Path
) -> None:
    listed(studies, "")
    table = (studies / "labels.csv").read_text()
    (studies / "labels.csv").write_text(table.replace(".dcm,", ",").replace(".DICOM,", ","))
    catalogue = read_catalogue(config("csv", root=studies), tmp_path)
    assert len(set(catalogue.patients)) == 20
    assert all(catalogue.patients)


def test_one_id_for_all_is_refused_as_the_trace_of_anonymisation(
    config: Config, tmp_path: Path
) -> None:
    for number in range(8):
        file = tmp_path / "images" / "ab"[number % 2] / f"{number}.dcm"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(xray(number, "ANON"))
    with pytest.raises(
        UserError, match=r"all 8 DICOM files .* same PatientID, .* patient, .*csv"
    ) as no:
        read_catalogue(config("folder", root=tmp_path / "images"), tmp_path)
    assert "ANON" not in str(no.value)


def test_images_of_other_formats_and_dicom_files_without_an_id_are_nobodys(
    config: Config, tmp_path: Path, draw: Callable[..., Path]
) -> None:
    root = tmp_path / "images"
    for number in range(8):
        file = draw(root / "ab"[number % 2] / f"{number}.png", number)
        if number < 4:
            file.unlink()
            file.with_suffix(".dcm").write_bytes(xray(number, " " if number % 2 else None))
    assert (
        read_catalogue(
            config("folder", root=root, val_fraction=0, test_fraction=0.5), tmp_path
        ).patients
        == ("",) * 8
    )


def test_text_burned_into_pixels_is_noted_once(
    config: Config, studies: Path, tmp_path: Path
) -> None:
    for number, answer in ((50, "YES"), (51, "NO"), (52, "YES")):
        file = studies / "ill" / f"{number}.dcm"
        file.write_bytes(xray(number, f"SECRET-{number}", BurnedInAnnotation=answer))
    (line,) = prepare(config("folder", root=studies), tmp_path / "cache").notes
    assert line.startswith("2 of 43 DICOM files say that text is burned into their pixels")
    assert "ill/50.dcm" in line


def test_a_dicom_file_under_another_formats_name_is_refused(
    config: Config, studies: Path, tmp_path: Path
) -> None:
    (studies / "ill" / "x.jpg").write_bytes(xray(60, "SECRET-60"))
    with pytest.raises(UserError, match=r"^ill/x\.jpg: .* DICOM file under .* \.dcm"):
        prepare(config("folder", root=studies), tmp_path / "cache")


def test_a_damaged_dicom_file_is_named(config: Config, studies: Path, tmp_path: Path) -> None:
    (studies / "ill" / "broken.dcm").write_bytes(xray(60, "SECRET-60")[:500])
    (studies / "ill" / "empty.dcm").touch()
    with pytest.raises(UserError, match=r"^ill/broken\.dcm: the image cannot be decoded"):
        prepare(config("folder", root=studies), tmp_path / "cache")
    data = prepare(config("folder", root=studies, on_corrupt="skip"), tmp_path / "cache")
    assert data.fingerprint.corrupt_skipped == 2
