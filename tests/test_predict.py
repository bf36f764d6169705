"""``python -m dpmi.predict``: what it writes where, and how it exits."""

import csv
import io
import shutil
import subprocess
import sys

import pytest

from dpmi.predict import main
from dpmi.using import predicting

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def folder(trained, tmp_path):
    """Some test images, at two depths, with a table of others."""
    run, root = trained("none"), tmp_path / "images"
    (root / "deep").mkdir(parents=True)
    for path in run.paths[:4]:
        shutil.copy(path, root)
    for path in run.paths[4:6]:
        shutil.copy(path, root / "deep")
    (root / "deep" / "notes.txt").write_text("no image, and none by its name")
    return root


def table(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_a_row_for_each_image_as_the_run_measured_it(trained, folder, capsys):
    run = trained("none")
    listed = folder.parent / "more.csv"
    listed.write_text(f"note,path\nx,images/{run.paths[0].name}\ny,{run.paths[9]}\n")
    assert main([str(run.folder), str(folder), str(run.paths[7]), str(listed)]) == 0
    out, err = capsys.readouterr()
    rows = table(out)
    assert list(rows[0]) == [
        "path", "probability_lying", "probability_standing", "decision", "error",
    ]  # fmt: skip
    deep = [folder / "deep" / path.name for path in run.paths[4:6]]
    top = [folder / path.name for path in run.paths[:4]]
    named = [*sorted([*top, *deep]), run.paths[7], folder / run.paths[0].name, run.paths[9]]
    assert [row["path"] for row in rows] == [str(path) for path in named]
    numbers = {path.name: number for number, path in enumerate(run.paths)}
    for row, path in zip(rows, named, strict=True):
        expected = run.probabilities[numbers[path.name]]
        found = [float(row["probability_lying"]), float(row["probability_standing"])]
        assert found == pytest.approx(expected.tolist(), abs=2e-6)
        assert row["decision"] == ("lying", "standing")[int(expected.argmax())]
        assert row["error"] == ""
    assert err.count("no privacy guarantee") == err.count("\n") == 1


def test_what_cannot_be_read_is_named_and_has_a_row_and_the_status_is_1(trained, folder, capsys):
    run = trained("none")
    (folder / "broken.png").write_bytes(b"\x89PNG")
    (folder / "list.csv").write_text("path\nabsent.png\n")
    assert main([str(run.folder), str(folder), str(folder / "list.csv")]) == 1
    out, err = capsys.readouterr()
    failed = {row["path"]: row for row in table(out) if row["error"]}
    assert set(failed) == {str(folder / "broken.png"), str(folder / "absent.png")}
    for path, row in failed.items():
        assert (row["probability_lying"], row["decision"]) == ("", "")
        assert f"{path}: {row['error']}\n" in err
    assert "2 of 8 images cannot be read" in err
    assert len(table(out)) == 8


def test_a_file_is_written_whole_or_not_at_all(trained, folder, tmp_path, capsys, monkeypatch):
    run, output = trained("none"), tmp_path / "out" / "out.csv"
    words = [str(run.folder), str(folder), "--output", str(output)]
    assert main(words) == 2
    assert f"{output}: cannot be written" in capsys.readouterr().err
    output.parent.mkdir()
    assert main(words) == 0
    assert len(table(output.read_text())) == 6
    assert capsys.readouterr().out == ""
    before = output.read_bytes()

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(predicting.csv, "writer", interrupted)
    assert main(words) == 130
    assert [path.name for path in output.parent.iterdir()] == ["out.csv"]
    assert output.read_bytes() == before


@pytest.mark.parametrize(("words", "message"), [
    (["{run}", "absent"], "absent: no such file or folder"),
    (["{run}", "{empty}"], "no images in this folder"),
    (["{run}", "{table}"], "column path is missing"),
    (["{run}", "{workbook}"], "paths.xls: this is an Excel workbook, not a CSV file"),
    (["{empty}", "{run}/public.json"], "no public.json, so it is no run's folder"),
    (["{run}", "{run}/public.json", "--backbone", "{table}"], "not needed"),
])  # fmt: skip
def test_bad_input_is_one_line_and_status_2(trained, tmp_path, capsys, words, message):
    (empty := tmp_path / "empty").mkdir()
    (listed := tmp_path / "list.csv").write_text("file\na.png\n")
    (workbook := tmp_path / "paths.xls").write_bytes(bytes.fromhex("d0cf11e0a1b11ae1") + bytes(504))
    places = {"run": trained("none").folder, "empty": empty, "table": listed, "workbook": workbook}
    assert main([word.format(**places) for word in words]) == 2
    out, err = capsys.readouterr()
    assert message in err
    assert err.startswith("error: ")
    assert (err.count("\n"), out) == (1, "")


def test_who_reads_no_further_ends_it_quietly(trained, folder):
    run = trained("none")
    command = [sys.executable, "-m", "dpmi.predict", str(run.folder), *[str(folder)] * 400]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.readline()
    process.stdout.close()
    err = process.stderr.read()
    assert process.wait(timeout=120) == 1
    assert "Traceback" not in err
    assert "BrokenPipe" not in err


def test_commands_import_nothing_slow_before_they_work():
    code = (
        "import sys, dpmi.predict, dpmi.evaluate, dpmi.export; "
        "assert not {'torch', 'hydra', 'onnx', 'pydantic'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
