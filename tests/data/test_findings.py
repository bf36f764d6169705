"""Several findings of an image: as tables name them, how they are split, and their digest."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_archive_readers import homes

from dpmi.base.errors import UserError
from dpmi.data.catalogue import Catalogue
from dpmi.data.prepare import prepare, prepare_test
from dpmi.data.splitting import patient_split, random_split

Read = Callable[..., Catalogue]
Draw = Callable[..., Path]
SEVERAL = {"task": "multilabel", "finding": None}


def shown(catalogue: Catalogue, name: str) -> list[float | None]:
    """The findings of an image; None where not known."""
    (row,) = (row for row, path in enumerate(catalogue.paths) if name in path)
    return [None if np.isnan(value) else float(value) for value in catalogue.labels[row]]


def test_nihs_labels_name_each_finding(read: Read, nih: Path) -> None:
    catalogue = read("nih", **SEVERAL, findings=["Effusion", "Mass", "Pleural_Thickening"])
    assert catalogue.classes == ("Effusion", "Mass", "Pleural_Thickening")
    assert catalogue.multilabel
    assert shown(catalogue, "00000001_000") == [1, 1, 0]
    assert shown(catalogue, "00000002_000") == [1, 0, 0]
    assert shown(catalogue, "00000003_000") == [0, 1, 1]
    assert shown(catalogue, "00000004_000") == [0, 0, 0]  # No Finding
    assert len(read("nih", **SEVERAL).classes) == 14
    one = read("nih")
    assert (catalogue.paths, catalogue.patients) == (one.paths, one.patients)
    assert all(len(splits) == 1 for splits in homes(catalogue).values())


@pytest.mark.parametrize(
    ("uncertain", "expected"), [("ignore", None), ("positive", 1.0), ("negative", 0.0)]
)
def test_what_chexperts_labeller_is_uncertain_of_is_left_out_alone(
    uncertain: str,
    expected: float | None,
    read: Read,
    chexpert: Path,
) -> None:
    """Of every fourth patient; of the others it says 1, 0 or nothing."""
    several = SEVERAL | {"findings": ["Edema", "Pleural Effusion"]}
    catalogue = read("chexpert", **several, uncertain=uncertain, views="all")
    assert len(catalogue.paths) == 32
    assert shown(catalogue, "patient00003/study1/view1") == [expected, 0.0]
    assert shown(catalogue, "patient00001/study1/view1") == [0.0, 0.0]  # not mentioned is absent
    assert shown(catalogue, "patient00004/study1/view1") == [1.0, 0.0]
    notes = [note for note in catalogue.notes if "uncertain" in note]
    assert len(notes) == (uncertain == "ignore")
    if notes:
        assert "6 of Edema" in notes[0]
        assert "their images kept" in notes[0]


def test_mimics_studies_give_their_images_all_findings(read: Read, mimic: Path) -> None:
    names = ["Edema", "Atelectasis"]
    catalogue = read("mimic_cxr", **SEVERAL, findings=names, uncertain="ignore")
    label_file = next(mimic.glob("*chexpert.csv*"))
    text = gzip.decompress(label_file.read_bytes()).decode().splitlines()
    header = text[0].split(",")
    found = {
        line.split(",")[1]: [line.split(",")[header.index(name)] for name in names]
        for line in text[1:]
    }
    assert catalogue.classes == tuple(names)
    for row, path in enumerate(catalogue.paths):
        study = path.split("/s")[-1].split("/")[0]
        expected = [np.nan if v.startswith("-") else float(v or 0) for v in found[study]]
        np.testing.assert_array_equal(catalogue.labels[row], expected)


Table = Callable[..., Catalogue]


@pytest.fixture
def table(read: Read, tmp_path: Path, draw: Draw) -> Table:
    """Read a CSV file of these lines, each naming an image; ``data.findings`` and more by name."""

    def of(header: str, *rows: str, **changes: Any) -> Catalogue:
        lines = [f"path,{header}"]
        for number, row in enumerate(rows):
            draw(tmp_path / f"{number}.png", number)
            lines.append(f"{number}.png,{row}")
        (tmp_path / "labels.csv").write_text("\n".join(lines) + "\n")
        return read("csv", task="multilabel", many_classes=True, **changes)

    return of


def test_a_label_names_any_number_of_findings(table: Table) -> None:
    rows = ("Mass|Effusion", "", "No Finding", "Effusion", " Mass ", "Effusion|", "no finding")
    catalogue = table("label,split", *(f"{row},train" for row in rows))
    assert catalogue.classes == ("Effusion", "Mass")
    expected = [[1, 1], [0, 0], [0, 0], [1, 0], [0, 1], [1, 0], [0, 0]]
    assert catalogue.labels.tolist() == expected
    assert catalogue.labels.dtype == np.float32
    chosen = table("label,split", *(f"{row},train" for row in rows), findings=["Mass"])
    assert chosen.labels.tolist() == [row[1:] for row in expected]
    assert [note for note in chosen.notes if note.endswith("leaves out Effusion.")]


def test_findings_have_columns_of_their_own_in_which_nothing_is_not_known(table: Table) -> None:
    names = ["Mass", "Effusion"]
    catalogue = table(
        "Effusion,Mass,site,split",
        *("1,0,A,train", "0.0,,B,train", ",1,A,test", "1.0,1,B,test"),
        findings=names,
        groups=["site"],
    )
    assert catalogue.classes == ("Mass", "Effusion")
    known = [[shown(catalogue, f"{n}.png")] for n in range(4)]
    assert known == [[[0, 1]], [[None, 0]], [[1, None]], [[1, 1]]]
    assert catalogue.groups == {"site": ("A", "B", "A", "B")}


@pytest.mark.parametrize(
    ("header", "row", "findings", "message"),
    [
        ("Mass", "2", ["Mass"], r"line 2: Mass is '2'; allowed are 1 \(present\), 0"),
        ("Mass", "1", None, r"in a column label.*or each in a column that data.findings names"),
        ("Mass", "1", ["Mas"], r"the columns are path, Mass, and data.findings names Mas\."),
        ("label", "No Finding", None, r"no label names a finding"),
    ],
)
def test_a_table_that_does_not_tell_findings_is_refused_in_one_line(
    header: str, row: str, findings: list[str] | None, message: str, table: Table
) -> None:
    with pytest.raises(UserError, match=message):
        table(header, row, findings=findings)


def test_several_findings_in_a_table_of_classes_name_the_task_that_takes_them(
    read: Read, table: Table
) -> None:
    table("label,split", "Mass|Effusion,train", "Mass,train", "Effusion,test")
    with pytest.raises(UserError, match=r"line 2: label 'Mass\|Effusion' .*data.task=multilabel"):
        read("csv")


def drawn(n: int = 400) -> np.ndarray:
    findings = (np.random.default_rng(0).random((n, 4)) < (0.5, 0.3, 0.1, 0.05)).astype(np.float32)
    findings[::7, 0] = np.nan
    return findings


@pytest.mark.parametrize("patients", [[""] * 400, [f"p{n // 3}" for n in range(400)]])
def test_each_finding_is_in_each_split_in_its_share(patients: list[str]) -> None:
    findings = drawn()
    splits = np.asarray(
        random_split(
            *(findings, patients),
            val_fraction=0.1,
            test_fraction=0.2,
            seed=1,
            classes=("a", "b", "c", "d"),
            where="",
            advice="",
        )
    )
    for split, share in (("train", 0.7), ("val", 0.1), ("test", 0.2)):
        chosen = splits == split
        assert chosen.mean() == pytest.approx(share, abs=0.02)
        counts = (findings[chosen] == 1).sum(0)
        expected = share * (findings == 1).sum(0)
        assert (np.abs(counts - expected) <= np.maximum(2.5, 0.12 * expected)).all()
    homes_of: dict[str, set[str]] = {}
    for patient, split in zip(patients, splits, strict=True):
        homes_of.setdefault(patient, set()).add(split)
    if patients[0]:
        assert all(len(where) == 1 for where in homes_of.values())


def test_classes_are_dealt_out_as_they_were() -> None:
    """A split of classes is a part of what a run is: that of 60 images, before findings were."""
    labels = np.arange(60) % 3
    patients = [f"p{n // 2}" for n in range(60)]
    splits = patient_split(labels, patients, val_fraction=0.2, test_fraction=0.2, seed=3, advice="")
    assert (
        "".join(split[1] for split in splits)
        == "rrrreerreerraarrrrrrrrrrrreeaarrrreeaaaarreerraarraarreerrrr"
    )


def several(config: Callable[..., Any], root: Path, **changes: Any) -> Any:
    findings = ["Effusion", "Mass", "Pleural_Thickening"]
    return config("nih", **{"root": root, **SEVERAL, "findings": findings} | changes)


def test_the_fingerprint_is_of_each_finding_of_each_image(
    config: Callable[..., Any], nih: Path
) -> None:
    data = prepare(several(config, nih), nih / "cache")
    assert data.multilabel
    assert data.fingerprint.class_counts["test"] == {
        "Effusion": 4, "Mass": 4, "Pleural_Thickening": 2,
    }  # fmt: skip
    digests = {data.fingerprint.sha256}
    order = ["Mass", "Effusion", "Pleural_Thickening"]
    digests.add(prepare(several(config, nih, findings=order), nih / "cache").fingerprint.sha256)
    digests.add(prepare(config("nih", root=nih), nih / "cache").fingerprint.sha256)
    table = nih / "Data_Entry_2017.csv"
    table.write_text(table.read_text().replace("Mass|Effusion", "Mass|Effusion|Mass", 1))
    assert prepare(several(config, nih), nih / "cache").fingerprint.sha256 in digests
    table.write_text(table.read_text().replace("Mass|Effusion|Mass", "Mass", 1))
    digests.add(prepare(several(config, nih), nih / "cache").fingerprint.sha256)
    assert len(digests) == 4
    assert data.label_of("train", 0) == "Effusion|Mass"


def test_a_finding_that_no_training_image_shows_is_refused_with_those_that_can_be_learned(
    config: Callable[..., Any], nih: Path
) -> None:
    message = r"no training image shows Hernia.*data.findings=\[Effusion,Mass\]"
    with pytest.raises(UserError, match=message):
        prepare(several(config, nih, findings=["Effusion", "Hernia", "Mass"]), nih / "cache")
    table = nih / "Data_Entry_2017.csv"
    table.write_text(table.read_text().replace("No Finding", "Mass").replace(",Eff", ",Mass|Eff"))
    with pytest.raises(UserError, match=r"no training image is known to be without Mass"):
        prepare(several(config, nih), nih / "cache")


def test_test_images_alone_have_their_findings_in_the_order_of_a_classifier(
    config: Callable[..., Any], nih: Path
) -> None:
    classes = ("Mass", "Pleural_Thickening", "Effusion")
    whole = prepare(several(config, nih), nih / "cache")
    test, _ = prepare_test(several(config, nih), nih / "cache", classes, graded=False)
    assert test.classes == classes
    np.testing.assert_array_equal(
        test.splits["test"].labels, whole.splits["test"].labels[:, [1, 2, 0]]
    )
