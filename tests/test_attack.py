"""``python -m dpmi.attack``: what it writes, what it says, how it exits."""

import json
import stat

import pytest
from rich.console import Console

from dpmi import attack, report
from dpmi.attacking import command
from dpmi.attacking.result import ATTACKS_FILE, read_attacks
from dpmi.run.job import Run
from dpmi.run.records.public import PUBLIC_FILE
from dpmi.run.records.reading import read_record
from dpmi.run.records.record import RECORD_FILE

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def runs(composed, tiny, tmp_path_factory):
    """A folder with a run of local DP, and one without privacy."""
    sweep = tmp_path_factory.mktemp("attacked") / "sweep"
    for mechanism in ("ldp", "none"):
        (folder := sweep / mechanism).mkdir(parents=True)
        words = (*tiny, f"mechanism={mechanism}", f"cache_dir={sweep.parent / 'cache'}")
        Run(composed(*words), folder, Console(quiet=True)).execute()
    return sweep


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_was_found_stands_beside_the_run_and_nothing_else_is_touched(runs, capsys):
    left = [contents(runs), contents(runs.parent / "cache")]
    assert attack.main(["linkage", str(runs), "--images", "20"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "linkage is no attack on none; try membership" in printed
    assert "The attacker knows all training images" in printed
    assert "itself" in printed
    found = read_attacks(runs / "ldp")
    assert (found.linkage.image.queries, found.linkage.image.candidates) == (20, 60)
    assert found.config_digest == read_record(runs / "ldp" / RECORD_FILE).config_digest
    after = [contents(runs), contents(runs.parent / "cache")]
    assert after[0].pop(runs / "ldp" / ATTACKS_FILE)
    assert after == left
    (runs / "ldp" / ATTACKS_FILE).unlink()


def test_attacks_add_up_in_one_private_file_and_the_public_record_knows_none(runs, capsys):
    folder = runs / "ldp"
    public = (folder / PUBLIC_FILE).read_bytes()
    assert attack.main(["linkage", str(folder), "--images", "5"]) == 0
    assert attack.main(["reconstruction", str(folder), "--images", "3", "--seed", "4"]) == 0
    assert "denoised" in capsys.readouterr().out
    found = read_attacks(folder)
    assert found.linkage.image.queries == 5
    assert (found.reconstruction.images, found.reconstruction.seed) == (3, 4)
    assert stat.S_IMODE((folder / ATTACKS_FILE).stat().st_mode) == 0o600
    assert (folder / "attack-reconstruction.png").is_file()
    assert (folder / PUBLIC_FILE).read_bytes() == public
    page = {}
    for name, words in {"private": [], "public": ["--public"]}.items():
        out = runs.parent / name
        assert report.main([str(runs), "--out", str(out), *words]) == 0
        page[name] = (out / "report.html").read_text() + (out / "report.md").read_text()
    shown = found.reconstruction.shown[0]
    assert "Attacks that were tried" in page["private"]
    assert shown in page["private"]
    assert "Attacks that were tried" not in page["public"]
    assert shown not in page["public"]


def test_a_run_need_not_have_been_made(tiny, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = [*tiny, "mechanism=ldp", "beta=2", f"cache_dir={tmp_path / 'cache'}"]
    assert attack.main(["linkage", *words, "--images", "3"]) == 0
    (path,) = tmp_path.glob(f"outputs/phantom_xray-ldp-beta2-seed42-*/{ATTACKS_FILE}")
    assert read_attacks(path.parent).linkage.image.queries == 3
    assert str(path.relative_to(tmp_path)) in capsys.readouterr().out


@pytest.mark.slow  # 16 whole networks
def test_membership_of_a_whole_network_is_attacked_by_shadow_networks(tiny, tmp_path):
    words = [*tiny, "data.train_images=24", "mechanism=ldp_published", "beta=0.1"]
    words += [f"cache_dir={tmp_path / 'cache'}", f"output_dir={tmp_path}"]
    assert attack.main(["membership", *words, "--models", "16"]) == 0
    (path,) = tmp_path.glob(f"phantom_xray-*/{ATTACKS_FILE}")
    found = read_attacks(path.parent).membership
    assert (found.models, found.candidates, found.promised) == (16, 24, None)
    assert (path.parent / "attack-roc.svg").is_file()


@pytest.mark.parametrize(("words", "message"), [
    (["linkage", "{runs}/none"], "no run here that linkage can attack; it applies to ldp"),
    (["linkage", "{runs}/absent"], "no run record below it; give a folder of runs, or KEY=VALUE"),
    (["linkage", "{runs}", "beta=1"], "give folders, or KEY=VALUE of one run, not both"),
    (["linkage", "mechanism=ldp", "betta=1"], "betta: no such key"),
    (["linkage", "mechanism=ldpp"], "mechanism=ldpp: no such option; allowed are"),
    (["linkage", "mechanism=ldp", "beta=-1"], "beta"),
    (["linkage", "mechanism=ldp", "beta=0.01"], "beta=0.01: "),
    (["membership", "model.weights=no.pth"], "model.weights=no.pth: no such file"),
])  # fmt: skip
def test_bad_input_is_one_line_and_status_2(runs, capsys, words, message):
    assert attack.main([word.format(runs=runs) for word in words]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert message in line
    assert line.startswith("error: ")


@pytest.mark.parametrize("words", [
    ["membership", "x", "--models", "15"], ["linkage", "x", "--images", "0"], ["linkage"],
    ["linkage", "x", "--images", "many"], ["theft", "x"],
])  # fmt: skip
def test_arguments_that_make_no_sense_are_refused(capsys, words):
    with pytest.raises(SystemExit) as stopped:
        attack.main(words)
    assert stopped.value.code == 2
    assert "error: " in capsys.readouterr().err


def test_an_attack_that_fails_is_reported_in_one_line_and_status_1(tiny, tmp_path, capsys):
    words = ["mechanism=ldp", "data=folder", f"data.root={tmp_path / 'absent'}"]
    words += [f"cache_dir={tmp_path / 'cache'}"]
    assert attack.main(["linkage", *words, f"output_dir={tmp_path}"]) == 1
    assert "absent" in capsys.readouterr().out
    assert not list(tmp_path.rglob(ATTACKS_FILE))


def test_a_file_of_attacks_that_cannot_be_read_is_bad_input(runs, capsys):
    path = runs / "ldp" / ATTACKS_FILE
    for content in ("{", json.dumps({"schema_name": "dpmi.attacks", "version": 0}), "[]"):
        path.write_text(content)
        assert attack.main(["linkage", str(runs / "ldp"), "--images", "2"]) == 2
        assert "no readable file of attacks" in capsys.readouterr().err
    path.unlink()


def test_ctrl_c_ends_it(monkeypatch, tmp_path, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "attack", interrupted)
    assert attack.main(["linkage", str(tmp_path)]) == 130
    assert capsys.readouterr().err == "interrupted\n"
