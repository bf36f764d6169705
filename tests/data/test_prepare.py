from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dpmi.base.errors import UserError
from dpmi.config.data_sets import DataConfig
from dpmi.data import prepare as prepare_module
from dpmi.data.decoding.image import is_gray
from dpmi.data.prepare import prepare

Config = Callable[..., DataConfig]


def test_splits_hold_their_images_in_order(config: Config, classes: Path, tmp_path: Path) -> None:
    data = prepare(config("folder", root=classes), tmp_path / "cache")
    assert list(data.splits) == ["train", "test"]
    train, test = data.splits["train"], data.splits["test"]
    assert train.pixels.shape == (7, 3, 32, 32)
    assert test.pixels.shape == (4, 3, 32, 32)
    assert train.labels.tolist() == [0, 0, 0, 0, 1, 1, 1]
    assert test.labels.tolist() == [0, 0, 1, 1]
    assert data.fingerprint.counts == {"train": 7, "test": 4}
    assert data.fingerprint.class_counts["train"] == {"cat": 4, "dog": 3}
    assert data.fingerprint.largest_images_per_patient is None
    json.dumps(dataclasses.asdict(data.fingerprint))


def test_moved_data_have_the_same_fingerprint_and_are_not_decoded_again(
    config: Config, classes: Path, tmp_path: Path
) -> None:
    before = prepare(config("folder", root=classes), tmp_path / "cache")
    moved = shutil.move(classes, tmp_path / "elsewhere")
    after = prepare(config("folder", root=moved), tmp_path / "cache")
    assert after.fingerprint == before.fingerprint
    assert len(list((tmp_path / "cache" / "images").glob("*/pixels.npy"))) == 1


def test_the_fingerprint_follows_contents_labels_splits_and_size(
    config: Config, classes: Path, draw: Callable[..., Path], tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    seen = {prepare(config("folder", root=classes), cache).fingerprint.sha256}
    seen.add(prepare(config("folder", root=classes, image_size=40), cache).fingerprint.sha256)
    shutil.move(classes / "train" / "cat" / "3.png", classes / "train" / "dog" / "a.png")
    seen.add(prepare(config("folder", root=classes), cache).fingerprint.sha256)
    shutil.move(classes / "train" / "dog" / "a.png", classes / "test" / "dog" / "a.png")
    seen.add(prepare(config("folder", root=classes), cache).fingerprint.sha256)
    draw(classes / "test" / "dog" / "a.png", 99)
    seen.add(prepare(config("folder", root=classes), cache).fingerprint.sha256)
    assert len(seen) == 5


def test_a_copy_in_two_splits_is_kept_in_test_only(
    config: Config, classes: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copy(classes / "test" / "dog" / "0.png", classes / "train" / "dog" / "copy.png")
    shutil.copy(classes / "test" / "cat" / "0.png", classes / "train" / "cat" / "a.png")
    shutil.copy(classes / "test" / "cat" / "0.png", classes / "train" / "cat" / "b.png")
    shutil.copy(classes / "train" / "cat" / "1.png", classes / "train" / "cat" / "twin.png")
    fingerprint = prepare(config("folder", root=classes), tmp_path / "cache").fingerprint
    assert fingerprint.duplicates_removed == 3
    assert fingerprint.duplicates_within_split == 1
    assert fingerprint.most_copies_of_an_image == 2
    assert fingerprint.together == {"copies": 2}
    assert fingerprint.counts == {"train": 8, "test": 4}
    assert "3 images are byte-identical to an image of another split" in caplog.text


def test_patients_are_counted(config: Config, draw: Callable[..., Path], tmp_path: Path) -> None:
    rows = [
        ("train", "a", "p1"),
        ("train", "b", "p1"),
        ("train", "a", "p2"),
        ("test", "b", "p1"),
        ("test", "a", "p3"),
        ("val", "a", ""),
        ("train", "a", ""),
    ]
    lines = ["path,split,label,patient"]
    for number, row in enumerate(rows):
        draw(tmp_path / f"{number}.png", number)
        lines.append(",".join([f"{number}.png", *row]))
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    data = prepare(config("csv", root=tmp_path), tmp_path / "cache")
    assert list(data.splits) == ["train", "val", "test"]
    assert data.splits["train"].patients == ("p1", "p1", "p2", "")
    assert data.fingerprint.patients_in_two_splits == 1
    assert data.fingerprint.largest_images_per_patient == 2
    assert data.fingerprint.median_images_per_patient == 2  # of 1 and 2 the higher
    assert data.fingerprint.together == {"largest_patient": 2, "median_patient": 2, "copies": 1}


def test_a_corrupt_image_is_named_or_skipped(
    config: Config, classes: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = (classes / "train" / "cat" / "1.png").read_bytes()
    (classes / "train" / "cat" / "1.png").write_bytes(whole[: len(whole) // 2])
    (classes / "test" / "dog" / "1.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"train/cat/1\.png: .* data.on_corrupt=skip") as caught:
        prepare(config("folder", root=classes), tmp_path / "cache")
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "cache" / "images").glob("*/"))

    data = prepare(
        config("folder", root=classes, on_corrupt="skip", max_left_out=0.2), tmp_path / "cache"
    )
    assert data.fingerprint.corrupt_skipped == 2
    assert data.fingerprint.counts == {"train": 6, "test": 3}
    assert data.splits["train"].labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert len(data.splits["train"].pixels) == 6
    assert "2 images cannot be decoded" in caplog.text


def test_skipping_does_not_hide_a_class_that_is_gone(
    config: Config, classes: Path, tmp_path: Path
) -> None:
    for file in (classes / "train" / "dog").iterdir():
        file.write_bytes(file.read_bytes()[:20])
    with pytest.raises(UserError, match="class 'dog' has no training image that can be used"):
        prepare(
            config("folder", root=classes, on_corrupt="skip", max_left_out=0.3), tmp_path / "cache"
        )


def test_a_class_without_training_images_is_refused(
    config: Config, classes: Path, tmp_path: Path
) -> None:
    (classes / "train" / "emu").mkdir()
    with pytest.raises(UserError, match="class 'emu' has no training image"):
        prepare(config("folder", root=classes), tmp_path / "cache")


def test_missing_test_images_are_refused(config: Config, classes: Path, tmp_path: Path) -> None:
    shutil.rmtree(classes / "test")
    with pytest.raises(UserError, match="no test images"):
        prepare(config("folder", root=classes), tmp_path / "cache")


def test_a_crop_larger_than_the_image_names_both_keys(
    config: Config, classes: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"data\.image_size=64 is larger than data\.resize=32"):
        prepare(config("folder", root=classes, image_size=64, resize=32), tmp_path / "cache")


@pytest.mark.parametrize(("delta", "refused"), [(1 / 7, True), (0.5, True), (0.14, False)])
def test_a_delta_that_lets_an_image_be_published_is_refused_before_any_decoding(
    config: Config,
    classes: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    delta: float,
    refused: bool,
) -> None:
    if not refused:
        assert prepare(config("folder", root=classes), tmp_path / "cache", delta).splits
        return
    monkeypatch.setattr(prepare_module, "content_digests", lambda *_: pytest.fail("it went on"))
    with pytest.raises(UserError, match=r"mechanism.delta=0\.\d+ .* 7 training .* below 1/7"):
        prepare(config("folder", root=classes), tmp_path / "cache", delta)


def test_one_path_through_real_xrays(config: Config, real_images: Path, tmp_path: Path) -> None:
    data = prepare(config("chest_xray", root=real_images / "chest_xray"), tmp_path)
    assert data.fingerprint.counts == {"train": 5216, "val": 16, "test": 624}
    assert data.fingerprint.duplicates_removed == 0
    assert data.fingerprint.duplicates_within_split == 32
    together = {"largest_patient": 30, "median_patient": 1, "copies": 3}
    assert data.fingerprint.together == together
    train = data.splits["train"].pixels
    assert train.shape == (5216, 1, 32, 32)
    assert isinstance(train, np.memmap)
    assert 80 < train.mean() < 160
    again = prepare(config("chest_xray", root=real_images / "chest_xray"), tmp_path)
    assert again.fingerprint == data.fingerprint


def shades(number: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(number).integers(0, 256, (40, 36), dtype=np.uint8))


def save_16_bits(image: Image.Image, path: Path) -> None:
    Image.fromarray(np.asarray(image).astype(np.uint16) * 257).save(path)


GRAY_FILES: dict[str, Callable[[Image.Image, Path], None]] = {
    "gray.png": lambda image, path: image.save(path),
    "gray with alpha.png": lambda image, path: image.convert("LA").save(path),
    "three equal channels.png": lambda image, path: image.convert("RGB").save(path),
    "three equal channels and alpha.png": lambda image, path: image.convert("RGBA").save(path),
    "palette.png": lambda image, path: image.convert("P").save(path),
    "palette.bmp": lambda image, path: image.convert("RGB").quantize(64).save(path),
    "16 bits.png": save_16_bits,
    "black and white.png": lambda image, path: image.convert("1").save(path),
    "gray.jpg": lambda image, path: image.save(path),
    "colour.jpg": lambda image, path: image.convert("RGB").save(path),
    "cmyk.tif": lambda image, path: image.convert("RGB").convert("CMYK").save(path),
}


@pytest.fixture
def gray_files(tmp_path: Path) -> Path:
    root = tmp_path / "gray"
    for split in ("train", "test"):
        for number, (name, save) in enumerate(GRAY_FILES.items()):
            folder = root / split / ("odd" if number % 2 else "even")
            folder.mkdir(parents=True, exist_ok=True)
            save(shades(number + 100 * (split == "test")), folder / name)
    return root


def test_gray_images_are_kept_as_one_channel_whatever_their_files(
    config: Config, gray_files: Path, tmp_path: Path
) -> None:
    data = prepare(config("folder", root=gray_files), tmp_path / "cache")
    assert data.channels == data.fingerprint.channels == 1
    assert data.splits["train"].pixels.shape == (len(GRAY_FILES), 1, 32, 32)
    requested = prepare(config("folder", root=gray_files, channels=1), tmp_path / "cache")
    assert requested.fingerprint == data.fingerprint
    for split in ("train", "test"):
        assert np.array_equal(requested.splits[split].pixels, data.splits[split].pixels)


def test_one_image_that_is_nearly_gray_makes_a_set_of_images_in_colour(
    config: Config, gray_files: Path, tmp_path: Path
) -> None:
    almost = np.repeat(np.asarray(shades(7))[..., None], 3, axis=2)
    almost[20, 18, 2] ^= 64
    Image.fromarray(almost).save(gray_files / "train" / "odd" / "almost.png")
    data = prepare(config("folder", root=gray_files), tmp_path / "cache")
    assert data.channels == data.fingerprint.channels == 3
    gray = [is_gray(image) for image in data.splits["train"].pixels]
    assert gray.count(False) == 1
    assert len(gray) == len(GRAY_FILES) + 1
