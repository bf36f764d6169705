from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from dpmi.base.ranks import ALONE, Ranks
from dpmi.config.data_sets import DataConfig
from dpmi.data.augment import affine_crops, draw_affine
from dpmi.data.batches import NumberedBatch
from dpmi.data.datamodule import Batch, ImageDataModule, ImageDataset
from dpmi.data.patients import Patients
from dpmi.data.prepare import PreparedData, Split, prepare

Config = Callable[..., DataConfig]


@pytest.fixture
def prepared(config: Config, classes: Path, tmp_path: Path) -> PreparedData:
    return prepare(config("folder", root=classes, image_size=40), tmp_path / "cache")


def module(prepared: PreparedData, **changes: Any) -> ImageDataModule:
    options = {
        "image_size": 32,
        "batch_size": 3,
        "augment": "none",
        "num_workers": 0,
        "seed": 1,
    }
    return ImageDataModule(prepared, **(options | changes))


class Fixed:
    """Batches that are given."""

    def __init__(self, batches: list[list[int]]) -> None:
        self.batches, self.steps_per_epoch = batches, len(batches)

    def draw(self, step: int) -> list[int]:
        return self.batches[step % self.steps_per_epoch]


@pytest.mark.parametrize("augment", ["none", "affine"])
@pytest.mark.parametrize("workers", [0, 1])
def test_batches_follow_the_batch_sampler_and_may_be_empty(
    prepared: PreparedData, augment: str, workers: int
) -> None:
    batches = [[4, 0], [], [6]]
    data = module(prepared, augment=augment, num_workers=workers, train_batches=Fixed(batches))
    served = list(data.train_dataloader())
    assert [images.shape for images, _ in served] == [
        (2, 3, 32, 32),
        (0, 3, 32, 32),
        (1, 3, 32, 32),
    ]
    assert [labels.tolist() for _, labels in served] == [[1, 0], [], [1]]
    assert {images.dtype for images, _ in served} == {torch.float32}
    assert {labels.dtype for _, labels in served} == {torch.int64}


def test_evaluation_serves_the_centre_in_order_between_0_and_1(prepared: PreparedData) -> None:
    data = module(prepared, augment="affine")
    for split, loader in (
        ("train", data.train_eval_dataloader()),
        ("test", data.test_dataloader()),
    ):
        images = torch.cat([images for images, _ in loader]).numpy()
        labels = torch.cat([labels for _, labels in loader]).numpy()
        expected = prepared.splits[split].pixels[:, :, 4:36, 4:36] / 255
        assert np.allclose(images, expected, atol=1e-7)
        assert np.array_equal(labels, prepared.splits[split].labels)


def test_shuffling_follows_the_seed_and_serves_each_image_once(prepared: PreparedData) -> None:
    def order(seed: int) -> list[float]:
        batches = module(prepared, seed=seed).train_dataloader()
        return [float(image.sum()) for images, _ in batches for image in images]

    torch.manual_seed(0)
    first = order(1)
    torch.manual_seed(1)
    assert order(1) == first
    assert order(2) != first
    assert sorted(order(2)) == sorted(first)
    assert len(first) == 7


def test_a_set_without_validation_images_has_no_validation_loader(
    prepared: PreparedData,
) -> None:
    assert module(prepared).val_dataloader() == []


def test_the_affine_moves_vertically_and_enlarges_and_nothing_else() -> None:
    """A bright centre stays in its columns, but for the enlargement of a tenth."""
    pixels = np.zeros((1, 1, 100, 100), dtype=np.uint8)
    pixels[:, :, 40:60, 40:60] = 255
    split = Split(pixels, np.zeros(1, dtype=np.int64), ("",))
    dataset = ImageDataset(split, 100, "affine")
    tops, widths = [], []
    for step in range(200):
        image = dataset.__getitems__(NumberedBatch([0], step))[0][0, 0]
        columns = image.amax(0).nonzero().flatten()
        rows = image.amax(1).nonzero().flatten()
        assert abs(int(columns[0]) + int(columns[-1]) - 99) <= 1
        widths.append(len(columns))
        tops.append((int(rows[0]) + int(rows[-1]) - 99) / 2)
    assert 20 <= min(widths) < max(widths) <= 22
    assert -11 <= min(tops) < -8
    assert 8 < max(tops) <= 11


def test_an_image_is_augmented_alike_whoever_is_beside_it_in_the_batch() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 1, 64, 64), dtype=np.uint8)
    dataset = ImageDataset(Split(pixels, np.zeros(9, dtype=np.int64), ("",) * 9), 56, "affine", 4)
    whole = dataset.__getitems__(NumberedBatch(range(9), 3))[0]
    for batch in ([8], [5, 2], [7, 0, 8, 1]):
        assert torch.equal(dataset.__getitems__(NumberedBatch(batch, 3))[0], whole[batch])
    assert not torch.equal(dataset.__getitems__(NumberedBatch(range(9), 4))[0], whole)


@pytest.mark.parametrize(("workers", "resident"), [(0, False), (1, False), (0, True)])
def test_views_of_an_image_are_drawn_each_by_itself_and_the_first_as_if_it_were_alone(
    prepared: PreparedData, workers: int, resident: bool
) -> None:
    batches = Fixed([[4, 0], [], [6]])
    common: dict[str, Any] = {"augment": "affine", "train_batches": batches}
    one = module(prepared, **common)
    three = module(prepared, multiplicity=3, num_workers=workers, resident=resident, **common)
    three.trainer = OnTheCpu()  # type: ignore[assignment]
    served = zip(one.train_dataloader(), three.train_dataloader(), strict=True)
    for step, ((images, labels), (views, same_labels)) in enumerate(served):
        indices = batches.draw(step)
        assert views.shape == (len(indices), 3, 3, 32, 32)
        assert torch.equal(labels, same_labels)
        assert torch.equal(views[:, 0], images)
        pixels = torch.from_numpy(prepared.splits["train"].pixels[indices])
        for view in range(3):
            moves = draw_affine(indices, 40, 1, step, view)
            assert torch.equal(views[:, view], affine_crops(pixels, 32, *moves) / 255)


def test_views_that_are_not_augmented_are_refused(prepared: PreparedData) -> None:
    with pytest.raises(ValueError, match="would be the same"):
        ImageDataset(prepared.splits["train"], 32, "none", multiplicity=2)


def as_torchvision(image: torch.Tensor, shift: float, scale: float) -> torch.Tensor:
    """What RandomAffine does with these parameters."""
    moved = {"angle": 0.0, "translate": [0, int(shift)], "scale": scale, "shear": [0.0, 0.0]}
    return v2.functional.affine(image, **moved)


def test_on_square_images_the_affine_does_what_the_posters_pipeline_does() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 3, 64, 64), dtype=np.uint8)
    dataset = ImageDataset(Split(pixels, np.zeros(5, dtype=np.int64), ("",) * 5), 56, "affine", 7)
    served = dataset.__getitems__(NumberedBatch([4, 1, 3], 3))[0]
    moves = zip([4, 1, 3], *draw_affine([4, 1, 3], 64, seed=7, step=3), strict=True)
    moved = [as_torchvision(torch.from_numpy(pixels[i]), float(y), float(s)) for i, y, s in moves]
    assert torch.equal(served, v2.CenterCrop(56)(torch.stack(moved)) / 255)


@pytest.mark.parametrize(("side", "crop"), [(64, 64), (65, 50), (50, 45)])
def test_the_affine_serves_float_images_of_any_side_as_torchvision_does(
    side: int, crop: int
) -> None:
    pixels = np.random.default_rng(0).normal(size=(20, 1, side, side)).astype(np.float32)
    shifts, scales = draw_affine(range(20), side, seed=5, step=0)
    served = affine_crops(torch.from_numpy(pixels), crop, shifts, scales)
    moves = zip(torch.from_numpy(pixels), shifts, scales, strict=True)
    moved = torch.stack([as_torchvision(image, float(y), float(s)) for image, y, s in moves])
    # In the middle row and column of an odd side, rounding may choose the other neighbour.
    assert (served == v2.CenterCrop(crop)(moved)).float().mean() > 0.999


def test_float_images_are_served_as_they_are() -> None:
    pixels = np.linspace(-3, 4, 2 * 64).reshape(2, 1, 8, 8).astype(np.float32)
    dataset = ImageDataset(Split(pixels, np.zeros(2, dtype=np.int64), ("", "")), 8)  # type: ignore[arg-type]
    assert np.array_equal(dataset.__getitems__([0, 1])[0].numpy(), pixels)


class OnTheCpu:
    """As much of a trainer as says where it trains."""

    class strategy:  # noqa: N801
        root_device = torch.device("cpu")


@pytest.mark.parametrize("augment", ["none", "affine"])
def test_batches_are_the_same_to_the_bit_where_the_images_are_resident(
    prepared: PreparedData, augment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the CPU as the device: what a GPU is told to do, though no GPU does it here."""
    monkeypatch.setattr("dpmi.data.datamodule._BYTES_AT_ONCE", 3 * 40 * 40 * 2)  # in pieces
    batches = Fixed([[4, 0], [], [6, 1, 2]])
    host = module(prepared, augment=augment, train_batches=batches)
    device = module(prepared, augment=augment, train_batches=batches, resident=True)
    device.trainer = OnTheCpu()  # type: ignore[assignment]
    for loaders in (
        (host.train_dataloader(), device.train_dataloader()),
        (host.train_eval_dataloader(), device.train_eval_dataloader()),
    ):
        for (images, labels), (same_images, same_labels) in zip(*loaders, strict=True):
            assert torch.equal(images, same_images)
            assert torch.equal(labels, same_labels)
    train = device.train_dataloader().dataset
    assert train._resident is device.train_eval_dataloader().dataset._resident is not None


def test_on_a_cpu_auto_leaves_the_images_where_they_are(prepared: PreparedData) -> None:
    data = module(prepared, resident="auto")
    data.trainer = OnTheCpu()  # type: ignore[assignment]
    assert data.train_dataloader().dataset._resident is None


def test_an_image_is_augmented_alike_whoever_serves_it(prepared: PreparedData) -> None:
    def served(ranks: Ranks) -> list[Batch]:
        data = module(prepared, augment="affine", batch_size=5, ranks=ranks)
        return list(data.train_dataloader())

    whole, parts = served(ALONE), [served(Ranks(rank, 2)) for rank in range(2)]
    for (images, labels), *shared in zip(whole, *parts, strict=True):
        for rank, (some, theirs) in enumerate(shared):
            assert torch.equal(some, images[rank::2])
            assert torch.equal(theirs, labels[rank::2])


def test_an_unknown_augmentation_is_refused(prepared: PreparedData) -> None:
    with pytest.raises(ValueError, match="'none' or 'affine'"):
        ImageDataset(prepared.splits["train"], 32, "flip")


def test_a_batch_of_patients_has_images_of_theirs_and_each_images_own_label(
    prepared: PreparedData,
) -> None:
    split = prepared.splits["train"]
    patients = Patients.named([str(row % 3) for row in range(len(split.labels))])
    dataset = ImageDataset(split, 40, multiplicity=2, patients=patients)
    assert len(dataset) == 3
    images, labels = dataset.__getitems__(NumberedBatch([2, 0], 5))
    rows = patients.draw([2, 0], 2, 0, 5)
    assert images.shape == (2, 2, 3, 40, 40)
    assert labels.tolist() == split.labels[rows].tolist()
    assert torch.equal(images, torch.from_numpy(split.pixels[rows]).float() / 255)
    one = ImageDataset(split, 40, patients=patients)
    images, labels = one.__getitems__(NumberedBatch([1], 5))
    assert images.shape == (1, 3, 40, 40)
    assert labels.shape == (1,)
    assert dataset.__getitems__(NumberedBatch([], 5))[0].shape == (0, 2, 3, 40, 40)
    with pytest.raises(TypeError, match="must know its step"):
        dataset.__getitems__([0])


@pytest.mark.parametrize("augment", ["none", "affine"])
def test_dropping_any_one_patient_of_a_batch_leaves_the_others_as_they_are(
    prepared: PreparedData, augment: str
) -> None:
    split = prepared.splits["train"]
    patients = Patients.named([str(row % 3) for row in range(len(split.labels))])
    dataset = ImageDataset(split, 32, augment, 3, None, 4, patients)
    everybody, _ = dataset.__getitems__(NumberedBatch([0, 1, 2], 9))
    for left_out in range(3):
        others = [number for number in range(3) if number != left_out]
        images, _ = dataset.__getitems__(NumberedBatch(others, 9))
        assert torch.equal(images, everybody[others])
