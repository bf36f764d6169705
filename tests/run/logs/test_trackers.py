"""What TensorBoard and MLflow get of a run: real event files, a real store."""

import io
import json
import math
from importlib.util import find_spec
from typing import NamedTuple

import numpy as np
import pytest
from mlflow.tracking import MlflowClient
from PIL import Image
from pytorch_lightning.loggers import MLFlowLogger, TensorBoardLogger
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dpmi.config.sections import MlflowConfig
from dpmi.privacy.guarantee import Guarantee
from dpmi.run.job import Run
from dpmi.run.logs.door import SCOPE, Door
from dpmi.run.logs.mlflow_tracker import MlflowTracker
from dpmi.run.logs.samples import SAMPLES
from dpmi.run.logs.tensorboard_tracker import TensorboardTracker
from dpmi.run.logs.tracker import TrackedRun
from dpmi.run.records.reading import read_record

pytestmark = pytest.mark.usefixtures("one_thread")

KINDS = ("tensorboard", "mlflow")
ALL = dict.fromkeys(("scalars", "images", "tensors"), 0)  # an event file has no limit here
PLACE = "zebra-clinic"


class Seen(NamedTuple):
    """What a tracker has of a run."""

    rows: dict[str, list[tuple[int, float]]]  # steps and values of a metric
    texts: dict[str, str]
    config: dict[str, str]
    images: int
    content: bytes  # of its files


def in_tensorboard(folder):
    events = EventAccumulator(str(folder / "tensorboard"), size_guidance=ALL)
    events.Reload()
    tags = events.Tags()
    files = [path for path in (folder / "tensorboard").rglob("*") if path.is_file()]
    content = b"".join(path.read_bytes() for path in files)
    return Seen(
        {name: [(e.step, e.value) for e in events.Scalars(name)] for name in tags["scalars"]},
        {
            name.removesuffix("/text_summary"): events.Tensors(name)[0].tensor_proto.string_val[0]
            .decode()
            for name in tags["tensors"]
        },
        dict(line.split(": ", 1) for line in (folder / "tensorboard" / "hparams.yaml").read_text()
             .splitlines() if ": " in line),
        len(tags["images"]),
        content,
    )  # fmt: skip


def in_mlflow(folder):
    client = MlflowClient(f"sqlite:///{folder.parent / 'mlflow.db'}")
    (experiment,) = client.search_experiments(filter_string="name = 'dpmi'")
    runs = client.search_runs([experiment.experiment_id])
    (run,) = [run for run in runs if run.data.tags["dpmi.sweep"] in runs_of(folder)]
    rows = {
        name: [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, name)]
        for name in run.data.metrics
    }
    files = client.list_artifacts(run.info.run_id, "samples")
    content = (folder.parent / "mlflow.db").read_bytes()
    assert run.info.status == "FINISHED"
    assert run.info.user_id == "unknown"
    assert not {"mlflow.user", "mlflow.source.name", "mlflow.source.git.commit"} & set(
        run.data.tags
    )
    return Seen(rows, run.data.tags, run.data.params, len(files), content)


def runs_of(folder):
    """Names that a sweep's folder may have."""
    return {folder.parent.name, *(p.read_text() for p in folder.glob("group"))}


READ = {"tensorboard": in_tensorboard, "mlflow": in_mlflow}


@pytest.fixture(scope="module")
def job(composed, tiny, tmp_path_factory):
    """Run a job here: ``job("logger=mlflow")`` gives record, folder and what was printed."""
    base = tmp_path_factory.mktemp("trackers")

    def run(*overrides, base_of=tiny):
        folder = tmp_path_factory.mktemp("sweep") / "job"
        folder.mkdir()
        console = Console(width=1000, file=io.StringIO(), record=True)
        words = (*base_of, *overrides, f"cache_dir={base / 'cache'}", f"output_dir={folder.parent}")
        Run(composed(*words), folder, console).execute()
        return read_record(folder / "record.json"), folder, console.export_text()

    return run


@pytest.fixture(scope="module")
def drawn(job):
    """A run on drawn images for each tracker."""
    return {kind: job(f"logger={kind}", "mechanism=ldp", "beta=2") for kind in KINDS}


@pytest.fixture(scope="module")
def own(job, tiny, tmp_path_factory):
    """The same on a clinic's images, in folders of their own."""
    rng, root = np.random.default_rng(0), tmp_path_factory.mktemp("own") / PLACE
    for label in ("calm", "striped"):
        (root / label).mkdir(parents=True)
        for number in range(40):
            pixels = rng.integers(0, 200, (32, 32), dtype=np.uint8) // 2
            pixels[:: 2 + (label == "calm")] = 255
            Image.fromarray(pixels).save(root / label / f"tapir-file-{number}.png")
    settings = ("data=folder", f"data.root={root}", "data.image_size=32", "data.batch_size=13")
    words = (*settings, "data.channels=1", "mechanism=dpsgd", "mechanism.accountant=rdp")
    others = [word for word in tiny if not word.startswith("data")]
    return {
        kind: job(*words, f"logger={kind}", "logger.sample_images=all", base_of=others)
        for kind in KINDS
    }


@pytest.mark.parametrize("kind", KINDS)
def test_a_tracker_has_the_metrics_the_config_and_what_they_are_covered_by(drawn, kind):
    record, folder, printed = drawn[kind]
    assert record.status == "completed", record.reason
    assert "stopped working" not in printed
    seen = READ[kind](folder)
    assert len(seen.rows["nonprivate/loss"]) == 6  # one a step
    for name, value in record.metrics.items():
        if not math.isnan(value):
            assert seen.rows[name][-1][1] == pytest.approx(value, rel=1e-5), name
        else:
            assert name not in seen.rows
    assert seen.texts["scope"] == SCOPE[True]
    assert "0.5" in seen.texts["guarantee" if kind == "tensorboard" else "guarantee.epsilon"]
    of_image = seen.texts["risk/image" if kind == "tensorboard" else "risk.image.accuracy"]
    assert "1.0" in of_image
    assert seen.images == 2 * SAMPLES
    assert float(seen.config["beta"]) == 2.0
    assert "cache_dir" not in seen.config


@pytest.mark.parametrize("kind", KINDS)
def test_of_a_users_own_images_a_tracker_has_what_is_covered_and_test_metrics(own, kind):
    record, folder, printed = own[kind]
    assert record.status == "completed", record.reason
    assert "stopped working" not in printed
    if kind == "mlflow":  # a sweep's folder is told by a digest under the key of the house
        client = MlflowClient(f"sqlite:///{folder.parent / 'mlflow.db'}")
        (experiment,) = client.search_experiments(filter_string="name = 'dpmi'")
        (run,) = client.search_runs([experiment.experiment_id])
        (folder / "group").write_text(run.data.tags["dpmi.sweep"])
        assert run.data.tags["dpmi.sweep"] != folder.parent.name
    seen = READ[kind](folder)
    of_test = {name for name, v in record.metrics.items() if name.startswith("test/")}
    undefined = {name for name in of_test if math.isnan(record.metrics[name])}
    assert seen.rows.keys() == (of_test - undefined) | {"epsilon", "delta"}
    # The number of rows and their times would tell of batches.
    assert {step for row in seen.rows.values() for step, _ in row} == {0}
    assert seen.texts["scope"] == SCOPE[False]
    assert seen.images == 0
    for word in (
        *(PLACE, "tapir-file", "nonprivate/", "val/", "batch_size", "train_images"),
        *(record.data["sha256"], record.config_digest, "class_counts", "noise_multiplier"),
    ):
        text = seen.content.replace(b"(nonprivate/...)", b"")  # in what the guarantee assumes
        assert word.encode() not in text, word


def tracked(folder, output_dir, **changes):
    values = {
        "name": "cell", "group": "sweep", "id": "0123abcd", "first_step": 0, "everything": True,
        "hides_command": False, "folder": folder, "cache_dir": folder, "output_dir": output_dir,
    }  # fmt: skip
    return TrackedRun(**(values | changes))


MLFLOW = {"name": "mlflow", "experiment": "dpmi", "sample_images": "none", "nonprivate": False}


def door(kind, folder, store, **changes):
    run, console = tracked(folder, store, **changes), Console(file=io.StringIO(), record=True)
    if kind == "tensorboard":
        return Door(
            TensorboardTracker, lambda: TensorboardTracker(run), everything=True, console=console
        )
    settings = MlflowConfig(**MLFLOW, tracking_uri=f"sqlite:///{store / 'mlflow.db'}")
    return Door(
        MlflowTracker, lambda: MlflowTracker(settings, run), everything=True, console=console
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_is_resumed_goes_on_where_it_was(kind, tmp_path, drawn):
    """And what is not defined is there as the word, not as a number."""
    store = drawn["mlflow"][1].parent if kind == "mlflow" else tmp_path  # its tables are made
    folder = tmp_path / "job"
    config = {"beta": 1.0, "data": {"name": "phantom_xray"}, "logger": {"nonprivate": False}}
    first = door(kind, folder, store)
    first.log_hyperparams(config)
    for step in range(4):
        first.log_metrics({"nonprivate/loss": float(step)}, step)
    name = first.version
    if kind == "tensorboard":
        first._tracker._writer.flush()  # the process is killed
    again = door(kind, folder, store, first_step=2)
    again.log_hyperparams({**config, "beta": 2.0})  # MLflow would refuse another value
    for step in (2, 3):
        again.log_metrics({"nonprivate/loss": 10.0 + step}, step)
    again.summarise(
        Guarantee.none("none", "why"), (), {"test/accuracy": 0.5, "test/auroc": math.nan}
    )
    again.finish(failed=False)
    assert again.working
    assert again.version == name
    if kind == "tensorboard":
        first._tracker._writer.close()
        seen = in_tensorboard(folder)
        assert seen.rows["nonprivate/loss"] == [(0, 0.0), (1, 1.0), (2, 12.0), (3, 13.0)]
        assert "test/auroc" in seen.texts["undefined"]
    else:
        client = MlflowClient(f"sqlite:///{store / 'mlflow.db'}")
        steps = [(m.step, m.value) for m in client.get_metric_history(name, "nonprivate/loss")]
        assert {(0, 0.0), (1, 1.0), (2, 12.0), (3, 13.0)} <= set(steps)
        run = client.get_run(name)
        assert run.data.tags["undefined"] == "test/auroc"
        assert json.loads(run.data.tags["guarantee.assumptions"]) is not None
        assert run.data.metrics["test/accuracy"] == 0.5
        assert "test/auroc" not in run.data.metrics
        assert run.info.status == "FINISHED"


@pytest.mark.parametrize(
    ("kind", "logger"), [("tensorboard", TensorBoardLogger), ("mlflow", MLFlowLogger)]
)
def test_a_tracker_that_fails_in_mid_run_is_reported_once_and_is_left_alone(
    kind, logger, drawn, tmp_path, monkeypatch
):
    """As W&B's of a whole run (``test_wandb_tracker.py``): the door is the same."""
    store = drawn["mlflow"][1].parent if kind == "mlflow" else tmp_path
    calls = []

    def breaks(self, *args, **kwargs):
        calls.append(args)
        raise ConnectionError("the wire was cut [/x]\nand more")

    broken = door(kind, tmp_path / "job", store, id="ffff0000")
    monkeypatch.setattr(logger, "log_metrics", breaks)
    for step in range(3):
        broken.log_metrics({"nonprivate/loss": 0.5}, step)
    broken.finish(failed=False)
    printed = broken._console.export_text().replace("\n", " ")
    assert len(calls) == 1
    assert printed.count("stopped working (ConnectionError: the wire was cut [/x] and more)") == 1
    assert not broken.working


def test_a_server_that_does_not_answer_is_reported_once_and_training_goes_on(job, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")  # the port is closed, and stays so
    record, folder, printed = job(
        "logger=mlflow", "logger.tracking_uri='http://127.0.0.1:9'", "mechanism=none"
    )
    assert record.status == "completed", record.reason
    assert printed.count("MLflow stopped working") == 1
    assert (folder / "metrics.csv").is_file()
    assert not (folder.parent / "mlflow.db").exists()


@pytest.mark.parametrize("module", ["tensorboard", "alembic"])
def test_a_package_that_is_missing_is_named_before_any_work(place, tiny, module):
    kind = "tensorboard" if module == "tensorboard" else "mlflow"
    program = f"import sys; sys.modules['{module}'] = None; import dpmi.train as t; t.main()"
    done = place.run(*tiny, f"logger={kind}", command=("-c", program))
    assert done.returncode == 2
    assert done.stderr == (
        f"error: logger={kind}: the package {module} is not installed; pip install 'dpmi[{kind}]'\n"
    )
    assert not place.outputs.exists()
    assert find_spec(module)  # it is installed
