from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from dpmi.base.errors import UserError
from dpmi.config.data_sets import DataConfig
from dpmi.data.prepare import prepare
from dpmi.data.readers import read_catalogue

Config = Callable[..., DataConfig]
Draw = Callable[..., Path]


@pytest.fixture
def many(tmp_path: Path, draw: Draw) -> Path:
    """Forty images in two classes."""
    root = tmp_path / "many"
    for number in range(40):
        draw(root / ("cat" if number % 2 else "dog") / f"{number}.png", number)
    return root


def test_files_of_no_known_format_are_counted_and_three_of_them_named_in_one_line(
    config: Config, many: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("cat/d.xml", "cat/b.pdf", "dog/a.txt", "cat/deep/c.mp4"):
        (many / name).parent.mkdir(exist_ok=True)
        (many / name).write_bytes(b"no image at all" * 20)
    data = prepare(config("folder", root=many), tmp_path / "cache")
    assert sum(data.fingerprint.counts.values()) == 40
    (line,) = data.notes
    assert line in caplog.text
    assert line.startswith("4 of 44 files in the class folders are no images in a known format")
    assert "cat/b.pdf, cat/d.xml, cat/deep/c.mp4 and 1 more" in line


def test_what_systems_leave_in_folders_is_no_part_of_the_set(
    config: Config, many: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("._1.png", ".DS_Store", "Thumbs.db", "thumbs.DB", "desktop.ini", "DICOMDIR"):
        (many / "cat" / name).write_bytes(b"\0" * 128 + b"DICM")
    for folder in (".thumbnails", "__MACOSX"):
        (many / "dog" / folder).mkdir()
        (many / "dog" / folder / "1.png").write_bytes(b"no image")
    catalogue = read_catalogue(config("folder", root=many), tmp_path)
    assert len(catalogue.paths) == 40
    assert catalogue.unknown == ()


def test_names_of_all_kinds_are_read(
    config: Config, many: Path, draw: Draw, tmp_path: Path
) -> None:
    names = ("Müller, Anna; 2.Bild.PNG", "肺 #1.JPG", "a b\tc.Tiff", "deep/er/x.BMP", "-.jfif")
    for number, name in enumerate(names):
        draw(many / "cat" / "plain.png", 100 + number).rename(tmp_path / "one")
        (many / "cat" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "one").rename(many / "cat" / name)
    data = prepare(config("folder", root=many), tmp_path / "cache")
    assert sum(data.fingerprint.counts.values()) == 40 + len(names)


def test_a_file_of_no_bytes_is_named(config: Config, many: Path, tmp_path: Path) -> None:
    (many / "cat" / "empty.png").touch()
    with pytest.raises(UserError, match=r"^cat/empty\.png: .* cannot be decoded: it is empty"):
        prepare(config("folder", root=many), tmp_path / "cache")


def test_a_class_of_one_image_is_refused_where_it_would_have_to_be_in_two_splits(
    config: Config, many: Path, draw: Draw, tmp_path: Path
) -> None:
    draw(many / "mouse" / "1.png", 99)
    with pytest.raises(UserError, match=f"^{many}: class 'mouse' has 1 of 41 images, too"):
        prepare(config("folder", root=many), tmp_path / "cache")


def test_a_pipe_in_a_class_folder_is_not_waited_for(
    config: Config, many: Path, tmp_path: Path
) -> None:
    os.mkfifo(many / "cat" / "pipe")
    assert read_catalogue(config("folder", root=many), tmp_path).unknown == ("cat/pipe",)


@pytest.mark.parametrize("on_corrupt", ["error", "skip"])
def test_too_many_files_of_no_format_are_refused_by_the_key_that_allows_them(
    config: Config, many: Path, tmp_path: Path, on_corrupt: str
) -> None:
    for number in range(5):
        (many / "cat" / f"{number}.xml").write_text("<report/>")

    def run(**changes: object) -> int:
        set_up = config("folder", root=many, on_corrupt=on_corrupt, **changes)
        return sum(prepare(set_up, tmp_path / "cache").fingerprint.counts.values())

    with pytest.raises(
        UserError, match=r"data\.max_left_out=0\.1: 5 of 45 files .* cat/0\.xml"
    ) as no:
        run()
    assert "\n" not in str(no.value)
    assert "set data.max_left_out=0.12 to" in str(no.value)
    assert run(max_left_out=0.12) == 40
    with pytest.raises(UserError, match=r"data\.max_left_out=0: "):
        run(max_left_out=0)


def test_damaged_and_unknown_files_are_counted_together(
    config: Config, many: Path, tmp_path: Path
) -> None:
    for number in (0, 2, 4):
        (many / "dog" / f"{number}.png").write_bytes(b"\x89PNG damaged %d" % number)
    (many / "dog" / "a.xml").write_text("<report/>")
    few = config("folder", root=many, on_corrupt="skip")
    assert prepare(few, tmp_path / "cache").fingerprint.corrupt_skipped == 3  # 4 of 41
    (many / "dog" / "b.xml").write_text("<report/>")
    with pytest.raises(UserError, match=r"5 of 42 files .* dog/a\.xml"):
        prepare(few, tmp_path / "cache")
