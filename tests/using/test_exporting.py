"""Exported graphs decide as the run's own evaluation did, on any number of images."""

import json
import sys

import pytest
import torch

import dpmi
from dpmi.base.errors import UserError
from dpmi.run.left import read_left
from dpmi.using import exporting
from dpmi.using.exporting import OPSET, TOLERANCE, export

pytestmark = pytest.mark.usefixtures("one_thread")

SLOW = pytest.mark.slow  # ten seconds each
CELLS = ["ldp", "head", *(pytest.param(cell, marks=SLOW) for cell in ("none", "dpsgd", "ordinal"))]


def decoded(run):
    """Test images as a graph is given them: uint8 (30, 1 or 3, 40, 40)."""
    model = dpmi.load(run.folder)
    images = torch.stack([model.decode(path) for path in run.paths])
    assert (images.dtype, tuple(images.shape[2:])) == (torch.uint8, (40, 40))
    return images


@pytest.mark.parametrize("cell", CELLS)
def test_a_graph_of_onnx_gives_the_probabilities_that_the_run_was_measured_by(
    cell, trained, tmp_path
):
    onnx, onnxruntime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    run, images = trained(cell), decoded(trained(cell))
    path, record = export(run.folder, "onnx", tmp_path / "out.onnx", None)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for first, count in ((0, 30), (3, 1), (5, 7)):
        batch = images[first : first + count].numpy()
        (found,) = session.run(["probabilities"], {"images": batch})
        expected = run.probabilities[first : first + count]
        torch.testing.assert_close(torch.from_numpy(found), expected, rtol=0, atol=TOLERANCE)
    graph = onnx.load(path)
    assert {one.domain: one.version for one in graph.opset_import}[""] == OPSET
    metadata = {prop.key: prop.value for prop in graph.metadata_props}
    assert json.loads(metadata["classes"]) == ["lying", "standing"]
    assert metadata["guarantee"] == str(read_left(run.folder).record.guarantee)
    shape = "3, 40, 40): RGB" if cell == "ordinal" else "1, 40, 40): gray"
    assert f"uint8 (batch, {shape}, shorter edge resized to 40 px" in metadata["input"]
    assert record.name == "out.public.json"
    assert record.read_bytes() == (run.folder / "public.json").read_bytes()
    assert {p.name for p in tmp_path.iterdir()} == {"out.onnx", "out.public.json"}


@pytest.mark.parametrize("cell", CELLS)
def test_a_graph_of_torch_gives_the_probabilities_that_the_run_was_measured_by(
    cell, trained, tmp_path
):
    run, images = trained(cell), decoded(trained(cell))
    path, _ = export(run.folder, "torch", tmp_path / "out.pt2", None)
    extra = {"dpmi.json": ""}
    graph = torch.export.load(path, extra_files=extra).module()
    for first, count in ((0, 30), (3, 1), (5, 7)):
        found = graph(images[first : first + count])
        expected = run.probabilities[first : first + count]
        torch.testing.assert_close(found, expected, rtol=0, atol=TOLERANCE)
    assert json.loads(json.loads(extra["dpmi.json"])["classes"]) == ["lying", "standing"]


def test_without_the_extra_one_line_names_the_command(trained, monkeypatch):
    folder = trained("none").folder
    before = {path.name for path in folder.iterdir()}
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(
        UserError, match=r"onnxruntime is not installed; pip install 'dpmi\[onnx\]'"
    ):
        export(folder, "onnx", None, None)
    assert {path.name for path in folder.iterdir()} == before


def test_a_graph_that_decides_otherwise_is_not_kept(trained, tmp_path, monkeypatch):
    """Forged: it has another network's last bias."""
    make = exporting._torch_graph

    def forged(whole, metadata):
        whole.model.net.net.fc.bias.data[0] += 1e-3
        found = make(whole, metadata)
        whole.model.net.net.fc.bias.data[0] -= 1e-3
        return found

    monkeypatch.setattr(exporting, "_torch_graph", forged)
    with pytest.raises(UserError, match="not written, for the graph's probabilities are off by"):
        export(trained("none").folder, "torch", tmp_path / "out.pt2", None)
    assert not list(tmp_path.iterdir())


def test_where_nothing_can_be_written_it_says_so(trained, tmp_path):
    with pytest.raises(UserError, match=r"absent/out.pt2: cannot be written"):
        export(trained("none").folder, "torch", tmp_path / "absent" / "out.pt2", None)
