"""``python -m dpmi.evaluate``: what it says, and how it exits."""

import json

import pytest

from dpmi.evaluate import main

pytestmark = pytest.mark.usefixtures("one_thread")


def test_it_says_what_was_found_what_covers_it_and_where_it_is(
    trained, tmp_path, capsys, monkeypatch
):
    monkeypatch.setenv("COLUMNS", "200")
    run, output = trained("ldp"), tmp_path / "found.json"
    header, *rows = run.table.read_text().splitlines()
    (tmp_path / "other.csv").write_text("\n".join([header, *rows[55:]]) + "\n")
    words = ["data=csv", f"data.root={run.images}", f"data.csv={tmp_path / 'other.csv'}"]
    assert main([str(run.folder), *words, "data.groups=[site]", "--output", str(output)]) == 0
    printed, found = capsys.readouterr().out, json.loads(output.read_text())
    assert "data=csv: 30 images of 15 patients (15 lying, 15 standing)" in printed
    assert f"{found['metrics']['auroc']:.4f}" in printed
    assert "95 %, over patients" in printed
    assert "site=A" in printed
    assert "ε = 1, δ = 0 per pixel" in printed
    assert "nothing more was spent" in printed
    assert f"no guarantee covers the figures; {output} is private" in printed
    assert "trained on" not in printed


def test_training_images_among_them_are_reported(trained, tmp_path, capsys):
    run = trained("ldp")
    rows = run.table.read_text().replace(",train,", ",test,")
    (tmp_path / "all.csv").write_text(rows)
    words = ["data=csv", f"data.root={run.images}", f"data.csv={tmp_path / 'all.csv'}"]
    assert main([str(run.folder), *words, "-o", str(tmp_path / "found.json")]) == 0
    assert "60 of these images were trained on: the figures flatter" in capsys.readouterr().out


def test_bad_input_is_one_line_and_status_2(trained, tmp_path, capsys):
    for words in (
        [str(tmp_path)],
        [str(trained("ldp").folder), "data=folder", f"data.root={tmp_path}"],
        [str(trained("ldp").folder), "beta=2"],
        [str(trained("ldp").folder), "-o", str(tmp_path / "absent" / "found.json")],
    ):
        assert main(words) == 2
        out, err = capsys.readouterr()
        assert err.startswith("error: ")
        assert (err.count("\n"), out) == (1, "")
    assert not list(tmp_path.iterdir())
