import csv
import json
import os
import re
import shutil
import signal
import time
from pathlib import Path

import dp_accounting
import numpy as np
import pytest
from dp_accounting import pld
from PIL import Image

from dpmi.config.identity import config_digest
from dpmi.config.schema import Config
from dpmi.privacy.accounting import CALIBRATION_TOLERANCE, PRV_ERROR
from dpmi.run.records.reading import read_record, read_records

REPOSITORY = Path(__file__).resolve().parents[1]
BETAS = (1.0, 2.0, 4.0)
SWEEP = ("-m", "mechanism=none,ldp,dpsgd", "beta=1,2,4")


@pytest.fixture(scope="module")
def sweep(shared_place, tiny):
    """The seven cells, by the command, once for all that is to be seen in them."""
    done = shared_place.train(*SWEEP, *tiny, COLUMNS="80")
    assert done.returncode == 0, done.stderr
    (folder,) = shared_place.outputs.iterdir()
    return done, folder, shared_place


@pytest.fixture
def records(sweep):
    return read_records(sweep[1])


def of(records, mechanism):
    return {r.config["beta"]: r for r in records if r.config["mechanism"]["name"] == mechanism}


def test_the_sweep_leaves_seven_good_records(records):
    cells = [(r.config["mechanism"]["name"], r.config["beta"]) for r in records]
    assert sorted(cells) == sorted(
        [("none", 1.0), *[(m, beta) for m in ("ldp", "dpsgd") for beta in BETAS]]
    )
    for record in records:
        assert (record.status, record.reason) == ("completed", None)
        assert record.data["counts"] == {"train": 60, "val": 10, "test": 30}
        for metric in ("accuracy", "balanced_accuracy", "auroc", "f1", "recall/NORMAL"):
            assert 0 <= record.metrics[f"test/{metric}"] <= 1
            assert 0 <= record.metrics[f"nonprivate/train/{metric}"] <= 1
        assert 0 < record.timings["steps"] <= record.timings["train"] <= record.timings["total"]
        assert record.environment["packages"]["opacus"]
    assert len({record.config_digest for record in records}) == 7
    assert len({record.data["sha256"] for record in records}) == 1


def test_a_record_holds_the_config_that_repeats_it(sweep, records):
    for record in records:
        again = Config.model_validate(record.config)
        assert config_digest(again) == record.config_digest
    for folder in (path for path in sweep[1].iterdir() if path.is_dir()):
        assert {path.name for path in folder.iterdir()} == {
            *(".lock", "config.yaml", "metrics.csv", "model.safetensors"),
            *("record.json", "public.json", "train.log"),
        }
        assert folder.name.endswith(read_record(folder / "record.json").config_digest[:6])


def test_epsilon_of_a_dpsgd_record_is_what_its_ledger_cost(records):
    for beta, record in of(records, "dpsgd").items():
        plan, ledger = record.mechanism["plan"], record.mechanism["ledger"]
        assert ledger == [
            {key: plan[key] for key in ("noise_multiplier", "sample_rate", "steps")}
        ]  # the whole plan was executed, and nothing else
        assert (plan["n"], plan["steps"], plan["expected_batch_size"]) == (60, 6, 10)
        accountant = pld.PLDAccountant(dp_accounting.NeighboringRelation.REPLACE_SPECIAL)
        for entry in ledger:
            step = dp_accounting.PoissonSampledDpEvent(
                entry["sample_rate"], dp_accounting.GaussianDpEvent(entry["noise_multiplier"])
            )
            accountant.compose(step, entry["steps"])
        tight, stated = accountant.get_epsilon(plan["delta"]), record.guarantee.epsilon
        assert record.guarantee.accountant == "prv"
        assert tight <= stated <= tight + 2 * PRV_ERROR
        assert (1 - CALIBRATION_TOLERANCE) / beta <= stated <= 1 / beta
        assert (record.guarantee.delta, record.guarantee.unit) == (plan["delta"], "image")
        assert record.guarantee.adjacency == "zero-out"


def test_epsilon_of_an_ldp_record_is_of_the_pixel_and_the_image(records):
    for beta, record in of(records, "ldp").items():
        promise = record.guarantee
        assert (promise.epsilon, promise.delta, promise.unit) == (1 / beta, 0.0, "pixel")
        assert promise.image_epsilon == 8 * 8 * 255 / 16 / beta  # gray: one mean a block of 4 x 4


def test_the_original_promises_nothing_and_says_so(records):
    (record,) = of(records, "none").values()
    assert record.guarantee.epsilon is None
    assert "without any mechanism" in record.guarantee.reason


def test_each_run_states_its_config_and_its_accuracy_beside_its_guarantee(sweep, records):
    screen = sweep[0].stdout
    assert screen.count("├── seed = 42") == 1  # one tree for all seven, and a line for each
    assert "beta = 1.0, 2.0, 4.0" in screen
    assert "name = none, ldp, dpsgd" in screen
    assert "HYDRA" not in screen
    lines = re.findall(r"^phantom_xray-\S+-seed42  (?!test accuracy)(.+)$", screen, re.MULTILINE)
    assert lines == [
        "none β=1", "ldp β=1", "ldp β=2", "ldp β=4", "dpsgd β=1", "dpsgd β=2", "dpsgd β=4"
    ]  # fmt: skip
    assert "not run again" not in screen  # the original has no β: one run
    printed = " ".join(screen.split())
    for record in records:
        accuracy = f"test accuracy {record.metrics['test/accuracy']:.1%}"
        words = re.search(rf"{record.run} ({accuracy}.*?) s;", printed)[1]
        assert str(record.guarantee) in words
    assert "Traceback" not in screen + sweep[0].stderr


def test_the_table_ends_the_sweep_and_is_written_beside_the_records(sweep, records):
    done, folder, _ = sweep
    table = done.stdout[done.stdout.index("accuracy by mechanism and β") :]
    for words in ("original", "LDP", "DP-SGD", "ε=0.25", "no ε"):
        assert words in table
    assert max(len(line) for line in table.splitlines() if "│" in line) <= 80
    rows = list(csv.DictReader((folder / "figure4.csv").read_text().splitlines()))
    assert len(rows) == 14
    for row in rows:
        record = of(records, row["mechanism"])[float(row["beta"] or 1)]
        split = {"train": "nonprivate/train", "test": "test"}[row["split"]]
        assert float(row["accuracy"]) == record.metrics[f"{split}/accuracy"]
    markdown = (folder / "figure4.md").read_text()
    for record in records:
        assert f"**{record.metrics['test/accuracy']:.1%}**" in markdown


def test_a_sweep_writes_nowhere_but_to_its_outputs_and_the_cache(sweep):
    place = sweep[2]
    assert place.files(place.home) == set()
    assert place.files(place.tmp) == set()
    assert {path.name for path in place.cwd.iterdir()} == {"outputs"}
    assert place.cache.is_dir()
    assert not list(place.cache.rglob("*.part"))


def test_the_images_are_drawn_once_for_all_cells(sweep):
    place = sweep[2]
    assert len(list(place.cache.glob("images/*/pixels.npy"))) == 1


def test_the_same_sweep_again_runs_nothing_and_shows_the_same_table(sweep, tiny):
    done, folder, place = sweep
    times = {path: path.stat().st_mtime_ns for path in folder.glob("*/record.json")}
    again = place.train(*SWEEP, *tiny, COLUMNS="80")
    assert again.returncode == 0
    assert again.stdout.count("is complete in") == 7
    assert {path: path.stat().st_mtime_ns for path in folder.glob("*/record.json")} == times
    table = "accuracy by mechanism and β"
    assert again.stdout[again.stdout.index(table) :] == done.stdout[done.stdout.index(table) :]
    (only,) = place.outputs.iterdir()
    assert only == folder


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_sweep_that_is_stopped_goes_on_by_the_same_command(place, tiny, number):
    words = (*SWEEP, *tiny, "trainer.max_epochs=3", "model.name=resnet18")
    process = place.start(*words)
    try:
        while process.poll() is None and len(list(place.outputs.glob("*/*/record.json"))) < 3:
            time.sleep(0.05)
        process.send_signal(number)
        process.communicate(timeout=600)
    finally:
        process.kill()
    assert process.returncode == (75 if number == signal.SIGTERM else -signal.SIGKILL)
    done = place.train(*words)
    assert done.returncode == 0
    assert done.stdout.count("is complete in") >= 3
    records = read_records(place.outputs)
    assert [r.status for r in records] == ["completed"] * 7


def test_help_lists_the_groups_and_the_keys_faster_than_torch_is_imported(place):
    before = os.times()
    done = place.run("--help")
    after = os.times()
    assert place.run(command=("-c", "import torch")).returncode == 0
    beside = os.times()
    assert done.returncode == 0
    for words in (
        "mechanism: class_means, dpsgd, dpsgd_published, ldp, ldp_features, ldp_published, none",
        "figure4_pneumonia",
        "max_physical_batch_size",
    ):
        assert words in done.stdout
    # Of the processor, not of the clock, and beside other work of now: a busy machine is slower.
    help_, torch_ = (sum(b[2:4]) - sum(a[2:4]) for a, b in ((before, after), (after, beside)))
    assert 0 < help_ < torch_


def test_torch_is_not_loaded_to_print_help_or_to_compose_a_config(place):
    script = (
        "import atexit, sys\n"
        "heavy = ('torch', 'pytorch_lightning', 'opacus', 'wandb', 'numpy')\n"
        "atexit.register(lambda: print('LOADED', [m for m in heavy if m in sys.modules]))\n"
        "from dpmi.train import main\n"
        "main()\n"
    )
    for words, status in ((["--help"], 0), (["--cfg", "job"], 0), (["beta=0"], 2)):
        done = place.run(*words, command=("-c", script))
        assert done.returncode == status, (words, done.stderr)
        assert "LOADED []" in done.stdout, (words, done.stderr)


@pytest.mark.parametrize(
    "words",
    [
        ["beta=0"],
        ["foo=1"],
        ["+foo=1"],
        ["mechanism=foo"],
        ["model.norm=batch"],
        ["mechanism=dpsgd_published", "model.norm=batch", "beta=3"],
        ["data=chest_xray", "data.root=???"],
        ["beta=[1"],
        ["-m", "mechanism=ldp,dpsgd", "beta=1,0"],  # one cell of four
        ["-m", "mechanism=none,foo"],
        ["-m", "foo=1,2"],
    ],
    ids=" ".join,
)
def test_bad_input_is_one_line_before_anything_is_written(place, words):
    done = place.train(*words)
    assert done.returncode == 2
    assert re.fullmatch(r"error: [^\n]+\n", done.stderr)
    assert done.stdout == ""
    assert place.files(place.cwd) == place.files(place.home) == set()
    assert not place.cache.exists()


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["mechanism=dpsgd", "mechanism.delta=0.5"], r"mechanism\.delta=0\.5.*60 training images"),
        (["mechanism=dpsgd", "data.batch_size=61"], r"data\.batch_size=61.*1 to 60"),
        (["data=folder", "data.root=nowhere"], r"nowhere"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_only_the_data_can_tell_fails_the_run_in_one_line(place, tiny, words, reason):
    fits = tiny if words[0] != "data=folder" else tiny[1:3]
    done = place.train(*fits, *words, "logger=csv")
    assert done.returncode == 1
    assert "Traceback" not in done.stdout + done.stderr
    assert done.stderr == ""
    (record,) = place.outputs.glob("*/record.json")
    found = read_record(record)
    assert found.status == "failed"
    assert re.search(reason, found.reason)
    assert "\n" not in found.reason
    assert f"{found.run} failed: {found.reason}" in done.stdout
    assert {path.name for path in record.parent.iterdir()} <= {
        *(".lock", "record.json", "public.json", "config.yaml", "resume.json", "train.log")
    }


def test_a_cell_that_fails_is_shown_with_its_reason_and_the_others_complete(place, tiny):
    words = ("mechanism=dpsgd", "mechanism.accountant=rdp", "mechanism.delta=0.5,1e-4")
    done = place.train("-m", *words, "beta=1,2", *tiny)
    assert done.returncode == 1
    (folder,) = place.outputs.iterdir()
    ended = sorted((r.config["mechanism"]["delta"], r.status) for r in read_records(folder))
    assert ended == [(1e-4, "completed")] * 2 + [(0.5, "failed")] * 2
    table = done.stdout[done.stdout.index("accuracy by") :]
    assert "4 records" in table
    assert re.search(r"dpsgd-beta1-seed42 failed: mechanism\.delta=0\.5", table)
    assert "failed: mechanism.delta=0.5" in (folder / "figure4.md").read_text()
    failed = [r for r in csv.DictReader((folder / "figure4.csv").open()) if r["status"] == "failed"]
    assert all("mechanism.delta=0.5" in row["reason"] and not row["accuracy"] for row in failed)
    assert len(failed) == 4


def test_an_interrupted_run_leaves_a_record_of_what_was_spent(place, tiny):
    """In an interpreter of its own, and of the network that is the default."""
    process = place.start(
        *(*tiny, "model.name=resnet18", "mechanism=dpsgd", "mechanism.accountant=rdp"),
        "trainer.max_epochs=1000",
    )
    try:
        deadline = time.monotonic() + 600
        while not any("epoch" in line for line in metrics_lines(place)):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=600)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "Traceback" not in err
    (path,) = place.outputs.glob("*/record.json")
    record = read_record(path)
    assert (record.status, record.reason) == ("interrupted", "interrupted by the user")
    spent = sum(entry["steps"] for entry in record.mechanism["ledger"])
    assert 0 < spent < record.mechanism["plan"]["steps"] == 6000
    assert 0 < record.guarantee.epsilon < 1  # of the steps that ran, not of the plan
    assert json.loads(path.read_text())["status"] == "interrupted"


@pytest.mark.slow
def test_images_that_are_deleted_during_the_run_do_not_harm_it(place, tiny):
    rng = np.random.default_rng(0)
    for name in ("ill", "well"):
        (place.cwd / "own" / name).mkdir(parents=True)
        for number in range(30):
            pixels = rng.integers(0, 256, (32, 32), dtype=np.uint8)
            Image.fromarray(pixels).save(place.cwd / "own" / name / f"{number}.png")
    own = ("data=folder", "data.root=own", "data.channels=1", "data.image_size=32")
    words = (*own, "data.batch_size=10", *tiny[6:], "mechanism=none", "trainer.max_epochs=15")
    words = (*words, "model.name=resnet18")  # long enough to be found at work
    process = place.start(*words)
    try:
        deadline = time.monotonic() + 600
        while not metrics_lines(place):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        shutil.rmtree(place.cwd / "own" / "ill")
        (place.cwd / "own" / "well" / "0.png").unlink()
        assert process.poll() is None  # in the midst of it
        out, err = process.communicate(timeout=120)
    finally:
        process.kill()
    assert (process.returncode, err) == (0, ""), out
    (path,) = place.outputs.glob("*/record.json")
    record = read_record(path)
    assert record.status == "completed"
    assert record.data["counts"] == {"train": 42, "val": 6, "test": 12}


def metrics_lines(place):
    """What the CSV log holds so far: it is written every few steps."""
    return [line for path in place.outputs.glob("*/metrics.csv") for line in path.open()]
