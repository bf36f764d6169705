import dataclasses
import functools

import pytest
import torch
from rich.console import Console

from dpmi.base.errors import UserError
from dpmi.config.sections import FeatureSettings
from dpmi.data.prepare import prepare
from dpmi.features.extract import extract_features
from dpmi.features.projection import drawn_images, fitted


def projected_to(dimensions, drawn_classes):
    return FeatureSettings(
        stages=["layer1"],
        views=["identity"],
        exposure="as_is",
        centre=True,
        project=dimensions,
        drawn_classes=drawn_classes,
    )


def test_a_row_is_projected_by_itself_to_length_one_on_orthonormal_directions():
    torch.manual_seed(0)
    public, rows = torch.randn(50, 12), torch.randn(7, 12)
    projection = fitted(public, 3)
    torch.testing.assert_close(
        projection.directions @ projection.directions.T, torch.eye(3, dtype=torch.float64)
    )
    projected = projection(rows)
    torch.testing.assert_close(projected.norm(dim=1), torch.ones(7))
    for i in range(7):
        torch.testing.assert_close(projection(rows[i : i + 1])[0], projected[i])


def test_the_projection_depends_on_drawn_images_and_never_on_the_users(
    pretrained, tmp_path, monkeypatch
):
    seen = []
    monkeypatch.setattr(
        "dpmi.features.extract.fitted", lambda rows, k: seen.append(rows) or fitted(rows, k)
    )
    monkeypatch.setattr("dpmi.features.projection.DRAWN", 20)
    settings = projected_to(5, drawn_classes=False)
    own = drawn_images(1, 32)
    for seed in (1, 2):
        images = own.model_copy(update={"seed": seed, "train_images": 12, "test_images": 4})
        features = extract_features(
            prepare(images, tmp_path), settings,
            image_size=32, pretrained=pretrained, cache_dir=tmp_path, console=Console(quiet=True),
        )  # fmt: skip
        assert {name: tuple(x.shape) for name, x in features.vectors.items()} == {
            "train": (12, 5), "test": (4, 5),
        }  # fmt: skip
    assert len(seen[0]) == 20
    assert torch.equal(seen[0], seen[1])


def test_drawn_classes_come_with_vectors_of_the_same_classes_and_are_refused_beside_others(
    pretrained, tmp_path, monkeypatch
):
    monkeypatch.setattr("dpmi.features.projection.DRAWN", 20)
    settings = projected_to(3, drawn_classes=True)
    own = drawn_images(1, 32).model_copy(update={"train_images": 12, "test_images": 4})
    data = prepare(own, tmp_path)
    extract = functools.partial(
        extract_features, settings=settings, image_size=32, pretrained=pretrained,
        cache_dir=tmp_path, console=Console(quiet=True),
    )  # fmt: skip
    vectors, labels = extract(data).drawn
    assert vectors.shape == (20, 3)
    assert set(labels.tolist()) == {0, 1}
    others = dataclasses.replace(data, classes=("ill", "well"))
    with pytest.raises(
        UserError, match=r"the classes of .* are ill, well, those of drawn images N"
    ):
        extract(others)
