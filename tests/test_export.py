"""``python -m dpmi.export``: what it names, and how it exits."""

import sys

import pytest

from dpmi.export import main

pytestmark = pytest.mark.usefixtures("one_thread")


def test_it_names_the_graph_and_the_public_record_beside_it(trained, tmp_path, capsys):
    words = [str(trained("none").folder), "--format", "torch"]
    assert main([*words, "--output", str(tmp_path / "a.pt2")]) == 0
    printed = capsys.readouterr().out.split()
    assert printed == [str(tmp_path / "a.pt2"), str(tmp_path / "a.public.json")]
    assert {str(path) for path in tmp_path.iterdir()} == set(printed)


def test_bad_input_is_one_line_and_status_2(trained, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    for words, message in (
        ([str(trained("none").folder)], "onnx is not installed; pip install 'dpmi[onnx]'"),
        ([str(tmp_path), "--format", "torch"], "no public.json"),
    ):
        assert main(words) == 2
        err = capsys.readouterr().err
        assert message in err
        assert err.startswith("error: ")
        assert err.count("\n") == 1
    with pytest.raises(SystemExit) as stopped:
        main([str(tmp_path), "--format", "tflite"])
    assert stopped.value.code == 2
