import subprocess
import sys

import pytest

from dpmi.card import main


def test_commands_import_nothing_slow_before_they_work():
    code = (
        "import sys, dpmi.card, dpmi.verify; "
        "assert not {'torch', 'opacus', 'scipy', 'jinja2', 'pydantic'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "no public.json, so it is no run's folder"),
        ({"public.json": '{"schema_name": "dpmi.public-record", "version": 0}'}, "version 1"),
        ({"public.json": "{"}, "not a readable run record"),
    ],
)
def test_what_is_no_run_is_one_clear_line(tmp_path, capsys, files, message):
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    assert main([str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert {path.name for path in tmp_path.iterdir()} == set(files)


def test_a_run_that_did_not_complete_has_no_card(real_sweeps, capsys):
    from dpmi.run.records.reading import read_public_record

    folders = [path.parent for path in real_sweeps[1].rglob("public.json")]
    (failed,) = [f for f in folders if read_public_record(f / "public.json").status == "failed"]
    assert main([str(failed)]) == 2
    assert "the run failed" in capsys.readouterr().err
    assert not list(failed.glob("card.*"))


def test_a_folder_of_runs_is_refused_and_one_of_them_is_named(real_sweeps, capsys):
    assert main([str(real_sweeps[0])]) == 2
    assert str(real_sweeps[0] / "0") in capsys.readouterr().err
