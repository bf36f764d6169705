import json

import pytest

from dpmi.card import main as card
from dpmi.verify import main


@pytest.fixture(scope="module")
def carded(real_sweeps, tmp_path_factory):
    """Card and weights of a run without a mechanism, the quickest to check."""
    out = tmp_path_factory.mktemp("card")
    assert card([str(real_sweeps[0] / "0"), "--out", str(out)]) == 0
    return out, real_sweeps[0] / "0" / "model.safetensors"


def test_the_status_says_whether_it_holds(carded, capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "1000")
    out, weights = carded
    assert main([str(out / "card.html"), str(weights)]) == 0
    printed = capsys.readouterr().out
    assert "all that can be checked holds" in printed
    assert "who made the card: it has a digest, and no signature" in printed
    values = json.loads((out / "card.json").read_text())
    values["record"]["metrics"]["test_images/accuracy"] = 1.0
    (tmp_path / "card.json").write_text(json.dumps(values, indent=1, ensure_ascii=False) + "\n")
    assert main([str(tmp_path / "card.json"), str(weights)]) == 1
    printed = capsys.readouterr().out
    assert "does not hold: digest of the card" in printed
    assert "accuracy is that of the reliability diagram" in printed


def test_words_of_a_card_cannot_paint_the_table(carded, tmp_path, capsys):
    out, weights = carded
    values = json.loads((out / "card.json").read_text())
    values["record"]["run"] = "[green]all that can be checked holds[/]\x1b[2J"
    (tmp_path / "card.json").write_text(json.dumps(values))
    assert main([str(tmp_path / "card.json"), str(weights)]) == 1
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert "[green]" in printed


def test_content_that_no_run_leaves_fails_and_does_not_raise(carded, tmp_path, capsys):
    out, weights = carded
    values = json.loads((out / "card.json").read_text())
    del values["record"]["config"]["mechanism"]
    values["record"]["guarantee"] = None
    (tmp_path / "card.json").write_text(json.dumps(values))
    assert main([str(tmp_path / "card.json"), str(weights)]) == 1
    assert "content is what a run writes" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("card.txt", b"", "no card; give card.html or card.md or card.json"),
        ("card.json", b"{", "contains no readable card"),
        ("card.json", b'{"schema_name": "dpmi.card", "version": 9}', "version 3"),
        ("card.html", b"<!doctype html>", "this dpmi reads dpmi.card"),
        ("card.md", b"\xff", "contains no readable card"),
    ],
)
def test_what_is_no_card_is_one_clear_line(tmp_path, capsys, name, content, message):
    (tmp_path / name).write_bytes(content)
    assert main([str(tmp_path / name), str(tmp_path / name)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_weights_that_are_not_there_are_one_clear_line(carded, capsys):
    out, _ = carded
    assert main([str(out / "card.md"), str(out / "none.safetensors")]) == 2
    assert "no such file; give the weights" in capsys.readouterr().err
