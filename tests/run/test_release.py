"""What a whole run under local DP is given to train on: the one release, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from rich.console import Console

from dpmi.config.folder import config_dir
from dpmi.config.schema import load_config
from dpmi.models.gradient import MeanGradient
from dpmi.run.job import Run
from dpmi.run.parts import prepared_data

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def train(tiny, tmp_path_factory):
    """Run a job; returns its record and the images that the network was given, one epoch of all."""
    base = tmp_path_factory.mktemp("runs")

    def job(*words):
        with initialize_config_dir(config_dir(), version_base="1.3"):
            overrides = [*tiny, "mechanism=ldp", f"cache_dir={base / 'cache'}", *words]
            config = load_config(compose("config", overrides=overrides))
        given = []
        plain = MeanGradient.__call__

        def overheard(self, images, labels):
            given.append(np.rint(images.numpy() * 255).astype(np.uint8))
            return plain(self, images, labels)

        (folder := base / str(len(list(base.iterdir())))).mkdir()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(MeanGradient, "__call__", overheard)
            record = Run(config, folder, Console(quiet=True)).execute()
        assert record.status == "completed"
        images = np.concatenate(given)
        return record, images[np.lexsort(images.reshape(len(images), -1).T)], config

    return job


@pytest.fixture(scope="module")
def first(train):
    return train("seed=1")


@pytest.mark.parametrize(
    "words", [("seed=2", "model.learning_rate=0.02"), ("seed=1", "mechanism.matched=false")]
)
def test_runs_with_other_settings_train_on_the_very_same_noised_images(first, train, words):
    record, images, config = first
    again, same, _ = train(*words)
    np.testing.assert_array_equal(images, same)
    assert again.mechanism["release"] == record.mechanism["release"]
    made = [one.mechanism["release_made_by_this_run"] for one in (record, again)]
    assert made == [True, False]
    clean = prepared_data(config).splits["train"].pixels
    assert len(images) == len(clean) == 60
    assert not {image.tobytes() for image in images} & {image.tobytes() for image in clean}


@pytest.mark.parametrize("word", ["beta=2", "data.resize=36"])
def test_other_noise_or_preprocessing_trains_on_other_images(first, train, word):
    _, images, _ = first
    record, others, _ = train("seed=1", word)
    assert not {image.tobytes() for image in images} & {image.tobytes() for image in others}
    assert record.mechanism["release_made_by_this_run"]
