"""Whole jobs that protect patients, as the command runs them."""

import csv
import math

import job_processes
import numpy as np
import pytest
import small_network
import torch
from compared_runs import assert_same, differences, killed_after
from PIL import Image
from test_wiring import Watched, as_trained, numbers_of
from torch import nn

from dpmi.data.patients import Patients
from dpmi.models.network import ImageNetwork
from dpmi.models.weights import write_state_dict
from dpmi.privacy.accounting import composed_losses, epsilon, history_of
from dpmi.privacy.spending import LedgerEntry
from dpmi.run.parts import prepared_data
from dpmi.run.records.public import publishable
from dpmi.run.records.reading import read_record

pytestmark = pytest.mark.usefixtures("one_thread")

PATIENTS, SIDE = 24, 32
SMALL = (
    *("data=csv", f"data.image_size={SIDE}", "data.channels=1", "data.batch_size=6"),
    *("trainer.max_epochs=1", "trainer.accelerator=cpu", "logger=csv", "model.weights=null"),
    *("model.norm=group", "model.prior=train", f"model.name={small_network.SMALL}"),
)
STEPS = 4  # 24 patients in batches of 6


def write_clinic(folder, named=True):
    """24 patients to train on, with one to four images each of random pixels, and four to test."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    with (folder / "labels.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "label", *(["patient"] if named else []), "split"])
        for patient in range(PATIENTS + 4):
            for number in range(patient % 4 + 1):
                name = f"{patient}-{number}.png"
                pixels = rng.integers(0, 256, (SIDE, SIDE), np.uint8)
                Image.fromarray(pixels).save(folder / name)
                label = "ill" if (patient + number) % 2 else "well"  # a patient may have both
                split = "train" if patient < PATIENTS else "test"
                rows.writerow([name, label, *([f"P{patient}"] if named else []), split])
    return folder


@pytest.fixture(scope="module")
def clinic(tmp_path_factory):
    return write_clinic(tmp_path_factory.mktemp("clinic") / "images")


@pytest.fixture
def job(composed, clinic, tmp_path):
    """Run a small job on the clinic's images: ``job("mechanism=dpsgd", ...)``."""

    def run(*words, **watching):
        place = f"data.root={clinic}", f"cache_dir={tmp_path / 'cache'}"
        folder = tmp_path / f"job{len(list(tmp_path.iterdir()))}"
        return Watched(composed(*SMALL, *place, *words), folder, **watching)

    return run


class NoiseOfPatients:
    """What is left of each step's gradient when the sum of clipped patients is taken off."""

    def __init__(self, data, config):
        self._split, self._config = data.splits["train"], config
        self._net = as_trained(config)
        self._patients = Patients.named(self._split.patients)
        self._pixels = torch.from_numpy(self._split.pixels.copy()).float().div(255)
        self._passes, self.batches, self.of_steps = 0, [], []

    def __call__(self, done, parameters):
        config, step, images = self._config, len(self.of_steps), self._config.data.multiplicity
        net = self._net
        net.load_state_dict(done.net.state_dict())
        total, drawn = torch.zeros(sum(p.numel() for p in parameters)), []
        for given in done.trained[self._passes :]:
            for views in given.unflatten(0, (-1, images)):
                rows = numbers_of(views, self._pixels).tolist()
                (patient,) = set(self._patients.of_image[rows].tolist())  # of one patient alone
                drawn.append(patient)
                assert rows == self._patients.draw([patient], images, config.seed, step)[0].tolist()
                labels = torch.from_numpy(self._split.labels[rows])
                loss = nn.functional.cross_entropy(net(self._pixels[rows]), labels)
                flat = [g.flatten() for g in torch.autograd.grad(loss, list(net.parameters()))]
                grad = torch.cat(flat)
                total += grad * min(1.0, config.max_grad_norm / float(grad.norm()))
        self._passes = len(done.trained)
        self.batches.append(drawn)
        released = torch.cat([p.grad.flatten() for p in parameters])
        self.of_steps.append(released * config.data.batch_size - total)


def test_a_step_sums_the_clipped_mean_gradients_of_the_patients_that_were_drawn(
    job, composed, clinic, tmp_path
):
    """And adds the noise of the plan, whose ε is a patient's."""
    words = "mechanism=dpsgd", "data.multiplicity=2", "max_physical_batch_size=4"
    place = f"data.root={clinic}", f"cache_dir={tmp_path / 'cache'}"
    config = composed(*SMALL, *place, *words)
    noise = NoiseOfPatients(prepared_data(config), config)
    done = job(*words, on_step=noise)
    plan, guarantee = done.record.mechanism["plan"], done.record.guarantee
    assert (plan["n"], plan["unit"], plan["steps"]) == (PATIENTS, "patient", STEPS)
    assert plan["sample_rate"] == 0.25
    assert len(noise.of_steps) == STEPS
    assert all(len(set(batch)) == len(batch) for batch in noise.batches)  # each patient once
    std = plan["noise_multiplier"] * plan["sensitivity"]
    size = len(noise.of_steps[0])
    squares = sum(float(step.double().square().mean()) for step in noise.of_steps) / STEPS
    # Five standard errors: one false alarm in 1.7 million.
    assert math.sqrt(squares) == pytest.approx(std, rel=5 / math.sqrt(2 * size * STEPS))
    ledger = [LedgerEntry(**entry) for entry in done.record.mechanism["ledger"]]
    assert ledger == [LedgerEntry(plan["noise_multiplier"], 0.25, STEPS)]
    assert guarantee.epsilon == epsilon(ledger, 1e-3, "prv") <= 1
    assert (guarantee.unit, guarantee.adjacency) == ("patient", "zero-out")
    assert set(guarantee.private) == {"copies"}  # no ε of a largest patient: it is the same
    assert done.record.account.spending.unit == "patient"
    assert torch.equal(done.evaluated_in_order()[1], done.pixels("train"))


def test_patients_are_drawn_as_often_as_the_plan_says_whatever_images_they_have(job):
    given = "mechanism=dpsgd", "mechanism.accountant=rdp"  # the quickest to compute
    done = job(*given, "trainer.max_epochs=6", "model.average=none", kind=nn.Linear)
    images = sum(len(passed) for passed in done.trained)
    steps = done.record.mechanism["plan"]["steps"]
    # 24 patients at 1/4 a step; five standard errors: one false alarm in 1.7 million.
    assert abs(images - 6 * steps) < 5 * math.sqrt(24 * steps * 0.25 * 0.75)


@pytest.fixture(scope="module")
def of_images(composed, clinic, tmp_path_factory):
    """Record of a run that protects images, not patients."""
    folder = tmp_path_factory.mktemp("images")
    place = f"data.root={clinic}", f"cache_dir={folder / 'cache'}"
    words = "mechanism=dpsgd", "privacy.unit=image", "model.prior=midway"
    return Watched(composed(*SMALL, *place, *words), folder / "job").record


def test_images_are_protected_where_the_user_says_so(of_images):
    assert of_images.guarantee.unit == "image"
    assert of_images.mechanism["plan"]["n"] == sum(p % 4 + 1 for p in range(PATIENTS))
    assert of_images.guarantee.private["largest_patient"].images == 4


@pytest.mark.parametrize("multiplicity", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_a_run_that_is_killed_goes_on_with_the_same_patients_and_the_same_images(
    clinic, tmp_path, multiplicity
):
    words = (
        *(*SMALL, f"data.root={clinic}", f"cache_dir={tmp_path / 'cache'}", "mechanism=dpsgd"),
        *(f"data.multiplicity={multiplicity}", "noise_seed=3"),
        # Given: to search for it takes longer than to train.
        *("mechanism.calibration=noise_multiplier", "beta=2.5"),
    )
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert job_processes.run(whole, *words) == 0
    killed_after(killed, (*words, "trainer.checkpoint_seconds=0"), 2)
    assert job_processes.run(killed, *words) == 0
    assert read_record(killed / "record.json").restarts == 1
    assert_same(whole, killed)


@pytest.mark.slow
def test_two_processes_train_on_the_patients_that_one_trains_on(clinic, tmp_path):
    words = (
        *(*SMALL, f"data.root={clinic}", f"cache_dir={tmp_path / 'cache'}", "noise_seed=5"),
        *("mechanism=dpsgd", "mechanism.calibration=noise_multiplier", "beta=2.5"),
        *("data.multiplicity=2", "data.augment=affine", "model.learning_rate=0.0001"),
    )
    one, two = tmp_path / "one", tmp_path / "two"
    assert job_processes.run(one, *words) == 0
    assert job_processes.run(two, "trainer=ddp", "trainer.devices=2", *words) == 0
    assert max(differences(one, two).values()) < 1e-6
    alone, together = (read_record(folder / "record.json") for folder in (one, two))
    assert together.mechanism["ledger"] == alone.mechanism["ledger"]
    assert together.mechanism["plan"] == alone.mechanism["plan"]
    assert alone.mechanism["plan"]["n"] == PATIENTS


def test_local_dp_trains_on_one_image_of_each_patient(job):
    done = job("mechanism=ldp", "mechanism.pool=1", "beta=0.1")
    guarantee = done.record.guarantee
    assert sum(len(images) for images in done.trained) == PATIENTS
    assert guarantee.unit == "pixel of a patient"
    assert guarantee.image_epsilon == guarantee.epsilon * SIDE * SIDE
    assert any("each patient gives one image" in line for line in guarantee.assumptions)
    assert done.record.account.spending.unit == "patient"
    whole = job("mechanism=ldp", "mechanism.pool=1", "privacy.unit=image")
    assert sum(len(images) for images in whole.trained) > 2 * PATIENTS
    # Another split may give another image of a patient: all of them are in the account.
    assert whole.record.account.id == done.record.account.id


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        path = tmp_path_factory.mktemp("public") / "weights.safetensors"
        write_state_dict(ImageNetwork(small_network.SMALL, 2).net.state_dict(), path)
    return (
        *("model.train=head", f"model.weights={path}", "model.norm=frozen_batch"),
        *("data.batch_size=all", "model.prior=uniform"),
    )


@pytest.mark.parametrize(
    "words",
    [
        ("mechanism=dpsgd", "data.multiplicity=4"),
        ("mechanism=class_means", "mechanism.moment_scale=1"),
        ("mechanism=ldp_features", "model.features.project=3"),
    ],
    ids=["dpsgd", "class_means", "ldp_features"],
)
def test_a_head_protects_patients(job, head, words):
    done = job(*head, *words, kind=nn.Conv2d)
    guarantee = done.record.guarantee
    assert guarantee.unit == "patient"
    assert 0.99 < guarantee.epsilon <= 1
    if "plan" in done.record.mechanism:
        assert done.record.mechanism["plan"]["n"] == PATIENTS


def test_no_mechanism_trains_on_all_images_and_says_that_nobody_is_protected(job):
    done = job("mechanism=none")
    assert done.record.guarantee.epsilon is None
    assert sum(len(images) for images in done.trained) == sum(p % 4 + 1 for p in range(PATIENTS))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("privacy.unit=patient",), "training images of data=csv have no patient; give each one"),
        (("data.multiplicity=2",), "the training images name no patients, and under data.augment"),
        (("privacy.unit=image", "data.multiplicity=2"), "all views of an image are the same"),
        (("privacy.unit=person",), "privacy.unit=person: "),
    ],
)
def test_what_cannot_protect_patients_is_refused_in_one_line(tmp_path, place, words, says):
    folder = write_clinic(tmp_path / "nameless", named=False)
    ended = place.train(*SMALL, f"data.root={folder}", "mechanism=dpsgd", *words)
    assert ended.returncode in (1, 2)
    assert says in " ".join((ended.stdout + ended.stderr).split())
    assert not list(place.outputs.glob("**/model.safetensors"))


def test_a_run_that_protects_images_bounds_the_attacker_of_its_largest_patient_in_the_house(
    of_images,
):
    """From the releases and the group that the ε of that patient is of."""
    record = of_images
    entries = [LedgerEntry(**entry) for entry in record.mechanism["ledger"]]
    largest, risk = record.guarantee.private["largest_patient"], record.patient_risk
    assert (largest.images, risk.unit) == (4, "patient with 4 images")
    assert record.risk[0].unit == "image"
    losses = composed_losses(history_of(entries), "zero-out", 4)
    assert losses.get_epsilon_for_delta(record.guarantee.delta) == pytest.approx(largest.epsilon)
    assert risk.advantage == pytest.approx(losses.get_delta_for_epsilon(0.0), rel=3e-3)
    assert risk.advantage > 2 * record.risk[0].advantage
    assert "patient with 4" not in publishable(record).model_dump_json()


def test_a_run_that_protects_patients_has_no_bound_of_a_larger_one(job):
    record = job("mechanism=dpsgd").record
    assert (record.risk[0].unit, record.patient_risk) == ("patient", None)
