from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from dpmi import download

SECRET = "token-that-nobody-may-see"


@pytest.fixture
def kaggle(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[str, Path], None]], None]:
    """Put a stand-in for kagglehub in place, which fills the folder it is given."""

    def install(fill: Callable[[str, Path], None]) -> None:
        def fetch(handle: str, *, output_dir: str) -> str:
            fill(handle, Path(output_dir))
            return output_dir

        module = SimpleNamespace(dataset_download=fetch, competition_download=fetch)
        monkeypatch.setitem(sys.modules, "kagglehub", module)

    return install


def test_a_downloaded_set_is_found_where_the_config_looks(
    kaggle: Callable[..., None],
    draw: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    handles = []

    def fill(handle: str, folder: Path) -> None:
        handles.append(handle)
        for split in ("train", "test"):
            for seed, name in enumerate(("NORMAL", "PNEUMONIA")):
                draw(folder / "chest_xray" / split / name / "a.jpeg", seed)

    kaggle(fill)
    monkeypatch.chdir(tmp_path)
    for _ in range(2):  # the second time there is nothing to do
        assert download.main(["chest_xray"]) == 0
        printed = capsys.readouterr().out
        assert "4 images in data/chest_xray" in printed
        assert printed.endswith("python -m dpmi.train data=chest_xray\n")
    assert handles == ["paultimothymooney/chest-xray-pneumonia"]
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["chest_xray"]


def test_a_root_of_ones_own_is_in_the_command_to_train(
    kaggle: Callable[..., None],
    draw: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fill(handle: str, folder: Path) -> None:
        lines = ["id_code,diagnosis"]
        for number in range(50):
            draw(folder / "train_images" / f"{number}.png", number, (4, 4))
            lines.append(f"{number},{number % 5}")
        (folder / "train.csv").write_text("\n".join(lines))

    kaggle(fill)
    assert download.main(["aptos", "--root", str(tmp_path / "mine")]) == 0
    assert f"data=aptos data.root={tmp_path / 'mine' / 'aptos'}" in capsys.readouterr().out


def test_a_refusal_says_how_to_place_by_hand_and_no_secret(
    kaggle: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(handle: str, folder: Path) -> None:
        (folder / "half.zip").write_bytes(b"half")
        raise ConnectionError(f"https://example.org/?signature={SECRET}")

    kaggle(refuse)
    assert download.main(["--root", str(tmp_path)]) == 2
    captured = capsys.readouterr()
    assert SECRET not in captured.out + captured.err
    for name in ("chest_xray", "aptos"):
        assert f"error: {name}: Kaggle gave no data (ConnectionError)" in captured.err
        assert f"so that {tmp_path / name} holds" in captured.err
    assert "accept the rules" in captured.err
    assert list(tmp_path.iterdir()) == []


def test_without_kagglehub_the_way_to_install_it_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "kagglehub", None)
    assert download.main(["aptos", "--root", str(tmp_path)]) == 2
    assert "pip install dpmi[kaggle]" in capsys.readouterr().err


def test_something_else_in_the_place_is_left_alone(
    kaggle: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kaggle(lambda handle, folder: pytest.fail("nothing is to be downloaded"))
    (tmp_path / "aptos").mkdir()
    (tmp_path / "aptos" / "thesis.tex").write_text("mine")
    assert download.main(["aptos", "--root", str(tmp_path)]) == 2
    assert "holds something else than aptos" in capsys.readouterr().err
    assert (tmp_path / "aptos" / "thesis.tex").read_text() == "mine"


def test_a_place_that_cannot_be_written_is_refused(
    kaggle: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kaggle(lambda handle, folder: None)
    (tmp_path / "file").write_text("")
    assert download.main(["aptos", "--root", str(tmp_path / "file")]) == 2
    assert "choose another --root" in capsys.readouterr().err


def test_the_door_explains_itself() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dpmi.download", "--help"], capture_output=True, text=True
    )
    assert done.returncode == 0
    assert "python -m dpmi.download chest_xray --root DIR" in done.stdout
