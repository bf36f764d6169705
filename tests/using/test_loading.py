"""``dpmi.load``: a run's model decides as the run's own evaluation did."""

import json
import shutil
import subprocess
import sys

import pytest
import torch
from PIL import Image

import dpmi
from dpmi.base.errors import UserError
from dpmi.models.weights import read_weights, write_state_dict
from dpmi.run.records.reading import read_public_record

pytestmark = pytest.mark.usefixtures("one_thread")

CELLS = ["none", "ldp", "dpsgd", "head", "ordinal"]
CLOSE = {"rtol": 0, "atol": 1e-6}  # of float32 probabilities, added up in other batches


@pytest.fixture
def copied(trained, tmp_path):
    """What may leave the house of a run, elsewhere."""

    def copy(name):
        for file in ("public.json", "model.safetensors"):
            shutil.copy(trained(name).folder / file, tmp_path)
        return tmp_path

    return copy


def test_dpmi_is_imported_without_torch():
    code = "import sys, dpmi; assert not {'torch', 'numpy', 'hydra'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("cell", CELLS)
def test_a_loaded_model_gives_the_probabilities_that_the_run_was_measured_by(cell, trained):
    run = trained(cell)
    model = dpmi.load(run.folder)
    batch = torch.stack([model.preprocess(path) for path in run.paths])
    assert batch.shape == (30, 3 if cell == "ordinal" else 1, 32, 32)
    probabilities = model(batch)
    torch.testing.assert_close(probabilities, run.probabilities, **CLOSE)
    assert len({round(float(p), 5) for p in probabilities[:, 0]}) > 10  # it tells images apart
    record = read_public_record(run.folder / "public.json")
    assert str(model.guarantee) == str(record.guarantee)
    assert (model.classes, model.image_size) == (("lying", "standing"), 32)


@pytest.mark.parametrize("cell", ["ldp", "head"])
def test_a_prediction_depends_on_its_image_alone(cell, trained):
    run = trained(cell)
    model = dpmi.load(run.folder)
    together = model.predict(run.paths)
    assert [prediction.path for prediction in together] == [str(path) for path in run.paths]
    rows = torch.tensor([list(prediction.probabilities.values()) for prediction in together])
    torch.testing.assert_close(rows, run.probabilities, **CLOSE)
    decided = [model.classes[k] for k in rows.argmax(1)]
    assert [prediction.decision for prediction in together] == decided
    backwards = model.predict(run.paths[::-1] + run.paths[:7])  # in other batches
    alone = [model.predict([path])[0] for path in run.paths[:3]]
    for one, other in zip([*together[::-1], *together[:3]], [*backwards[:30], *alone], strict=True):
        assert one.path == other.path
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-6)


def test_an_image_that_cannot_be_read_is_reported_in_its_place(trained, tmp_path):
    run = trained("none")
    (broken := tmp_path / "broken.png").write_bytes(run.paths[1].read_bytes()[:80])
    model = dpmi.load(run.folder)
    found = model.predict([run.paths[0], broken, tmp_path / "absent.png", run.paths[1]])
    assert [one.error is None for one in found] == [True, False, False, True]
    assert (found[1].probabilities, found[1].decision) == (None, None)
    assert "No such file" in found[2].error
    with pytest.raises(UserError, match=rf"{broken}: the image cannot be read: "):
        model.preprocess(broken)


def test_an_image_of_pillows_is_prepared_as_its_file_is(trained):
    run = trained("ldp")
    model = dpmi.load(run.folder)
    for path in run.paths[:4]:
        assert torch.equal(model.preprocess(Image.open(path)), model.preprocess(path))
    with pytest.raises(UserError, match="it has floats"):
        model.preprocess(Image.new("F", (40, 40)))


def test_what_may_leave_the_house_is_enough_for_a_whole_network(trained, copied):
    run = trained("dpsgd")
    model = dpmi.load(str(copied("dpsgd")))
    batch = torch.stack([model.preprocess(path) for path in run.paths])
    torch.testing.assert_close(model(batch), run.probabilities, **CLOSE)


def test_a_head_elsewhere_is_given_the_network_that_it_reads_and_no_other(
    trained, copied, tmp_path, monkeypatch
):
    run, folder = trained("head"), copied("head")
    monkeypatch.setenv("DPMI_CACHE", str(tmp_path / "cache"))
    with pytest.raises(UserError, match=r"not at hand, .* give its file with --backbone FILE"):
        dpmi.load(folder)
    state, _ = read_weights(run.backbone)
    other = tmp_path / "other.safetensors"
    write_state_dict(state | {"fc.bias": state["fc.bias"] + 1}, other)
    with pytest.raises(UserError, match=r"other.safetensors: not the network that the head"):
        dpmi.load(folder, other)
    with pytest.raises(UserError, match=r"absent: no such file"):
        dpmi.load(folder, tmp_path / "absent")
    with pytest.raises(UserError, match=r"not needed, .* kept a whole network"):
        dpmi.load(trained("dpsgd").folder, run.backbone)
    model = dpmi.load(folder, run.backbone)
    batch = torch.stack([model.preprocess(path) for path in run.paths])
    torch.testing.assert_close(model(batch), run.probabilities, **CLOSE)
    (tmp_path / "cache" / "weights").mkdir(parents=True)
    shutil.copy(run.backbone, tmp_path / "cache" / "weights" / "any name.safetensors")
    assert torch.equal(dpmi.load(folder)(batch), model(batch))


def change_record(folder, **values):
    path = folder / "public.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def without_classes(folder):
    state, metadata = read_weights(folder / "model.safetensors")
    metadata = json.dumps(json.loads(metadata) | {"classes": []})
    write_state_dict(state, folder / "model.safetensors", metadata)


def cut(folder):
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[:-5])


@pytest.mark.parametrize(("spoil", "message"), [
    (lambda folder: (folder / "public.json").unlink(), "no public.json, so it is no run's folder"),
    (lambda folder: (folder / "model.safetensors").unlink(), "no such file; a run leaves its"),
    (lambda folder: change_record(folder, status="failed"), "the run failed, so it has no trained"),
    (lambda folder: change_record(folder, status="interrupted"), "the run interrupted, so it has"),
    (lambda folder: change_record(folder, guarantee=None), "so it has no trained model"),
    (without_classes, "of an older version of dpmi, which did not name its classes"),
    (cut, "not a whole file of safetensors"),
])  # fmt: skip
def test_what_is_no_trained_model_is_refused_in_one_line(copied, spoil, message):
    folder = copied("none")
    spoil(folder)
    with pytest.raises(UserError, match=message) as refused:
        dpmi.load(folder)
    assert str(folder) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_weights_and_record_of_two_runs_are_refused(trained, copied):
    folder = copied("none")
    shutil.copy(trained("ldp").folder / "model.safetensors", folder)
    with pytest.raises(UserError, match=r"states another guarantee than public.json beside it"):
        dpmi.load(folder)


def test_a_folder_of_runs_is_refused_and_one_of_them_is_named(trained):
    folder = trained("none").folder
    with pytest.raises(UserError, match=str(folder.parent / "(none|ldp|dpsgd|head|ordinal)")):
        dpmi.load(folder.parent)
    with pytest.raises(UserError, match="no such folder"):
        dpmi.load(folder / "absent")
