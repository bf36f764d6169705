from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from sklearn.model_selection import train_test_split

from dpmi.base.errors import UserError
from dpmi.config.data_sets import DataConfig
from dpmi.data.readers import read_catalogue
from dpmi.data.readers.chest_xray import patient_of

Config = Callable[..., DataConfig]


@pytest.mark.parametrize(
    ("file", "patient"),
    [
        ("person17_bacteria_55.jpeg", "person17"),
        ("person17_virus_1.jpeg", "person17"),
        ("person447_virus_921_1.jpeg", "person447"),
        ("IM-0115-0001.jpeg", "IM-0115"),
        ("IM-0543-0001-0002.jpeg", "IM-0543"),
        ("NORMAL2-IM-1234-0001.jpeg", "NORMAL2-IM-1234"),
        ("holiday.jpeg", ""),
    ],
)
def test_the_file_name_of_an_xray_names_the_patient(file: str, patient: str) -> None:
    assert patient_of(file) == patient


def test_the_whole_xray_set_is_found(config: Config, real_images: Path, tmp_path: Path) -> None:
    catalogue = read_catalogue(config("chest_xray", root=real_images / "chest_xray"), tmp_path)
    cells = Counter(zip(catalogue.splits, catalogue.labels.tolist(), strict=True))
    assert cells == {
        ("train", 0): 1341,
        ("train", 1): 3875,
        ("val", 0): 8,
        ("val", 1): 8,
        ("test", 0): 234,
        ("test", 1): 390,
    }
    assert catalogue.classes == ("NORMAL", "PNEUMONIA")
    assert (catalogue.channels, catalogue.graded) == (1, False)
    assert all(catalogue.patients)
    # Kaggle's archive has one folder more; the images in it are the same.
    assert real_images.name == "data"
    outer = read_catalogue(config("chest_xray", root=real_images), tmp_path)
    assert outer.paths == catalogue.paths


def test_within_a_series_of_file_names_no_person_is_in_two_splits(
    config: Config, real_images: Path, tmp_path: Path
) -> None:
    """What the reader's docstring says about the numbers of persons."""
    catalogue = read_catalogue(config("chest_xray", root=real_images / "chest_xray"), tmp_path)
    homes: dict[str, set[str]] = {}
    series: dict[str, set[str]] = {}
    for path, patient, split in zip(
        catalogue.paths, catalogue.patients, catalogue.splits, strict=True
    ):
        kind = "virus" if "virus" in path else "bacteria" if "bacteria" in path else ""
        homes.setdefault(patient, set()).add(split)
        series.setdefault(f"{patient} {kind}", set()).add(split)
    assert sum(len(splits) > 1 for splits in homes.values()) == 170
    assert all(len(splits) == 1 for splits in series.values())


def test_held_out_patients_are_training_patients_whom_training_never_sees(
    config: Config, draw: Callable[..., Path], tmp_path: Path
) -> None:
    for seed in range(24):
        ill, name = seed % 2, f"person{seed // 3}_virus_{seed}.jpeg"
        for split, folder in (("train", "NORMAL"), ("train", "PNEUMONIA"), ("test", "NORMAL")):
            if (folder == "PNEUMONIA") == bool(ill):
                draw(tmp_path / split / folder / name, seed)
    held, again = (
        read_catalogue(config("chest_xray", root=tmp_path, test="held_out"), tmp_path)
        for _ in range(2)
    )
    assert held.splits == again.splits
    assert all(path.startswith("train/") for path in held.paths)
    assert len(held.paths) == 24
    homes: dict[str, set[str]] = {}
    for patient, split in zip(held.patients, held.splits, strict=True):
        homes.setdefault(patient, set()).add(split)
    assert all(len(splits) == 1 for splits in homes.values())
    assert held.splits.count("test") == 6


def test_no_patient_of_a_test_image_is_trained_on_where_other_patients_are_requested(
    config: Config, draw: Callable[..., Path], tmp_path: Path
) -> None:
    for seed, split in enumerate(["train"] * 6 + ["val"] * 2 + ["test"] * 3):
        for folder, kind in (("NORMAL", ""), ("PNEUMONIA", "_virus")):
            draw(tmp_path / split / folder / f"person{seed % 4}{kind}_{seed}.jpeg", seed)
    both = (
        read_catalogue(config("chest_xray", root=tmp_path, test=test), tmp_path)
        for test in ("official", "other_patients")
    )
    official, kept = both
    test = [path for path in official.paths if path.startswith("test/")]
    assert [path for path in kept.paths if path.startswith("test/")] == test
    rest = set(official.paths) - set(kept.paths)
    assert rest
    whose = dict(zip(official.paths, official.patients, strict=True))
    tested = {whose[path] for path in test}
    assert rest == {path for path in official.paths if path not in test and whose[path] in tested}
    for path, label, patient in zip(kept.paths, kept.labels, kept.patients, strict=True):
        assert official.labels[official.paths.index(path)] == label
        assert whose[path] == patient


def test_other_patients_are_refused_where_nobody_knows_whose_the_images_are(
    config: Config, aptos: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"data\.test=other_patients: it is not known whose"):
        read_catalogue(config("aptos", root=aptos, test="other_patients"), tmp_path)


def test_macos_leftovers_are_no_images(
    config: Config, draw: Callable[..., Path], tmp_path: Path
) -> None:
    for split in ("train", "test"):
        for seed, name in enumerate(("NORMAL", "PNEUMONIA")):
            draw(tmp_path / split / name / "a.jpeg", seed)
            (tmp_path / split / name / "._a.jpeg").write_bytes(b"leftover")
            (tmp_path / split / name / ".DS_Store").write_bytes(b"leftover")
    assert len(read_catalogue(config("chest_xray", root=tmp_path), tmp_path).paths) == 4


@pytest.fixture
def aptos(tmp_path: Path, draw: Callable[..., Path]) -> Path:
    """50 fundus images in Kaggle's form, ten of each grade."""
    root = tmp_path / "aptos"
    lines = ["id_code,diagnosis"]
    for number in range(50):
        draw(root / "train_images" / f"id{number:02}.png", number)
        lines.append(f"id{number:02},{number * 7 % 5}")
    (root / "train.csv").write_text("\n".join(lines) + "\n")
    return root


def test_aptos_is_split_as_the_poster_did(config: Config, aptos: Path, tmp_path: Path) -> None:
    catalogue = read_catalogue(config("aptos", root=aptos), tmp_path)
    grades = [number * 7 % 5 for number in range(50)]
    train, test = train_test_split(range(50), test_size=0.2, stratify=grades, random_state=42)
    assert {row for row, split in enumerate(catalogue.splits) if split == "test"} == set(test)
    assert {row for row, split in enumerate(catalogue.splits) if split == "train"} == set(train)
    assert catalogue.labels.tolist() == grades
    assert (catalogue.channels, catalogue.graded, len(catalogue.classes)) == (3, True, 5)


@pytest.mark.parametrize("value", ["5", "-1", "1.5", "mild", ""])
def test_a_grade_out_of_range_is_refused_with_its_line(
    config: Config, aptos: Path, tmp_path: Path, value: str
) -> None:
    table = aptos / "train.csv"
    table.write_text(table.read_text().replace("id03,1\n", f"id03,{value}\n"))
    with pytest.raises(UserError, match=r"train.csv, line 5: diagnosis .* integer from 0 .* to 4"):
        read_catalogue(config("aptos", root=aptos), tmp_path)


def test_a_missing_image_of_aptos_is_named(config: Config, aptos: Path, tmp_path: Path) -> None:
    (aptos / "train_images" / "id07.png").unlink()
    with pytest.raises(UserError, match=r"line 9: there is no image .*id07\.png"):
        read_catalogue(config("aptos", root=aptos), tmp_path)


def test_a_grade_of_too_few_images_is_refused_without_naming_keys_that_aptos_lacks(
    config: Config, aptos: Path, tmp_path: Path
) -> None:
    table = aptos / "train.csv"
    rows = table.read_text().splitlines()
    rare = [row for row in rows if row.endswith(",4")]
    table.write_text("\n".join(row for row in rows if row not in rare[1:]) + "\n")
    with pytest.raises(UserError) as refused:
        read_catalogue(config("aptos", root=aptos), tmp_path)
    message = str(refused.value)
    assert "class 'proliferative' has 1 of" in message
    assert message.endswith("Add images of it, remove it, or take Kaggle's whole file.")
    assert "data." not in message


def test_a_table_of_aptos_without_its_columns_is_refused(
    config: Config, aptos: Path, tmp_path: Path
) -> None:
    (aptos / "train.csv").write_text("id,grade\nid00,1\n")
    with pytest.raises(UserError, match=r"id_code, diagnosis are missing.* has id, grade"):
        read_catalogue(config("aptos", root=aptos), tmp_path)


@pytest.mark.parametrize(
    "name",
    [
        "chest_xray",
        "aptos",
        "folder",
        "csv",
        "nih",
        "chexpert",
        "mimic_cxr",
        "eyepacs",
        "messidor2",
    ],
)
def test_absent_data_are_refused_with_the_ways_to_get_some(
    config: Config, tmp_path: Path, name: str
) -> None:
    with pytest.raises(UserError) as caught:
        read_catalogue(config(name, root=tmp_path / "nowhere"), tmp_path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(tmp_path / "nowhere") in message
    assert "by hand" in message
    assert "data=phantom_" in message
    assert ("make data" in message) == (name in ("chest_xray", "aptos"))
