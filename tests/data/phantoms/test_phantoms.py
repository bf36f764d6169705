import numpy as np
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression

from dpmi.config.data_sets import PhantomData
from dpmi.data.phantoms import fundus, xray
from dpmi.data.phantoms.public import CLASSES, draw_public, public_label
from dpmi.data.phantoms.seeds import FAMILIES, image_generator
from dpmi.data.readers.phantom import read_phantom

DRAW = {"xray": xray.draw_xray, "fundus": fundus.draw_fundus}
CHANNELS = {"xray": 1, "fundus": 3}


def draw(family, index, size=64, seed=1):
    return DRAW[family](size, image_generator("user", family, seed, index))


def config(name, **changes):
    values = {
        "name": name, "seed": 3, "train_images": 30, "val_images": 5, "test_images": 10,
        "image_size": 32, "resize": None, "batch_size": 8, "augment": "none",
        "multiplicity": 1, "on_corrupt": "error", "num_workers": 0, "resident": "auto",
        "groups": None,
    }  # fmt: skip
    return PhantomData.model_validate(values | changes)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_image_depends_on_its_seed_and_index_alone(family):
    alone = draw(family, 5)[0]
    for index in range(3):
        draw(family, index)
    assert np.array_equal(alone, draw(family, 5)[0])
    assert not np.array_equal(alone, draw(family, 6)[0])
    assert not np.array_equal(alone, draw(family, 5, seed=2)[0])
    assert alone.shape == (64, 64, CHANNELS[family])
    assert alone.dtype == np.uint8


@pytest.mark.parametrize("family", FAMILIES)
def test_the_same_drawing_exists_at_every_size(family):
    correlations = []
    for index in range(10):
        small, large = draw(family, index)[0], draw(family, index, size=128)[0]
        halved = np.asarray(Image.fromarray(large.squeeze()).resize((64, 64), Image.Resampling.BOX))
        correlations.append(np.corrcoef(small.ravel(), halved.ravel())[0, 1])
    assert min(correlations) > 0.9


@pytest.mark.parametrize("family", FAMILIES)
def test_the_shares_of_the_classes_are_those_stated(family):
    labels = [
        {"xray": xray.xray_label, "fundus": fundus.fundus_label}[family](
            image_generator("user", family, 1, index)
        )
        for index in range(4000)
    ]
    stated = {"xray": (1 - xray.PNEUMONIA_SHARE, xray.PNEUMONIA_SHARE), "fundus": fundus.SHARES}
    shares = np.bincount(labels) / len(labels)
    # Seeds are fixed; for new ones four standard errors give a false alarm in 1 of 3000.
    assert np.all(np.abs(shares - stated[family]) < 4 * np.sqrt(0.25 / len(labels)))


def test_pneumonia_cannot_be_read_from_the_brightness_of_the_image():
    drawn = [draw("xray", index, size=32) for index in range(600)]
    labels = np.array([label for _, label in drawn])
    means = np.array([[image.mean(), image.std()] for image, _ in drawn])
    majority = max(labels.mean(), 1 - labels.mean())
    model = LogisticRegression().fit(means[:300], labels[:300])
    assert model.score(means[300:], labels[300:]) < majority + 0.06


def test_pneumonia_brightens_the_lungs_and_nothing_else():
    rng = np.random.default_rng
    body = xray.anatomy(64, rng(0))
    disease = xray.opacities(body, rng(1))
    assert disease.max() > 0.08
    assert np.all(disease[body.lungs == 0] == 0)


def test_lesions_grow_over_the_grades():
    changed = []
    for grade in range(5):
        area = 0.0
        for index in range(6):
            retina = fundus.eye(64, np.random.default_rng(index))
            image = fundus.lesions(retina, grade, np.random.default_rng(index + 100))
            area += float((np.abs(image - retina.base).max(axis=2) > 0.05).mean())
        changed.append(area / 6)
    assert changed[0] == 0.0
    assert changed[0] < changed[1] < changed[2] < changed[3]
    assert changed[4] > changed[2]


def test_no_seed_of_a_user_draws_what_pretraining_has_seen():
    for family in FAMILIES:
        for seed in (0, 1, 2005, 2**40):
            user = image_generator("user", family, seed, 0).integers(2**63, size=4)
            public = image_generator("public", family, seed, 0).integers(2**63, size=4)
            assert not np.array_equal(user, public)


@pytest.mark.parametrize("subject", CLASSES)
def test_public_classes_are_balanced_and_are_not_the_users(subject):
    assert not set(CLASSES[subject]) & {*xray.CLASSES, *fundus.CLASSES}
    labels = [draw_public(subject, 1, index, 32)[1] for index in range(10)]
    assert labels == [public_label(subject, index) for index in range(10)]
    assert set(np.bincount(labels)) == {2}


@pytest.mark.parametrize("subject", CLASSES)
def test_public_chests_are_gray_and_public_retinas_are_not(subject):
    images = [draw_public(subject, 1, index, 32)[0].astype(int) for index in range(5)]
    gray = [bool((np.ptp(image, axis=2) == 0).all()) for image in images]
    assert gray == [subject == "chests"] * 5


@pytest.mark.parametrize("name", ["phantom_xray", "phantom_fundus"])
def test_the_catalogue_has_the_labels_of_the_images_it_draws(name):
    catalogue = read_phantom(config(name))
    family = name.removeprefix("phantom_")
    assert catalogue.splits.count("train") == 30
    assert catalogue.splits.count("val") == 5
    assert catalogue.splits.count("test") == 10
    assert len(set(catalogue.paths)) == 45
    assert set(catalogue.patients) == {""}
    for index in (0, 44):
        image, label = draw(family, index, size=32, seed=3)
        assert catalogue.labels[index] == label
        assert np.array_equal(catalogue.source.load(catalogue.paths[index], 32), image)


def test_another_seed_is_another_content():
    first, second = (read_phantom(config("phantom_xray", seed=s)) for s in (3, 4))
    assert first.source.fetch(first.paths[0]) != second.source.fetch(second.paths[0])
