"""Whole jobs that train a head, as the command runs them."""

import json
import math
import signal

import job_processes
import pytest
import torch
from compared_runs import assert_same, killed_after, weights
from scipy import stats

from dpmi.models.network import ImageNetwork
from dpmi.models.weights import write_state_dict
from dpmi.run.records.reading import read_record

SMALL = (
    *("data=phantom_xray", "data.image_size=32", "data.train_images=60", "data.val_images=10"),
    *("data.test_images=30", "data.batch_size=all", "trainer.accelerator=cpu", "logger=csv"),
    *("trainer.max_epochs=8", "trainer.checkpoint_seconds=0", "model.norm=frozen_batch"),
    *("model.train=head", "model.learning_rate=1", "model.weight_decay=0", "max_grad_norm=0.7"),
    *("model.average=last_half", "model.prior=uniform"),
)
CELLS = {
    "none": ("mechanism=none",),
    "dpsgd": ("mechanism=dpsgd", "mechanism.delta=1e-3"),
    "views": (
        *("mechanism=dpsgd", "mechanism.delta=1e-3", "data=phantom_fundus", "model.head=ordinal"),
        *("model.features.views=[identity,mirror,half_turn]", "model.prior=train"),
    ),
    "class_means": ("mechanism=class_means", "mechanism.delta=1e-3"),
    "second_moments": (
        *("mechanism=class_means", "mechanism.delta=1e-3", "mechanism.moment_scale=1"),
    ),
    "ldp_features": ("mechanism=ldp_features", "model.features.project=5"),
}


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    folder = tmp_path_factory.mktemp("public")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        write_state_dict(
            ImageNetwork("resnet18", 2).net.state_dict(), folder / "weights.safetensors"
        )
    public = f"model.weights={folder / 'weights.safetensors'}", f"cache_dir={folder / 'cache'}"
    cells = CELLS | {"seeded": (*CELLS["dpsgd"], "noise_seed=5")}
    return lambda cell: (*SMALL, *cells[cell], *public)


@pytest.fixture(scope="module")
def whole(words, tmp_path_factory):
    """A run of each cell that nothing interrupts."""
    folders = {}

    def of(cell):
        if cell not in folders:
            folders[cell] = tmp_path_factory.mktemp("whole") / cell
            assert job_processes.run(folders[cell], *words(cell)) == 0
        return folders[cell]

    return of


@pytest.mark.parametrize("cell", CELLS)
def test_a_head_leaves_a_good_record_and_weights_that_decide_alone(cell, whole):
    record, kept = read_record(whole(cell) / "record.json"), weights(whole(cell))
    classes, length = 5 if cell == "views" else 2, 5 if cell == "ldp_features" else 256
    projection = {"projection.mean": (256,), "projection.directions": (5, 256)}
    assert (record.status, record.reason) == ("completed", None)
    for metric in ("accuracy", "balanced_accuracy", "auroc"):
        assert 0 <= record.metrics[f"test/{metric}"] <= 1
    assert {name: tuple(value.shape) for name, value in kept.items()} == {
        "centre": (length,), "weight": (classes, length), "bias": (classes,),
        **(projection if cell == "ldp_features" else {}),
    }  # fmt: skip
    assert kept["centre"].norm() > 0.1
    if cell == "views":  # ordinal: of degree 3 in the five grades, so without a fourth difference
        fourth = torch.tensor([1.0, -4.0, 6.0, -4.0, 1.0])
        assert (fourth @ kept["weight"]).norm() < 1e-4 * kept["weight"].norm()
    assert record.timings["features"] >= 0


@pytest.mark.parametrize("cell", ["dpsgd", "views", "class_means", "second_moments"])
def test_epsilon_of_a_heads_record_is_what_an_independent_accountant_gives_its_ledger(cell, whole):
    """By the closed form of μ-GDP (Dong, Roth and Su 2022, corollary 2.13)."""
    record = read_record(whole(cell) / "record.json")
    plan, ledger = record.mechanism["plan"], record.mechanism["ledger"]
    # Three views of an image are one contribution: the plan counts images.
    assert plan["n"] == plan["expected_batch_size"] == record.data["counts"]["train"] == 60
    assert all(entry["sample_rate"] == 1.0 for entry in ledger)
    statistics, steps = {
        "dpsgd": (2, 8), "views": (1, 8), "class_means": (1, 1), "second_moments": (1, 1),
    }[cell]  # fmt: skip
    assert [e["steps"] for e in ledger] == [1] * statistics + [steps]
    if cell == "second_moments":
        assert plan["max_grad_norm"] == pytest.approx(math.sqrt(1 + 0.3**2 + 1))
    mu = math.sqrt(sum(entry["steps"] / entry["noise_multiplier"] ** 2 for entry in ledger))
    stated = record.guarantee.epsilon
    left = stats.norm.cdf(mu / 2 - stated / mu) - math.exp(stated) * stats.norm.cdf(
        -mu / 2 - stated / mu
    )
    assert left == pytest.approx(record.guarantee.delta, rel=1e-4)
    assert 0.998 <= stated <= 1


@pytest.mark.parametrize("cell", [pytest.param("none", marks=pytest.mark.slow), "seeded"])
def test_a_head_killed_again_and_again_ends_to_the_bit_as_one_that_was_not(
    cell, words, whole, tmp_path
):
    folder, expected = tmp_path / "job", whole(cell)
    for steps in (1, 5):  # before and within the mean of the later half
        assert killed_after(folder, words(cell), steps) == -signal.SIGKILL
    assert job_processes.run(folder, *words(cell)) == 0
    assert_same(folder, expected)


def test_features_are_computed_by_the_first_run_and_read_by_the_others(whole):
    printed = [job_processes.printed(whole(cell)) for cell in ("none", "dpsgd", "class_means")]
    assert sum("computing the features" in text for text in printed) == 1


def test_the_noise_of_a_release_lost_with_its_place_is_counted_beside_the_new_one(words, tmp_path):
    """Resumed elsewhere without a checkpoint: the statistics are released, and counted, twice."""
    folder = tmp_path / "job"
    assert killed_after(folder, words("dpsgd"), 1) == -signal.SIGKILL
    for checkpoint in folder.glob("checkpoints/*"):
        checkpoint.unlink()
    state = json.loads((folder / "resume.json").read_text())
    state["place"]["torch"] = "another"
    (folder / "resume.json").write_text(json.dumps(state))
    assert job_processes.run(folder, *words("dpsgd")) == 0
    record = read_record(folder / "record.json")
    plan, ledger = record.mechanism["plan"], record.mechanism["ledger"]
    noises = [s["noise_multiplier"] for s in plan["statistics"]]
    assert [entry["noise_multiplier"] for entry in ledger] == [
        *noises, plan["noise_multiplier"], *noises, plan["noise_multiplier"],
    ]  # fmt: skip
    assert ledger[2]["steps"] >= 1
    assert ledger[-1]["steps"] == 8
    assert record.guarantee.epsilon > 1
