"""Tables as spreadsheets, pandas and archives write them."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest

from dpmi.base.errors import UserError
from dpmi.config.data_sets import DataConfig
from dpmi.data.catalogue import Catalogue
from dpmi.data.readers import read_catalogue
from dpmi.data.tables import read_table

Read = Callable[..., Catalogue]


@pytest.fixture
def read(config: Callable[..., DataConfig], draw: Callable[..., Path], tmp_path: Path) -> Read:
    """Read a table of text: ``read("path,label\\n...", "a.png", ...)`` also draws those images."""

    def make(text: str, *images: str, **changes: object) -> Catalogue:
        root = tmp_path / "own"
        root.mkdir(exist_ok=True)
        for seed, name in enumerate(images or [f"{number}.png" for number in range(20)]):
            draw(root / name, seed)
        (root / "labels.csv").write_bytes(text.encode())
        return read_catalogue(config("csv", **{"root": root} | changes), tmp_path)

    return make


ROWS = [(f"{n}.png", "ab"[n % 2], ("train", "val", "test", "train")[n // 2 % 4]) for n in range(20)]


def written(separator: str = ",", end: str = "\n", header: str = "path,label,split") -> str:
    lines = [header.replace(",", separator), *(separator.join(row) for row in ROWS)]
    return end.join(lines) + end


@pytest.fixture
def plain(read: Read) -> Catalogue:
    """The rows in a table as it is documented."""
    return read(written())


def same(one: Catalogue, other: Catalogue) -> bool:
    columns = ("paths", "classes", "splits", "patients", "groups")
    return all(getattr(one, c) == getattr(other, c) for c in columns) and (
        one.labels.tolist() == other.labels.tolist()
    )


def test_a_table_as_documented_is_read_without_a_note(plain: Catalogue) -> None:
    assert len(plain.paths) == 20
    assert plain.notes == ()


@pytest.mark.parametrize(
    ("text", "note"),
    [
        (written(";"), "read with a semicolon between"),
        (written("\t"), "read with a tab between"),
        (written(header="Path,LABEL,Split"), "Path as path, LABEL as label, Split as split"),
    ],
    ids=["semicolon", "tab", "capitals"],
)
def test_another_separator_or_case_is_read_and_one_line_says_so(
    read: Read, plain: Catalogue, text: str, note: str
) -> None:
    found = read(text)
    assert same(found, plain)
    assert len(found.notes) == 1
    assert note in found.notes[0]
    assert "\n" not in found.notes[0]


@pytest.mark.parametrize(
    "text",
    [
        "\ufeff" + written(),
        written(end="\r\n"),
        written() + ",,\n\n , ,\n",
        written().replace("train", "TRAIN").replace("test", "Test"),
        "\n".join(f'"{c}"'.replace(",", '","') for c in written().split()) + "\n",
    ],
    ids=["byte order mark", "CRLF", "empty rows", "splits in capitals", "quotes"],
)
def test_what_spreadsheets_add_changes_nothing(read: Read, plain: Catalogue, text: str) -> None:
    found = read(text)
    assert same(found, plain)
    assert found.notes == ()


def test_an_index_column_of_pandas_is_no_group(read: Read, plain: Catalogue) -> None:
    first, *lines = written().split()
    text = "\n".join([f",{first}", *(f"{n},{line}" for n, line in enumerate(lines))])
    assert same(read(text), plain)


def test_the_exact_name_of_a_column_goes_before_one_in_another_case(
    read: Read, plain: Catalogue
) -> None:
    first, *lines = written().split()
    found = read("\n".join([f"{first},Label", *(f"{line},x" for line in lines)]), groups=["Label"])
    assert found.groups == {"Label": ("x",) * 20}
    assert found.labels.tolist() == plain.labels.tolist()


@pytest.mark.parametrize("names", ["path,label,label", "path,Label,LABEL", "path,label,x,x"])
def test_a_column_that_is_there_twice_is_refused(read: Read, names: str) -> None:
    with pytest.raises(UserError, match="two columns are named"):
        read(f"{names}\n0.png,a,b,c\n")


def test_a_comma_in_a_name_needs_quotes_and_the_line_says_so(read: Read) -> None:
    lines = ['"a,b.png",ill', "c.png,well", '"ä ö,ü/1, 2.png",ill', "d.png,well"] * 1
    images = ("a,b.png", "c.png", "ä ö,ü/1, 2.png", "d.png")
    found = read("path,label,split\n" + "\n".join(f"{x},train" for x in lines), *images)
    assert found.paths == images
    with pytest.raises(UserError, match=r"line 2: 3 values, .* names 2 columns.* \"a,b\""):
        read("path,label\na,b.png,ill\nc.png,well\n", *images)


def test_labels_that_pandas_made_floats_are_the_integers_that_they_were(read: Read) -> None:
    text = "path,label\n" + "\n".join(f"{n}.png,{n % 2 * 10 + n % 4 // 2 * 2}.0" for n in range(20))
    found = read(text, graded=True)
    assert found.classes == ("0", "2", "10", "12")
    assert found.notes == (f"{found.source.place}/labels.csv: labels such as 0.0 were read as 0.",)
    halves = read(text.replace("10.0", "0.5"))
    assert halves.classes == ("0.0", "0.5", "12.0", "2.0")
    assert halves.notes == ()


def test_paths_without_an_extension_are_the_one_image_of_that_name(
    read: Read, draw: Callable[..., Path], tmp_path: Path
) -> None:
    images = [f"deep/1.2.{n}{('.png', '.JPG')[n % 2]}" for n in range(20)]
    text = "path,label\n" + "\n".join(f"deep/1.2.{n},{n % 2}" for n in range(20))
    found = read(text, *images)
    assert found.paths == tuple(images)
    assert "paths without an extension (20)" in found.notes[0]
    (tmp_path / "own" / "deep" / "1.2.3.txt").touch()  # is no image
    assert read(text, *images).paths == tuple(images)
    draw(tmp_path / "own" / "deep" / "1.2.3.png", 3)
    with pytest.raises(
        UserError, match=r"line 5: .* several images: deep/1\.2\.3\.JPG, deep/1\.2\.3"
    ):
        read(text, *images)
    (tmp_path / "own" / "deep" / "1.2.3.png").unlink()
    with pytest.raises(UserError, match=r"line 22: there is no image .*deep/1\.2\.30"):
        read(f"{text}\ndeep/1.2.30,0\n", *images)


def test_an_absolute_path_below_the_root_is_read_and_another_is_refused(
    read: Read, plain: Catalogue, tmp_path: Path
) -> None:
    text = written().replace("\n", f"\n{tmp_path}/own/./")[: -len(f"{tmp_path}/own/./")]
    found = read(text)
    assert same(found, plain)
    assert "absolute paths below data.root (20)" in found.notes[0]
    (tmp_path / "other").symlink_to(tmp_path / "own")
    assert same(read(text, root=tmp_path / "other"), plain)  # written by the folder's other name
    for other in (f"{tmp_path}/own-not", f"{tmp_path}/own/..", "/etc"):
        with pytest.raises(UserError, match=r"line 2: .* is absolute and leads out of data\.root"):
            read(text.replace(f"{tmp_path}/own/.", other, 1))


def test_back_slashes_separate_folders(read: Read) -> None:
    images = [f"a b/c/{n}.png" for n in range(20)]
    text = "path,label\n" + "\n".join(f"a b\\c\\{n}.png,{n % 2}" for n in range(20))
    assert read(text, *images).paths == tuple(images)


def test_an_image_that_is_listed_by_two_names_is_listed_twice(read: Read, tmp_path: Path) -> None:
    for twice in ("1", f"{tmp_path}/own/1.png", "./1.png", "x\\..\\1.png"):
        with pytest.raises(UserError, match=r"line 22: 1\.png is listed a second .* line 3"):
            read(written() + f"{twice},a,train\n")


def test_a_table_packed_by_gzip_is_read_and_a_damaged_one_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "t.csv.gz"
    file.write_bytes(gzip.compress(b"\xef\xbb\xbfa;b\r\n1;2\r\n"))
    assert read_table(file, ["a"]).rows[0].values == {"a": "1", "b": "2"}
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(UserError, match=r"t\.csv\.gz: the CSV file cannot be read"):
        read_table(file, ["a"])


def test_a_label_of_several_classes_is_refused_with_what_to_do(
    read: Read, config: Callable[..., DataConfig], draw: Callable[..., Path], tmp_path: Path
) -> None:
    text = written().replace("3.png,b", "3.png,Effusion|Mass")
    with pytest.raises(
        UserError, match=r"line 5: label 'Effusion\|Mass' names several .*set data=csv"
    ):
        read(text)
    for name in ("Effusion|Mass", "Mass"):
        draw(tmp_path / "folders" / name / "0.png")
    with pytest.raises(UserError, match=r"folders: label 'Effusion\|Mass' names several"):
        read_catalogue(config("folder", root=tmp_path / "folders"), tmp_path)


def test_more_classes_than_anyone_means_are_refused_unless_they_are_meant(read: Read) -> None:
    many = [f"{n}.png" for n in range(104)]
    text = "path,label,split\n" + "\n".join(
        f"{name},c{n // 2 % 51},{('train', 'test')[n % 2]}" for n, name in enumerate(many)
    )
    with pytest.raises(UserError, match=r"51 classes .*'c0'.* more than 50.*data\.many_classes="):
        read(text, *many)
    assert len(read(text, *many, many_classes=True).classes) == 51
    assert len(read(text.replace("c50,", "c49,"), *many).classes) == 50


def test_names_taken_for_classes_are_refused_unless_they_are_meant(read: Read) -> None:
    text = "path,label,split\n" + "\n".join(f"{n}.png,scan {n // 9 * n},train" for n in range(20))
    with pytest.raises(UserError, match=r"11 of 12 classes have one image .*data\.many_classes="):
        read(text)
    assert len(read(text, many_classes=True).classes) == 12
    rare = "path,label,split\n" + "\n".join(f"{n}.png,{'ab'[n // 19]},train" for n in range(20))
    assert read(rare).labels.tolist() == [0] * 19 + [1]  # one image in a class is no mistake
