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

REPOSITORY = Path(__file__).resolve().parents[1]
PAGE = (REPOSITORY / "docs" / "extending.md").read_text(encoding="utf-8")
QUICK = (
    *("data.image_size=32", "data.train_images=16", "data.val_images=4", "data.test_images=8"),
    *("data.batch_size=8", "trainer.max_epochs=1", "trainer.accelerator=cpu", "logger=csv"),
)

pytestmark = pytest.mark.slow  # whole networks, in new interpreters


def blocks(title, language):
    """The code of a section of the page."""
    (section,) = re.findall(rf"^## {title}\n(.*?)(?=^## )", PAGE, flags=re.MULTILINE | re.DOTALL)
    return re.findall(rf"^```{language}\n(.*?)^```$", section, flags=re.MULTILINE | re.DOTALL)


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


def test_a_network_is_two_files(tree, run, place):
    (code,) = blocks("A network: two files", "python")
    train, test = blocks("A network: two files", "sh")[0].splitlines()
    name = re.search(r"model=(\w+)", train)[1]
    (tree / "dpmi" / "backbones" / f"{name}.py").write_text(code, encoding="utf-8")
    config = (tree / "conf" / "model" / "resnet50.yaml").read_text(encoding="utf-8")
    assert config.count("resnet50") == 1
    (tree / "conf" / "model" / f"{name}.yaml").write_text(config.replace("resnet50", name))
    run(train, *QUICK, "mechanism.delta=1e-3", f"output_dir={place.outputs}")
    (weights,) = place.outputs.rglob("model.safetensors")
    assert weights.stat().st_size > 10e6
    assert '"status": "completed"' in (weights.parent / "record.json").read_text()
    of_it = run(test, "-k", name, "-p", "no:cacheprovider")
    assert int(re.search(r"(\d+) passed", of_it)[1]) >= 10


READER = """
from pathlib import Path

import numpy as np

from dpmi.data.catalogue import Catalogue
from dpmi.data.decoding.settings import Decoding
from dpmi.data.files import FileSource, image_files


def read_squares(config):
    root = Path(config.root)
    names = image_files(root)
    return Catalogue(
        name=config.name,
        classes=("dark", "light"),
        graded=False,
        channels=1,
        paths=tuple(names),
        labels=np.array([name.startswith("light") for name in names], np.int64),
        patients=("",) * len(names),
        splits=tuple(("train", "test")[number % 2] for number in range(len(names))),
        source=FileSource(root, Decoding(channels=1)),
    )
"""


def changed(file, *changes):
    """Write a file anew, with lines of code in place of others, each of which is there once."""
    text = file.read_text(encoding="utf-8")
    for old, new in changes:
        assert text.count(old) == 1, (file, old, text.count(old))
        text = text.replace(old, new)
    file.write_text(text, encoding="utf-8")


def test_a_data_set_a_metric_and_a_mechanism_are_added_where_the_page_says(tree, run, place):
    for section in ("A data set", "A metric", "A mechanism"):
        assert f"## {section}\n" in PAGE
    # A data set: 1 to 4.
    dpmi, conf = tree / "dpmi", tree / "conf"
    (dpmi / "data" / "readers" / "squares.py").write_text(READER)
    changed(
        dpmi / "data" / "readers" / "__init__.py",
        ('    "aptos": lambda', '    "squares": lambda config, _: read_squares(config),\n'
         '    "aptos": lambda'),
        ('    "aptos": 3,', '    "squares": 1,\n    "aptos": 3,'),
        ("from dpmi.data.readers.phantom import", "from dpmi.data.readers.squares import "
         "read_squares\nfrom dpmi.data.readers.phantom import"),
    )  # fmt: skip
    changed(dpmi / "config" / "data_sets.py", ('["chest_xray", "aptos"]', '["chest_xray", "aptos", '
            '"squares"]'))  # fmt: skip
    own = (conf / "data" / "aptos.yaml").read_text().replace("name: aptos", "name: squares")
    (conf / "data" / "squares.yaml").write_text(own)
    # A metric: one line.
    changed(
        dpmi / "models" / "metrics.py",
        ('        "f1": MacroF1', '        "mcc": __import__("torchmetrics").classification.'
         'MulticlassMatthewsCorrCoef(num_classes, **alone),\n        "f1": MacroF1'),
    )  # fmt: skip
    # A mechanism: 1 to 3 and 5; without an ε, so not 4.
    (dpmi / "mechanisms" / "plain.py").write_text(
        "from dpmi.mechanisms.none import NonPrivate\n\n\n"
        'class Plain(NonPrivate):\n    name = "plain"\n'
    )
    changed(
        dpmi / "config" / "sections.py",
        ("class LdpMechanism(Section):", "class PlainMechanism(Section):\n"
         '    name: Literal["plain"]\n\n\nclass LdpMechanism(Section):'),
        ("    NoMechanism\n", "    NoMechanism\n    | PlainMechanism\n"),
    )  # fmt: skip
    (conf / "mechanism" / "plain.yaml").write_text("name: plain\n")
    changed(
        dpmi / "mechanisms" / "__init__.py",
        ("    return NonPrivate(ranks", '    if settings.name == "plain":\n'
         "        from dpmi.mechanisms.plain import Plain\n\n        return Plain(ranks)\n"
         "    return NonPrivate(ranks"),
    )  # fmt: skip
    changed(
        dpmi / "reporting" / "cells.py",
        ('    "ldp": "LDP",', '    "plain": "plain",\n    "ldp": "LDP",'),
    )
    changed(
        dpmi / "reporting" / "charts" / "style.py",
        ('    "ldp": "#b84a00",', '    "plain": "#b84a01",\n    "ldp": "#b84a00",'),
        ('"none": "D", ', '"none": "D", "plain": "d", '),
    )  # fmt: skip

    images = place.cwd / "squares"
    images.mkdir()
    for number in range(48):
        name = ("dark", "light")[number // 2 % 2]
        value = 40 + 150 * (name == "light") + number
        Image.new("L", (32, 32), value).save(images / f"{name}{number:02}.png")
    outputs = place.outputs
    quick = (*QUICK[4:], "data.image_size=32", "data.resize=32", "model.weights=null")
    run(
        "python -m dpmi.train -m data=squares mechanism=plain,none model.prior=train",
        *(f"data.root={images}", "data.batch_size=8", *quick, f"output_dir={outputs}"),
    )
    records = [json.loads(path.read_text()) for path in sorted(outputs.rglob("record.json"))]
    names = sorted(record["config"]["mechanism"]["name"] for record in records)
    assert names == ["none", "plain"]
    for record in records:
        assert record["status"] == "completed"
        assert -1 <= record["metrics"]["test/mcc"] <= 1
        assert record["data"]["counts"] == {"train": 24, "test": 24}
    run(f"python -m dpmi.report {outputs} --out {place.cwd / 'report'}")
    assert "plain" in (place.cwd / "report" / "report.md").read_text()
