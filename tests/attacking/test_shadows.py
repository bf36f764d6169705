"""A shadow model is the run's own, and an absent image is one that contributes nothing."""

import numpy as np
import pytest
import torch
from rich.console import Console

from dpmi.attacking.shadows import Present, Shadows
from dpmi.base.errors import UserError
from dpmi.models.weights import read_state_dict
from dpmi.privacy.randomness import NoiseSource
from dpmi.run.job import Run
from dpmi.run.stages import mechanism

pytestmark = pytest.mark.usefixtures("one_thread")

CONSOLE = Console(quiet=True)
DPSGD = ("mechanism=dpsgd", "mechanism.delta=1e-3")
CELLS = {
    "none": ("mechanism=none",),
    "dpsgd": DPSGD,
    "poisson": (*DPSGD, "data.batch_size=20", "mechanism.accountant=rdp"),
    "class_means": ("mechanism=class_means", "mechanism.delta=1e-3"),
}


def key():
    return NoiseSource(None, bytes(32))


@pytest.mark.parametrize(
    "cell", ["none", "dpsgd", *(pytest.param(c, marks=pytest.mark.slow) for c in list(CELLS)[2:])]
)
def test_with_all_images_present_it_is_the_run_to_the_bit(head, cell, tmp_path, monkeypatch):
    config, noises, build = head(*CELLS[cell]), [], mechanism.build_mechanism

    def watched(config, n, noise, *options):
        noises.append(noise)
        return build(config, n, noise, *options)

    monkeypatch.setattr(mechanism, "build_mechanism", watched)
    assert Run(config, tmp_path, CONSOLE).execute().status == "completed"
    ran = read_state_dict(tmp_path / "model.safetensors")
    again = NoiseSource(None, noises[0].key, noises[0].attempt)
    shadows = Shadows(config, CONSOLE)
    net, _ = shadows.trained(np.ones(shadows.n, bool), again)
    own = net.exported()
    assert own.keys() == ran.keys()
    for name, value in own.items():
        assert torch.equal(value, ran[name]), name


@pytest.mark.parametrize(
    "cell", ["dpsgd", pytest.param("poisson", marks=pytest.mark.slow), "class_means"]
)
def test_of_patients_it_is_the_run_to_the_bit_too(head_of_patients, cell, tmp_path, monkeypatch):
    test_with_all_images_present_it_is_the_run_to_the_bit(
        head_of_patients, cell, tmp_path, monkeypatch
    )


@pytest.mark.parametrize("cell", ["none", "dpsgd"])
def test_of_findings_it_is_the_run_to_the_bit_too(head_of_findings, cell, tmp_path, monkeypatch):
    test_with_all_images_present_it_is_the_run_to_the_bit(
        head_of_findings, cell, tmp_path, monkeypatch
    )


def test_the_confidence_in_findings_is_of_those_that_are_known(head_of_findings):
    shadows = Shadows(head_of_findings("mechanism=none"), CONSOLE)
    net, _ = shadows.trained(np.ones(shadows.n, bool))
    found = shadows.confidences(net)
    assert (np.isnan(found) == np.isnan(shadows.labels)).all()
    assert np.isnan(found[0]).all()
    vectors = shadows._features.vectors["train"]
    logits = net(vectors).detach().double().numpy()
    assert np.nan_to_num(found) == pytest.approx(
        np.nan_to_num(np.where(shadows.labels == 1, logits, -logits) + 0 * shadows.labels)
    )


def test_a_patient_is_absent_with_all_their_images_and_no_other_is(head_of_patients):
    words = ("trainer.max_epochs=1", "model.momentum=0", "model.average=none", "model.prior=train")
    config = head_of_patients(*DPSGD, "model.features.centre=false", *words)
    shadows = Shadows(config, CONSOLE)
    everyone = np.ones(shadows.n, bool)
    assert (shadows.unit, shadows.n, len(shadows.labels)) == ("patient", 30, 73)
    whole, mechanism = shadows.trained(everyone, key())
    assert mechanism.plan.unit == "patient"
    for patient in (0, 3):  # of one image, and of four
        present = everyone.copy()
        present[patient] = False
        without, its = shadows.trained(present, key())
        assert (its.plan, its.ledger.entries) == (mechanism.plan, mechanism.ledger.entries)
        moved = [a - b for a, b in zip(whole.parameters(), without.parameters(), strict=True)]
        length = torch.cat([part.detach().flatten() for part in moved]).norm() * shadows.n
        assert float(length) == pytest.approx(0.7, rel=1e-2)


def test_without_a_guarantee_a_patient_is_left_out_with_all_their_images(head_of_patients):
    shadows = Shadows(head_of_patients("mechanism=none", "model.prior=uniform"), CONSOLE)
    present = np.zeros(shadows.n, bool)
    present[:4] = True  # ten images, four of them of class "ill"
    net, _ = shadows.trained(present)
    assert net.log_shares.softmax(0).tolist() == pytest.approx([0.5, 0.5], abs=0.11)
    images = shadows.labels[:10]
    assert float(net.log_shares.softmax(0)[1]) == pytest.approx(images.mean())


def test_the_confidence_in_a_patient_is_the_mean_over_their_images(head_of_patients):
    config = head_of_patients("mechanism=none")
    shadows = Shadows(config, CONSOLE)
    net, _ = shadows.trained(np.ones(shadows.n, bool))
    of_patients = shadows.confidences(net)
    images = Shadows(config.model_copy(update={
        "privacy": config.privacy.model_copy(update={"unit": "image"})
    }), CONSOLE)  # fmt: skip
    of_images = images.confidences(net)
    assert (len(of_patients), len(of_images)) == (30, 73)
    assert of_patients[0] == pytest.approx(of_images[0])
    assert of_patients[3] == pytest.approx(of_images[6:10].mean())


@pytest.mark.parametrize("cell", ["dpsgd", "poisson", "class_means"])
def test_without_an_image_plan_noise_and_ledger_are_the_same(head, cell):
    shadows = Shadows(head(*CELLS[cell]), CONSOLE)
    some = np.random.default_rng(0).random(shadows.n) < 0.5
    plans = []
    for present in (np.ones(shadows.n, bool), some):
        _, mechanism = shadows.trained(present, key())
        plans.append((mechanism.plan, mechanism.ledger.entries))
    assert plans[0] == plans[1]
    assert plans[0][0].n == shadows.n


def test_without_an_image_its_part_is_gone_and_no_other_changes(head):
    """With the same noise two runs of one step differ by what the image contributed over n."""
    words = ("trainer.max_epochs=1", "model.momentum=0", "model.average=none", "model.prior=train")
    shadows = Shadows(head(*DPSGD, "model.features.centre=false", *words), CONSOLE)
    everyone = np.ones(shadows.n, bool)
    whole, _ = shadows.trained(everyone, key())
    for image in (0, 31):
        present = everyone.copy()
        present[image] = False
        without, _ = shadows.trained(present, key())
        moved = [a - b for a, b in zip(whole.parameters(), without.parameters(), strict=True)]
        length = torch.cat([part.detach().flatten() for part in moved]).norm() * shadows.n
        # At the first step, from 0, a gradient is (p - e_y) (x, 1) of length 1: clipped to 0.7.
        assert float(length) == pytest.approx(0.7, rel=1e-2)


def test_without_an_image_the_centre_is_still_divided_by_all(head):
    shadows = Shadows(head(*DPSGD), CONSOLE)
    present = np.arange(shadows.n) != 5
    whole, _ = shadows.trained(~np.zeros(shadows.n, bool), key())
    without, _ = shadows.trained(present, key())
    moved = (whole.centre - without.centre) * shadows.n
    assert float(moved.norm()) == pytest.approx(1.0, rel=1e-3)


def test_absent_images_are_in_no_statistic_and_in_the_number_of_all():
    train = Present(torch.tensor([0, 1, 1]), 2, torch.eye(3), all=10)
    assert train.n == 10
    assert train.class_counts().tolist() == [1, 2]
    assert train.vector_sum().tolist() == [1, 1, 1]


def test_without_a_guarantee_the_run_is_of_those_present(head):
    shadows = Shadows(head("mechanism=none", "model.prior=uniform"), CONSOLE)
    present = shadows.labels == 1  # one class alone: a run that saw the other would know it
    present[:4] = True
    net, _ = shadows.trained(present)
    shares = net.log_shares.softmax(0)
    assert float(shares[1]) == pytest.approx(shadows.labels[present].mean())


def test_a_mechanism_that_releases_each_image_is_sent_to_linkage(head):
    with pytest.raises(UserError, match=r"mechanism=ldp_features: .* attack it by linkage"):
        Shadows(head("mechanism=ldp_features"), CONSOLE)
