from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from dpmi.base.errors import UserError
from dpmi.config.data_sets import DataConfig
from dpmi.data.readers import read_catalogue

Config = Callable[..., DataConfig]


def test_class_folders_are_split_at_random(
    config: Config, draw: Callable[..., Path], tmp_path: Path
) -> None:
    for number in range(40):
        draw(tmp_path / ("cat" if number % 2 else "dog") / f"deep/{number}.png", number)
    catalogue = read_catalogue(config("folder", root=tmp_path), tmp_path)
    assert catalogue.classes == ("cat", "dog")
    assert len(catalogue.paths) == 40
    assert [catalogue.splits.count(s) for s in ("train", "val", "test")] == [24, 8, 8]
    for path, label in zip(catalogue.paths, catalogue.labels, strict=True):
        assert path.startswith(("cat", "dog")[label])
    again = read_catalogue(config("folder", root=tmp_path), tmp_path)
    assert again.splits == catalogue.splits
    other = read_catalogue(config("folder", root=tmp_path, split_seed=1), tmp_path)
    assert other.splits != catalogue.splits


def test_names_may_have_any_letters_blanks_commas_and_folders(
    config: Config, draw: Callable[..., Path], tmp_path: Path
) -> None:
    classes = ("Lungenentzündung, beidseits", "肺炎", "ok")
    for number in range(30):
        draw(tmp_path / classes[number % 3] / "a b" / f"ü,{number}" / "größe (1).png", number)
    (tmp_path / "ok" / "empty").mkdir()
    catalogue = read_catalogue(config("folder", root=tmp_path), tmp_path)
    assert catalogue.classes == tuple(sorted(classes))
    assert len(catalogue.paths) == 30
    for path, label in zip(catalogue.paths, catalogue.labels, strict=True):
        assert path.split("/")[0] == catalogue.classes[label]
        assert catalogue.source.load(path, 32).shape == (32, 32, 3)


def test_given_split_folders_are_kept(config: Config, classes: Path, tmp_path: Path) -> None:
    catalogue = read_catalogue(config("folder", root=classes), tmp_path)
    assert [catalogue.splits.count(s) for s in ("train", "val", "test")] == [7, 0, 4]
    for path, split in zip(catalogue.paths, catalogue.splits, strict=True):
        assert path.startswith(f"{split}/")


def test_a_folder_that_is_no_split_is_refused_and_not_taken_for_a_class(
    config: Config, classes: Path, tmp_path: Path
) -> None:
    (classes / "valid").mkdir()
    with pytest.raises(UserError, match=r"valid lies beside train/; .* train, val, test"):
        read_catalogue(config("folder", root=classes), tmp_path)


def test_integer_classes_are_ordered_by_value(
    config: Config, draw: Callable[..., Path], tmp_path: Path
) -> None:
    for seed, name in enumerate(["10", "2", "1"]):
        draw(tmp_path / "train" / name / "a.png", seed)
        draw(tmp_path / "test" / name / "a.png", seed + 10)
    catalogue = read_catalogue(config("folder", root=tmp_path, graded=True), tmp_path)
    assert catalogue.classes == ("1", "2", "10")
    assert catalogue.graded


def test_grades_need_integer_names(config: Config, classes: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data.graded=true needs integer .* cat, dog"):
        read_catalogue(config("folder", root=classes, graded=True), tmp_path)


def test_one_class_is_not_enough(config: Config, draw: Callable[..., Path], tmp_path: Path) -> None:
    draw(tmp_path / "cat" / "a.png")
    with pytest.raises(UserError, match="only one class, cat"):
        read_catalogue(config("folder", root=tmp_path), tmp_path)


Table = Callable[[str, Sequence[str]], Path]


@pytest.fixture
def table(tmp_path: Path, draw: Callable[..., Path]) -> Table:
    """Write root/labels.csv and the images 0.png ... that it may name."""

    def write(header: str, lines: Sequence[str]) -> Path:
        root = tmp_path / "own"
        root.mkdir()
        for number in range(len(lines)):
            draw(root / f"{number}.png", number)
        (root / "labels.csv").write_text("\n".join([header, *lines]) + "\n", encoding="utf-8-sig")
        return root

    return write


def test_patients_in_a_table_stay_in_one_split(
    config: Config, table: Table, tmp_path: Path
) -> None:
    lines = [f"{n}.png, {'ill' if n // 4 % 2 else 'well'}, p{n // 4}" for n in range(80)]
    catalogue = read_catalogue(config("csv", root=table("path, label, patient", lines)), tmp_path)
    assert catalogue.classes == ("ill", "well")
    homes: dict[str, set[str]] = {}
    for patient, split in zip(catalogue.patients, catalogue.splits, strict=True):
        homes.setdefault(patient, set()).add(split)
    assert len(homes) == 20
    assert all(len(splits) == 1 for splits in homes.values())
    assert [catalogue.splits.count(s) for s in ("train", "val", "test")] == [48, 16, 16]


def test_splits_in_a_table_are_kept(config: Config, table: Table, tmp_path: Path) -> None:
    lines = ["0.png,0,train", "1.png,1,train", "2.png,0,test", "3.png,1,val"]
    catalogue = read_catalogue(config("csv", root=table("path,label,split", lines)), tmp_path)
    assert catalogue.splits == ("train", "train", "test", "val")
    assert catalogue.classes == ("0", "1")
    assert catalogue.patients == ("",) * 4


def test_a_table_without_patients_is_split_by_class(
    config: Config, table: Table, tmp_path: Path
) -> None:
    lines = [f"{n}.png,{n % 2}" for n in range(20)]
    catalogue = read_catalogue(config("csv", root=table("path,label", lines)), tmp_path)
    assert [catalogue.splits.count(s) for s in ("train", "val", "test")] == [12, 4, 4]


def test_a_table_is_found_from_the_current_folder_or_from_root(
    config: Config, table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = table("path,label", [f"{n}.png,{n % 2}" for n in range(20)])
    monkeypatch.chdir(tmp_path)
    for name in ("labels.csv", "own/labels.csv", str(root / "labels.csv")):
        assert read_catalogue(config("csv", root="own", csv=name), tmp_path).paths


GOOD = ["0.png,a", "1.png,b"]


@pytest.mark.parametrize(
    ("header", "lines", "message"),
    [
        ("file,class", GOOD, "columns path, label are missing.* has file, class"),
        ("path,class", GOOD, "column label is missing"),
        ("path,label", [], "no rows"),
        ("path,label", [*GOOD, "none.png,a"], r"line 4: there is no image .*none\.png"),
        ("path,label", [*GOOD, "../own/0.png,a"], "line 4: path '../own/0.png' leads out"),
        (
            "path,label",
            [*GOOD, "/etc/passwd,a"],
            "line 4: path '/etc/passwd' is absolute and leads out of",
        ),
        ("path,label", [*GOOD, "x/../../y.png,a"], "line 4: .* leads out of data.root"),
        ("path,label", [*GOOD, "..,a"], "line 4: .* leads out of data.root"),
        ("path,label", [*GOOD, "..\\0.png,a"], "line 4: .* leads out of data.root"),
        ("path,label", [*GOOD, "x\\..\\..\\y.png,a"], "line 4: .* leads out of data.root"),
        ("path,label", [*GOOD, "C:\\0.png,a"], "line 4: .* leads out of data.root"),
        ("path,label", [*GOOD, "c:0.png,a"], "line 4: .* leads out of data.root"),
        ("path,label", [*GOOD, "\\\\host\\share\\0.png,a"], "line 4: .* leads out of"),
        ("path,label", [*GOOD, "0.png\0.png,a"], "line 4: .* leads out of data.root"),
        ("path,label", [*GOOD, ".,a"], "line 4: .*"),
        ("path,label", [*GOOD, "0.png,b"], r"line 4: 0\.png is listed a second .* line 2"),
        ("path,label", [*GOOD, "2.png,"], "line 4: the column label is empty"),
        ("path,label,split", ["0.png,a,train", "1.png,b,dev"], "line 3: split 'dev' is not one"),
        ("path,label", ["0.png,a", "1.png,a"], "only one class"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused_in_one_line(
    config: Config, table: Table, tmp_path: Path, header: str, lines: list[str], message: str
) -> None:
    root = table(header, lines)
    with pytest.raises(UserError, match=message) as caught:
        read_catalogue(config("csv", root=root), tmp_path)
    assert "\n" not in str(caught.value)
    assert "labels.csv" in str(caught.value)


@pytest.mark.parametrize("link", ["file", "folder", "chain"])
def test_a_link_in_a_table_does_not_lead_out_of_the_root(
    config: Config, table: Table, draw: Callable[..., Path], tmp_path: Path, link: str
) -> None:
    path = {"file": "link.png", "folder": "away/secret.png", "chain": "chain.png"}[link]
    root = table("path,label", [*GOOD, "2.png,b", f"{path},a"])
    secret = draw(tmp_path / "own-not" / "secret.png", 9)  # its name begins as the root's does
    (root / "link.png").symlink_to(secret)
    (root / "away").symlink_to(secret.parent)
    (root / "chain.png").symlink_to("link.png")
    with pytest.raises(UserError, match=r"line 5: path .* leads out of data\.root") as caught:
        read_catalogue(config("csv", root=root), tmp_path)
    assert "\n" not in str(caught.value)


def test_a_link_that_stays_below_the_root_is_followed_and_the_root_may_be_one(
    config: Config, table: Table, tmp_path: Path
) -> None:
    lines = [f"{n}.png,{n % 2}" for n in range(20)]
    root = table("path,label", [*lines, "link.png,0"])
    (root / "link.png").symlink_to("3.png")
    (tmp_path / "other").symlink_to(root)
    assert len(read_catalogue(config("csv", root=tmp_path / "other"), tmp_path).paths) == 21


@pytest.mark.parametrize("link", ["image", "class"])
def test_a_link_in_a_folder_of_classes_does_not_lead_out_of_the_root(
    config: Config, classes: Path, draw: Callable[..., Path], tmp_path: Path, link: str
) -> None:
    secret = draw(tmp_path / "secret" / "secret.png", 9)
    place = classes / "train" / ("cat/link.png" if link == "image" else "mouse")
    place.symlink_to(secret if link == "image" else secret.parent)
    with pytest.raises(UserError, match=r"train/.* leads out of data\.root") as caught:
        read_catalogue(config("folder", root=classes), tmp_path)
    assert "\n" not in str(caught.value)


def test_a_table_that_is_no_text_is_refused(config: Config, table: Table, tmp_path: Path) -> None:
    root = table("path,label", GOOD)
    (root / "labels.csv").write_bytes(b"path,label\n\xff\xfe\x00,1\n")
    with pytest.raises(UserError, match="not a CSV file in UTF-8"):
        read_catalogue(config("csv", root=root), tmp_path)


def test_a_missing_table_is_refused_with_its_key(
    config: Config, table: Table, tmp_path: Path
) -> None:
    root = table("path,label", GOOD)
    with pytest.raises(UserError, match=r"data.csv=other\.csv: there is no such file"):
        read_catalogue(config("csv", root=root, csv="other.csv"), tmp_path)
