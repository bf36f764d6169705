"""Public archives in small: made files, laid out and named as the archives have them."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest

from dpmi.base.errors import UserError
from dpmi.data.catalogue import Catalogue

Read = Callable[..., Catalogue]
Draw = Callable[..., Path]


def homes(catalogue: Catalogue) -> dict[str, set[str]]:
    """The splits of each patient."""
    found: dict[str, set[str]] = {}
    for patient, split in zip(catalogue.patients, catalogue.splits, strict=True):
        found.setdefault(patient, set()).add(split)
    return found


def label_of(catalogue: Catalogue, name: str) -> str:
    (row,) = (row for row, path in enumerate(catalogue.paths) if name in path)
    return catalogue.classes[catalogue.labels[row]]


def test_nih_is_one_finding_against_the_rest_by_its_own_lists(read: Read, nih: Path) -> None:
    catalogue = read("nih", groups=["sex", "view"])
    assert catalogue.classes == ("no Mass", "Mass")
    assert label_of(catalogue, "00000001_000") == "Mass"  # Mass|Effusion
    assert label_of(catalogue, "00000002_000") == "no Mass"  # Effusion
    assert label_of(catalogue, "00000003_000") == "Mass"  # Pleural_Thickening|Mass
    assert label_of(catalogue, "00000004_000") == "no Mass"  # No Finding
    assert [catalogue.splits.count(split) for split in ("train", "val", "test")] == [12, 4, 8]
    tested = {p for p, s in zip(catalogue.patients, catalogue.splits, strict=True) if s == "test"}
    assert tested == {"9", "10", "11", "12"}
    assert all(len(splits) == 1 for splits in homes(catalogue).values())
    assert catalogue.groups["sex"][:2] == ("F", "F")
    assert catalogue.groups["view"][:2] == ("PA", "AP")
    assert (catalogue.channels, catalogue.graded, catalogue.notes) == (1, False, ())
    assert read("nih", val_fraction=0).splits.count("val") == 0
    assert read("nih", finding="No Finding").classes == ("any finding", "No Finding")


def test_a_finding_of_nih_is_its_whole_name(read: Read, nih: Path) -> None:
    table = nih / "Data_Entry_2017.csv"
    table.write_text(table.read_text().replace("Mass|Effusion", "Mass-like|Effusion"))
    assert label_of(read("nih"), "00000001_000") == "no Mass"


def test_nihs_later_table_and_its_images_in_one_folder_are_read(read: Read, nih: Path) -> None:
    before = read("nih", groups=["sex"])
    text = (nih / "Data_Entry_2017.csv").read_text().replace("Patient Gender", "Patient Sex")
    (nih / "Data_Entry_2017.csv").rename(nih / "Data_Entry_2017_v2020.csv").write_text(text)
    (nih / "images").mkdir()
    for file in nih.glob("images_*/images/*.png"):
        file.rename(nih / "images" / file.name)
    after = read("nih", groups=["sex"])
    assert after.paths == tuple(f"images/{Path(path).name}" for path in before.paths)
    assert (after.splits, after.groups) == (before.splits, before.groups)


def test_an_image_of_nih_that_no_list_names_is_refused(read: Read, nih: Path) -> None:
    lists = nih / "test_list.txt"
    lists.write_text(lists.read_text().replace("00000012_001.png\n", ""))
    with pytest.raises(UserError, match=r"line 25: 00000012_001\.png is neither in train_val"):
        read("nih")


def test_images_that_are_not_there_are_refused_or_left_out_as_requested(
    read: Read, nih: Path
) -> None:
    for name in ("00000001_000.png", "00000002_001.png"):
        (nih / "images_001" / "images" / name).unlink()
    with pytest.raises(UserError, match=r"line 2: 00000001_000.png: there is no .*2 of 24.*skip"):
        read("nih")
    catalogue = read("nih", on_missing="skip")
    assert len(catalogue.paths) == 22
    (note,) = catalogue.notes
    assert "2 of 24 images that are listed are not there and are left out, the first:" in note
    for file in nih.glob("images_*/images/*.png"):
        file.unlink()
    with pytest.raises(UserError, match=r"data=nih: none of the 24 images"):
        read("nih", on_missing="skip")


def test_chexpert_is_read_with_patients_from_paths_and_radiologists_images_to_test_on(
    read: Read, chexpert: Path
) -> None:
    catalogue = read("chexpert", groups=["view", "sex"])
    assert all("frontal" in path for path in catalogue.paths)
    assert [catalogue.splits.count(split) for split in ("train", "val", "test")] == [7, 2, 4]
    assert label_of(catalogue, "patient00004") == "Edema"
    assert label_of(catalogue, "patient00001") == "no Edema"  # not mentioned
    assert label_of(catalogue, "patient00002") == "no Edema"
    for path, patient, split in zip(
        catalogue.paths, catalogue.patients, catalogue.splits, strict=True
    ):
        assert path.split("/")[:2] == ["valid" if split == "test" else "train", patient]
    assert set(catalogue.groups["view"]) == {"AP"}
    (note,) = catalogue.notes
    assert "3 images are left out, for Edema is uncertain" in note
    assert read("chexpert", root=chexpert).paths == catalogue.paths
    both = read("chexpert", views="all")
    assert len(both.paths) == 2 * len(catalogue.paths)
    assert all(len(splits) == 1 for splits in homes(both).values())


@pytest.mark.parametrize(("uncertain", "label"), [("positive", "Edema"), ("negative", "no Edema")])
def test_what_a_report_is_uncertain_of_counts_as_configured(
    read: Read, chexpert: Path, uncertain: str, label: str
) -> None:
    catalogue = read("chexpert", uncertain=uncertain)
    assert label_of(catalogue, "patient00003") == label
    assert len(catalogue.paths) == 16
    assert catalogue.notes == ()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (",1.0,\n", ",2.0,\n", r"Edema is '2\.0'; allowed are 1 \(present\)"),
        (",1.0,\n", ",yes,\n", "Edema is 'yes'; allowed"),
        ("/patient00001/", "/12345/", "is not a path of CheXpert"),
        ("train/patient00001/", "../../patient00001/", "is not a path of CheXpert"),
        ("Edema", "Oedema", "column Edema is missing"),
    ],
)
def test_a_table_of_chexpert_that_cannot_be_used_is_refused(
    read: Read, chexpert: Path, old: str, new: str, message: str
) -> None:
    table = chexpert / "train.csv"
    table.write_text(table.read_text().replace(old, new))
    with pytest.raises(UserError, match=rf"train\.csv.*{message}") as caught:
        read("chexpert")
    assert "\n" not in str(caught.value)


def test_mimic_is_read_by_its_own_splits_with_a_studys_labels(read: Read, mimic: Path) -> None:
    catalogue = read("mimic_cxr", groups=["view"])
    # Two of uncertain labels, one without any; no lateral views.
    assert catalogue.splits == ("train", "train", "train", "val", "test")
    assert catalogue.paths[0] == ("files/p10/p10000032/s50414267/02aa804e-bde0afdd-0-PA.jpg")
    assert catalogue.patients[:2] == ("p10000032", "p11000032")
    assert [catalogue.classes[label] for label in catalogue.labels] == [
        *("Edema", "no Edema", "Edema", "no Edema", "Edema")
    ]
    assert catalogue.groups == {"view": ("PA",) * 5}
    assert ["1 images of studies without labels" in note for note in catalogue.notes] == [1, 0]
    assert "2 images are left out, for Edema is uncertain" in catalogue.notes[1]
    assert len(read("mimic_cxr", views="all", uncertain="negative").paths) == 14


def test_mimics_tables_are_read_unpacked_too(read: Read, mimic: Path) -> None:
    packed = read("mimic_cxr")
    for file in mimic.glob("*.csv.gz"):
        file.with_suffix("").write_bytes(gzip.decompress(file.read_bytes()))
        file.unlink()
    assert read("mimic_cxr").paths == packed.paths
    split = mimic / "mimic-cxr-2.0.0-split.csv"
    split.write_text(split.read_text().replace(",validate", ",dev"))
    with pytest.raises(UserError, match=r"line 10: .*split 'dev' is not one of train, validate"):
        read("mimic_cxr")
    split.write_text(split.read_text().replace("02aa804e-bde0afdd-0-PA", "../../../../x"))
    with pytest.raises(UserError, match=r"line 2: .* must be numbers or names"):
        read("mimic_cxr")


@pytest.fixture
def eyepacs(tmp_path: Path, draw: Draw) -> Path:
    """Both eyes of 40 patients."""
    lines = ["image,level"]
    for number in range(80):
        name = f"{10 + number // 2}_{('left', 'right')[number % 2]}"
        lines.append(f"{name},{number // 2 % 5}")
        draw(tmp_path / "train" / f"{name}.jpeg", number)
    (tmp_path / "trainLabels.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_both_eyes_of_an_eyepacs_patient_are_in_one_split(read: Read, eyepacs: Path) -> None:
    catalogue = read("eyepacs")
    assert (len(catalogue.classes), catalogue.graded, catalogue.channels) == (5, True, 3)
    assert len(homes(catalogue)) == 40
    assert all(len(splits) == 1 for splits in homes(catalogue).values())
    assert [catalogue.splits.count(s) for s in ("train", "val", "test")] == [40, 20, 20]
    assert catalogue.patients[:3] == ("10", "10", "11")
    assert label_of(catalogue, "14_right") == "proliferative"
    assert read("eyepacs", split_seed=1).splits != catalogue.splits
    with pytest.raises(
        UserError, match=r"=0 leaves .*: change data.val_fraction=\S+ and data.test_f"
    ):
        read("eyepacs", test_fraction=0)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("10_left,0", "10_left,5", r"line 2: level '5' is not an integer from 0 \(no DR\) to 4"),
        ("10_left,0", "eye,0", "line 2: image 'eye' is not named PATIENT_left"),
        ("10_left,0", "99_left,0", "line 2: 99_left: there is no such image"),
        ("image,level", "name,level", "column image is missing"),
    ],
)
def test_a_table_of_eyepacs_that_cannot_be_used_is_refused(
    read: Read, eyepacs: Path, old: str, new: str, message: str
) -> None:
    table = eyepacs / "trainLabels.csv"
    table.write_text(table.read_text().replace(old, new))
    with pytest.raises(UserError, match=rf"trainLabels\.csv.*{message}"):
        read("eyepacs")


@pytest.fixture
def messidor2(tmp_path: Path, draw: Draw) -> Path:
    """Both eyes of 20 patients, names in either of two styles; one image has no grade."""
    pairs, lines = (
        ["left;right"],
        ["image_id,adjudicated_dr_grade,adjudicated_dme,adjudicated_gradable"],
    )
    for patient in range(20):
        numbers = (2 * patient, 2 * patient + 1)
        style = ("20051020_{:05}_0100_PP.png", "IM{:06}.JPG")[patient % 2]
        names = [style.format(number) for number in numbers]
        pairs.append(";".join(names))
        for name, number in zip(names, numbers, strict=True):
            draw(tmp_path / "IMAGES" / name, number)
            grade = "" if number == 5 else f"{patient % 5}"
            listed = name.replace(".JPG", ".jpg")  # as in the true table
            lines.append(f"{listed},{grade},0,{int(number != 5)}")
    (tmp_path / "messidor-2.csv").write_text("\n".join(pairs) + "\n")
    (tmp_path / "messidor_data.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_both_eyes_of_a_messidor_patient_are_in_one_split(read: Read, messidor2: Path) -> None:
    catalogue = read("messidor2")
    assert len(catalogue.paths) == 39
    assert (len(homes(catalogue)), catalogue.graded) == (20, True)
    assert all(len(splits) == 1 for splits in homes(catalogue).values())
    assert label_of(catalogue, "IM000003.JPG") == "mild"
    assert "read with a semicolon" in catalogue.notes[0]
    assert "1 images without a grade are left out" in catalogue.notes[1]
    table = messidor2 / "messidor_data.csv"
    renamed = table.read_text().replace("image_id,adjudicated_dr_grade", "id_code,diagnosis")
    table.write_text(renamed)
    assert read("messidor2").paths == catalogue.paths
    table.write_text(renamed.replace("id_code", "image"))
    with pytest.raises(UserError, match=r"messidor_data\.csv: has image, .*must have image_id"):
        read("messidor2")


def test_an_eye_of_nobody_is_refused(read: Read, messidor2: Path) -> None:
    pairs = messidor2 / "messidor-2.csv"
    pairs.write_text(pairs.read_text().replace("IM000003", "IM999999"))
    with pytest.raises(UserError, match=r"IM000003\.jpg is not in .*messidor-2\.csv, so that"):
        read("messidor2")
