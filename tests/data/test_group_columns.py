"""Which groups test images are told apart by, and that they change nothing else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dpmi.base.errors import UserError
from dpmi.config.data_sets import DataConfig
from dpmi.data.catalogue import Catalogue
from dpmi.data.prepare import prepare
from dpmi.data.readers import read_catalogue
from dpmi.data.readers.chest_xray import kind_of
from dpmi.data.splitting import held_out_patients

Config = Callable[..., DataConfig]
HEADER = "path,label,patient,split,sex,age band"


@pytest.fixture
def clinic(draw: Callable[..., Path], tmp_path: Path) -> Callable[..., Path]:
    """Twelve images in a table, eight to train on; of the fourth in test the sex is not known."""

    def make(header: str = HEADER, swapped: bool = False) -> Path:
        lines = [header]
        for number in range(12):
            draw(tmp_path / f"{number}.png", number)
            sex = "" if number == 11 else "fm"[(number + swapped) % 2]
            split = "test" if number > 7 else "train"
            lines.append(f"{number}.png,{'ab'[number % 2]},p{number},{split},{sex},0{number % 3}")
        (tmp_path / "labels.csv").write_text("\n".join(lines) + "\n")
        return tmp_path

    return make


@pytest.mark.parametrize("requested", [["sex", "age band"], "sex, age band"], ids=["list", "text"])
def test_any_column_of_a_table_groups_its_images_and_a_missing_value_is_a_group(
    config: Config, clinic: Callable[..., Path], requested: Any
) -> None:
    root = clinic()
    data = prepare(config("csv", root=root, groups=requested), root / "cache")
    test = data.splits["test"]
    assert test.groups == {
        "sex": ("f", "m", "f", "unknown"),
        "age band": ("02", "00", "01", "02"),  # text, not numbers
    }
    assert all(len(of) == len(split.labels) for split in data.splits.values()
               for of in split.groups.values())  # fmt: skip


def test_groups_change_what_is_reported_and_nothing_of_the_data(
    config: Config, clinic: Callable[..., Path]
) -> None:
    """Nor the fingerprint, by which accounts and releases know the images."""
    root = clinic()
    plain, grouped = (
        prepare(config("csv", root=root, groups=requested), root / "cache").fingerprint
        for requested in (None, ["sex"])
    )
    clinic(swapped=True)
    other = prepare(config("csv", root=root, groups=["sex"]), root / "cache").fingerprint
    assert plain.sha256 == grouped.sha256 == other.sha256
    assert plain.groups is None
    assert grouped.groups != other.groups


@pytest.mark.parametrize(
    ("name", "requested", "message"),
    [
        ("csv", ["race"], "data.groups=race: data=csv has no such groups; allowed are age band, "
         "sex, or null"),
        ("csv", ["label"], "allowed are age band, sex, or null"),
        ("folder", ["sex"], "allowed is null. To have them, list the images in a CSV file with "
         "the columns path, label and sex, and give data=csv"),
        ("phantom_xray", ["sex"], "allowed are chest, or null"),
        ("phantom_fundus", ["sex"], "allowed is null"),
    ],
)  # fmt: skip
def test_groups_that_are_not_there_are_refused_with_those_that_are(
    config: Config, clinic: Callable[..., Path], classes: Path, name: str, requested: list[str],
    message: str,
) -> None:  # fmt: skip
    settings: dict[str, Any] = {"root": clinic() if name == "csv" else classes}
    if name.startswith("phantom"):
        settings = {"seed": 1, "train_images": 8, "val_images": 0, "test_images": 4}
    with pytest.raises(UserError) as refusal:
        read_catalogue(config(name, groups=requested, **settings), classes)
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_table_without_a_column_to_group_by_says_so(
    config: Config, draw: Callable[..., Path], tmp_path: Path
) -> None:
    for number in range(2):
        draw(tmp_path / f"{number}.png", number)
    (tmp_path / "labels.csv").write_text("path,label,split\n0.png,a,train\n1.png,b,test\n")
    with pytest.raises(UserError, match="its table has no column beside those known; add one"):
        read_catalogue(config("csv", root=tmp_path, groups=["sex"]), tmp_path)


@pytest.mark.parametrize("requested", [["sex", "sex"], [], "", ["a", ""]])
def test_names_of_columns_are_given_once_each(config: Config, requested: Any) -> None:
    with pytest.raises(ValueError, match="groups"):
        config("csv", root="/x", groups=requested)


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("test/PNEUMONIA/person17_bacteria_55.jpeg", "bacteria"),
        ("train/PNEUMONIA/person447_virus_921_1.jpeg", "virus"),
        ("val/NORMAL/IM-0115-0001.jpeg", "normal"),
        ("train/NORMAL/person17_virus_1.jpeg", "normal"),  # by its class, whatever its name
        ("train/PNEUMONIA/holiday.jpeg", ""),
    ],
)
def test_folder_and_file_name_of_an_xray_tell_its_kind(path: str, kind: str) -> None:
    assert kind_of(path) == kind


def test_the_real_xrays_are_of_three_kinds(
    config: Config, real_images: Path, tmp_path: Path
) -> None:
    by_kind = config("chest_xray", root=real_images / "chest_xray", groups=["kind"])
    catalogue = read_catalogue(by_kind, tmp_path)
    kinds = Counter(zip(catalogue.splits, catalogue.groups["kind"], strict=True))
    assert [kinds["test", kind] for kind in ("normal", "bacteria", "virus")] == [234, 242, 148]
    assert "unknown" not in catalogue.groups["kind"]
    _goes_with_its_images(catalogue, held_out_patients(catalogue))


def _goes_with_its_images(before: Catalogue, after: Catalogue) -> None:
    of = dict(zip(before.paths, before.groups["kind"], strict=True))
    assert after.paths != before.paths
    assert after.groups["kind"] == tuple(of[path] for path in after.paths)
