"""docs/extending.md is followed to the letter, in a copy of the tree."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from dpmi.privacy.accounting import epsilon
from dpmi.privacy.spending import LedgerEntry

REPOSITORY = Path(__file__).resolve().parents[1]
PAGE = (REPOSITORY / "docs" / "extending.md").read_text(encoding="utf-8")
QUICK = ("data.image_size=32", "data.batch_size=8", "trainer.max_epochs=1", "model.weights=null")
QUICK += ("trainer.accelerator=cpu", "logger=csv")
DRAWN = ("data.train_images=16", "data.val_images=4", "data.test_images=8")

pytestmark = pytest.mark.slow  # whole networks, in new interpreters


def section(title):
    """The text of a section of the page."""
    (found,) = re.findall(
        rf"^## {title}[^\n]*\n(.*?)(?=^## |\Z)", PAGE, flags=re.MULTILINE | re.DOTALL
    )
    return found


def blocks(text, language):
    """The code of a text, block by block."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def commands(text):
    """The command lines of a text."""
    return [line for block in blocks(text, "sh") for line in block.splitlines()]


def apply(text, tree):
    """Write each block of a text into the file that the paragraph before it names last."""
    found = re.findall(
        r"((?:^[^\n`][^\n]*\n|^`[^`\n][^\n]*\n)+)\n```(python|yaml|diff)\n(.*?)^```$",
        text,
        re.MULTILINE | re.DOTALL,
    )
    assert len(found) == len(re.findall("^```(?!sh)[a-z]", text, re.MULTILINE))
    for paragraph, language, code in found:
        file = tree / re.findall(r"`(\w+/[\w/.]+)`", paragraph)[-1]
        if language == "diff":
            file.write_text(changed(file.read_text(encoding="utf-8"), code), encoding="utf-8")
        else:
            assert not file.exists()
            file.write_text(code, encoding="utf-8")


def changed(text, diff):
    """A text with the changes of a diff, whose hunks each fit one place."""
    for hunk in re.split(r"^@@\n", diff, flags=re.MULTILINE):
        lines = hunk.splitlines(keepends=True)
        old = "".join(line[1:] or line for line in lines if line[0] != "+")
        new = "".join(line[1:] or line for line in lines if line[0] != "-")
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


@pytest.fixture
def tree(tmp_path):
    """A copy of all that is installed or tested."""
    for folder in ("dpmi", "conf", "tests"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(REPOSITORY / folder, tmp_path / "tree" / folder, ignore=ignored)
    shutil.copy(REPOSITORY / "pyproject.toml", tmp_path / "tree")
    return tmp_path / "tree"


@pytest.fixture
def run(tree, place):
    """Run a command line of the page there, with more words; its output, and that it succeeded."""

    def at(line, *more):
        program, *words = shlex.split(line)
        command = [sys.executable, "-m", "pytest"] if program == "pytest" else [sys.executable]
        environment = place.environment() | {"PYTHONPATH": str(tree)}
        done = subprocess.run(
            [*command, *words, *more], cwd=tree, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return at


@pytest.fixture
def record(place):
    """Read the one run's record."""
    return lambda: json.loads(next(place.outputs.rglob("record.json")).read_text("utf-8"))


def test_a_network_is_two_files(tree, run, place, record):
    text = section("A network")
    code, (train, test) = blocks(text, "python")[0], commands(text)
    name = re.search(r"model=(\w+)", train)[1]
    (tree / "dpmi" / "backbones" / f"{name}.py").write_text(code, encoding="utf-8")
    config = (tree / "conf" / "model" / "resnet50.yaml").read_text(encoding="utf-8")
    assert config.count("resnet50") == 1
    (tree / "conf" / "model" / f"{name}.yaml").write_text(config.replace("resnet50", name))
    run(train, *QUICK, *DRAWN, "mechanism.delta=1e-3", f"output_dir={place.outputs}")
    (weights,) = place.outputs.rglob("model.safetensors")
    assert weights.stat().st_size > 10e6
    assert record()["status"] == "completed"
    of_it = run(test, "-k", name, "-p", "no:cacheprovider")
    assert int(re.search(r"(\d+) passed", of_it)[1]) >= 10


def test_a_data_set_is_read_as_its_new_reader_says(tree, run, place, record):
    text = section("A data set")
    apply(text, tree)
    images = place.cwd / "busi"
    for shade, name in enumerate(("normal", "benign", "malignant")):
        (images / name).mkdir(parents=True)
        for number in range(1, 13):
            image = Image.new("L", (40, 32), 60 * shade + number)
            image.save(images / name / f"{name} ({number}).png")
            Image.new("1", (40, 32)).save(images / name / f"{name} ({number})_mask.png")
    (train,) = commands(text)
    run(train.replace("PATH", str(images)), *QUICK, f"output_dir={place.outputs}")
    found = record()
    assert found["status"] == "completed"
    assert found["config"]["data"]["name"] == "busi"
    assert sum(found["data"]["counts"].values()) == 36  # no mask is among them
    assert (found["guarantee"]["unit"], found["guarantee"]["mechanism"]) == ("image", "dpsgd")


def test_a_metric_is_logged_and_recorded(tree, run, place, record):
    text = section("A metric")
    apply(text, tree)
    run(*commands(text), *QUICK, *DRAWN, f"output_dir={place.outputs}")
    metrics = record()["metrics"]
    for name in re.findall(r"`([\w/]+/mcc)`", text):
        assert -1 <= metrics[name] <= 1
    (public,) = place.outputs.rglob("public.json")
    assert (
        json.loads(public.read_text("utf-8"))["metrics"]["test_images/mcc"] == metrics["test/mcc"]
    )


def test_a_mechanism_states_the_guarantee_of_what_it_executed(tree, run, place, record):
    text = section("A mechanism")
    apply(text, tree)
    config = (tree / "conf" / "mechanism" / "dpsgd.yaml").read_text(encoding="utf-8")
    changes = {"name: dpsgd": "name: signsgd", "noise_walk: auto": "noise_walk: null"}
    for old, new in changes.items():
        assert config.count(old) == 1
        config = config.replace(old, new)
    (tree / "conf" / "mechanism" / "signsgd.yaml").write_text(config, encoding="utf-8")
    test, train = commands(text)
    assert "1 passed" in run(test, "-p", "no:cacheprovider")
    run(train, *QUICK, *DRAWN, f"output_dir={place.outputs}")
    found = record()
    guarantee, executed = found["guarantee"], found["mechanism"]
    assert (guarantee["mechanism"], guarantee["unit"]) == ("signsgd", "image")
    assert 0.98 <= guarantee["epsilon"] <= 1
    entries = [LedgerEntry(**entry) for entry in executed["ledger"]]
    of_steps = [e for e in entries if e.sample_rate == executed["plan"]["sample_rate"]]
    assert sum(entry.steps for entry in of_steps) == executed["plan"]["steps"] == 2
    recomputed = epsilon(entries, guarantee["delta"], guarantee["accountant"])
    assert recomputed == pytest.approx(guarantee["epsilon"], rel=1e-6)
    run("python -m dpmi.report --cards", str(place.outputs))
    report = next(place.outputs.rglob("report.html")).read_text("utf-8")
    assert "DP-signSGD" in report
    assert "var(--c-signsgd)" in report
    (card,) = place.outputs.rglob("card*.md")
    assert "the signs of DP-SGD's gradients: Poisson-sampled" in card.read_text("utf-8")
