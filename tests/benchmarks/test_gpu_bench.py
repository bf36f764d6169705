"""The bench of a GPU, as far as it runs on a CPU: its order, its limits, what it writes."""

import json
import threading
import time

import pytest
import torch

from dpmi import bench
from dpmi.benchmarks.gpu import cells, command, correctness, schedule, whole_run
from dpmi.benchmarks.gpu.cells import NO_TIME, OUT_OF_MEMORY, Cell, Result
from dpmi.benchmarks.gpu.correctness import BOUND, Check
from dpmi.benchmarks.gpu.schedule import planned
from dpmi.benchmarks.gpu.settings import _ALL, Setting
from dpmi.benchmarks.gpu.whole_run import WholeRun
from dpmi.benchmarks.step import METHODS, Options, Shape, Step, make_step
from dpmi.privacy.engines import bookkeeping

CPU = torch.device("cpu")
FLOAT32 = Setting("float32")
CELL = Cell("resnet18", Shape(32, 64), FLOAT32)


@pytest.fixture(autouse=True)
def _short_turns(monkeypatch):
    monkeypatch.setattr(cells, "A_TURN", 0.01)


@pytest.fixture
def called(monkeypatch, tmp_path):
    """Call the command in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def call(*words):
        monkeypatch.setattr("sys.argv", ["bench", "--gpu", *words])
        return bench.main()

    return call


@pytest.fixture
def quick(monkeypatch):
    """All parts give at once what a test needs; what it looks at it puts back."""
    held = Check(correctness.ALONE, "float32, group", 1.0, BOUND)
    monkeypatch.setattr(correctness, "checks", lambda *_: iter([held]))
    monkeypatch.setattr(correctness, "audited", lambda _: Check("ε", "audit", 1.0, 2.0))
    run = WholeRun("made", 2, 60.0, {"train": 20.0, "total": 50.0})
    monkeypatch.setattr(whole_run, "run", lambda *_: run)

    def measured(of, device, ends_at):
        for cell in of:
            yield cell, (Result("non-private", 90.0, 1.0, 10.0, 1.0, 4), Result("fast", 60.0, 0.7))

    monkeypatch.setattr(schedule, "measured", measured)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "there is no NVIDIA GPU here that torch can use"),
        (("--cpu", "32:4", "--minutes", "0"), "--minutes=0: give more than 0, such as 8"),
        (("--cpu", "32:4", "--data", "absent"), "--data=absent: no X-rays in Kaggle's folders"),
        (("--cpu", "32:4", "--output", "file/gpu.json"), "--output=file: no folder can be made"),
        (("--cpu", "32:4", "--output", "."), "--output=.: give the name of a file for JSON"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_line_before_any_work(
    called, monkeypatch, capsys, tmp_path, words, message
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    (tmp_path / "file").write_text("")
    assert called(*words) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.err.count("\n") == 1
    assert printed.out == ""
    assert [path.name for path in tmp_path.iterdir() if path.name != "outputs"] == ["file"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--cpu", "32"), "give PIXELS:BATCH"),
        (("--cpu", "32:4", "--precision", "bf16-mixed"), "unrecognized arguments: --precision"),
    ],
)
def test_words_that_are_none_of_its_own_are_refused(called, capsys, words, message):
    with pytest.raises(SystemExit) as refusal:
        called(*words)
    assert refusal.value.code == 2
    assert message in capsys.readouterr().err


def test_the_most_important_cell_comes_first_and_each_comes_once():
    of = planned(command.MODELS, command.SHAPES, _ALL)
    assert str(of[0]) == "resnet18, 224 px, batch 128, bf16, compiled"
    assert len(set(of)) == len(of) == len(command.MODELS) * len(command.SHAPES) * len(_ALL)
    rest = [cell.setting.compiled for cell in of[1:]]
    assert rest == sorted(rest)  # what takes a minute to compile is last


def test_cells_for_which_there_is_no_time_are_passed_over_and_listed(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])

    def result(self, cell, device, seconds):
        clock[0] += 2 * schedule.expected_seconds(cell)  # a machine half as fast as expected
        return (Result("non-private", 1.0),)

    monkeypatch.setattr(schedule._Worker, "result", result)
    large = Cell("resnet50", Shape(224, 1024), FLOAT32)
    of = [CELL, CELL, large, CELL]
    budget = 6.5 * schedule.expected_seconds(CELL)
    found = [
        all(one.note == NO_TIME for one in its) for _, its in schedule.measured(of, CPU, budget)
    ]
    assert found == [False, False, True, False]
    assert clock[0] <= budget


def test_a_cell_that_takes_longer_than_there_is_time_is_given_up():
    worker, started = schedule._Worker(), time.monotonic()
    found = worker.result(CELL, CPU, 0.2)
    assert [one.note for one in found] == [NO_TIME] * len(METHODS)
    assert worker._process is None
    assert time.monotonic() - started < 20


def test_a_process_that_dies_takes_only_its_cell_along():
    worker = schedule._Worker()

    def kill():
        while not (worker._process and worker._process.pid):
            time.sleep(0.01)
        worker._process.kill()

    threading.Thread(target=kill).start()
    found = worker.result(CELL, CPU, 60)
    assert {one.note for one in found} == {"failed: its process ended"}
    assert worker._process is None  # the next cell has another


def without_memory(for_whom, most=10**6):
    """``make_step`` where memory runs out for some methods, or in larger pieces."""

    def make(method, shape, options, device, piece):
        if method in for_whom or (isinstance(piece, int) and piece > most):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        if method == "broken":
            raise RuntimeError("view size is not compatible\nmore")
        size = piece if isinstance(piece, int) else shape.batch_size
        return Step(lambda: time.sleep(0.002), lambda: size)

    return make


def test_where_memory_runs_out_a_cell_says_so_and_the_others_are_measured(monkeypatch):
    monkeypatch.setattr(cells, "make_step", without_memory({"opacus hooks"}))
    found = {one.method: one for one in cells.measured_cell(CELL, CPU)}
    assert tuple(found) == METHODS
    assert found["opacus hooks"] == Result("opacus hooks", note=OUT_OF_MEMORY)
    assert found["non-private"].speed_ratio == 1
    assert found["fast"].speed_ratio > 0


def test_without_a_plain_step_there_is_speed_and_no_ratio(monkeypatch):
    monkeypatch.setattr(cells, "make_step", without_memory({"non-private"}))
    plain, fast, *_ = cells.measured_cell(CELL, CPU)
    assert plain.note == OUT_OF_MEMORY
    assert fast.images_per_second > 0
    assert fast.speed_ratio is None
    assert fast.memory_ratio is None


def test_memory_that_runs_out_in_the_rounds_is_noticed_too(monkeypatch):
    calls = []

    def make(method, shape, options, device, piece):
        def run():
            calls.append(method)
            if method == "fast" and calls.count("fast") > 5:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            time.sleep(0.02)

        return Step(run, lambda: shape.batch_size)

    monkeypatch.setattr(cells, "make_step", make)
    notes = {one.method: one.note for one in cells.measured_cell(CELL, CPU)}
    assert notes == dict.fromkeys(METHODS, "") | {"fast": OUT_OF_MEMORY}


def test_ghost_clipping_gets_a_piece_of_the_batch_that_fits(monkeypatch):
    monkeypatch.setattr(cells, "make_step", without_memory(set(), most=16))
    assert cells.measured_cell(CELL, CPU)[-1].images_in_a_pass == 16
    monkeypatch.setattr(cells, "make_step", without_memory(set(), most=8))
    assert cells.measured_cell(CELL, CPU)[-1].note == OUT_OF_MEMORY


def test_other_errors_are_noted_in_one_line():
    def broken():
        raise RuntimeError("view size is not compatible\nmore")

    assert cells._tried(broken) == "failed: RuntimeError: view size is not compatible"


def test_ghost_clipping_in_pieces_makes_the_step_of_the_whole_batch(one_thread):
    weights = []
    for piece in (4, 3):
        step = make_step("opacus ghost", Shape(32, 4), Options(), CPU, piece)
        module = step.run.args[0].module
        before = torch.cat([p.detach().flatten().clone() for p in module.parameters()])
        torch.manual_seed(1)
        step.run()
        weights.append(torch.cat([p.detach().flatten() for p in module.parameters()]) - before)
    assert weights[0].norm() > 0
    assert (weights[0] - weights[1]).norm() < 1e-3 * weights[0].norm()


def changed(factor):
    honest = bookkeeping.clip_factors

    def factors(*words):
        own, finite = honest(*words)
        return own * factor, finite

    return factors


@pytest.fixture
def one_kind(monkeypatch, one_thread):
    monkeypatch.setattr(correctness, "NORMS", ("group",))


@pytest.mark.parametrize(
    "setting", [FLOAT32, pytest.param(Setting("bf16"), marks=pytest.mark.slow)], ids=str
)
@pytest.mark.parametrize(
    ("factor", "wrong"),
    [
        (1.0, set()),
        (1.01, {correctness.ALONE, correctness.IN_A_BATCH, correctness.ONE_FEWER}),
        (0.99, {correctness.TOO_LITTLE}),
    ],
)
def test_a_clip_factor_that_is_wrong_by_a_hundredth_is_found(
    one_kind, monkeypatch, setting, factor, wrong
):
    monkeypatch.setattr(bookkeeping, "clip_factors", changed(factor))
    found = {check.what: check.holds for check in correctness.checks(CPU, [setting])}
    if setting.autocast:  # where these have no limit
        wrong = wrong - {correctness.ONE_FEWER, correctness.TOO_LITTLE}
    contributions = {what for what in correctness.CONTRIBUTIONS if not found[what]}
    assert contributions == wrong
    if setting == FLOAT32:
        assert found["norms"] == found["clipped sum"] == (factor == 1)


@pytest.mark.slow
def test_compiled_code_is_checked_too(one_kind):
    setting = Setting("bf16", channels_last=True, compiled=True)
    found = list(correctness.checks(CPU, [setting]))
    assert {check.what for check in found} == {"clipped sum", *correctness.CONTRIBUTIONS}
    assert all(check.holds for check in found)


def test_the_audit_refutes_clipping_to_twice_the_norm(one_thread, monkeypatch):
    assert correctness.audited(CPU).holds
    monkeypatch.setattr(bookkeeping, "clip_factors", changed(2.0))
    assert not correctness.audited(CPU).holds


def test_where_correctness_fails_nothing_else_is_measured(
    called, one_kind, monkeypatch, capsys, tmp_path
):
    monkeypatch.setattr(correctness, "audited", lambda _: Check("ε", "audit", 1.0, 2.0))
    monkeypatch.setattr(command, "settings_of", lambda _: (FLOAT32,))
    monkeypatch.setattr(bookkeeping, "clip_factors", changed(1.01))
    monkeypatch.setattr(whole_run, "run", lambda *_: pytest.fail("went on"))
    assert called("--cpu", "32:4") == 1
    printed = capsys.readouterr()
    assert (
        "error: correctness: float32, group: one example alone, in units of C: 1.01" in printed.err
    )
    assert "nothing else was measured" in printed.err
    written = json.loads((tmp_path / command.OUTPUT).read_text())
    assert written["state"] == "correctness failed"
    assert written["run"] is None
    assert written["cells"] == []
    assert "**Failed**" in (tmp_path / command.OUTPUT).with_suffix(".md").read_text()


def test_a_check_that_breaks_off_is_a_failure(called, quick, monkeypatch, capsys):
    def broken(*_):
        raise RuntimeError("cuDNN: no kernel image is available")

    monkeypatch.setattr(correctness, "audited", broken)
    assert called("--cpu", "32:4") == 1
    assert "cannot be checked: RuntimeError: cuDNN: no kernel image" in capsys.readouterr().err


def test_all_parts_are_written_as_json_and_as_markdown(called, quick, tmp_path, capsys):
    assert called("--cpu", "32:4", "--output", "here.json") == 0
    written = json.loads((tmp_path / "here.json").read_text())
    assert written["state"] == "done"
    assert [check["holds"] for check in written["checks"]] == [True, True]
    run = written["run"]
    assert run["extrapolated_cell_seconds"] == 60 + 48 * 10
    assert run["extrapolated_figure_seconds"] == 14 * (60 + 48 * 10)
    assert [cell["model"] for cell in written["cells"]] == ["resnet18"] * 2 + ["resnet50"] * 2
    markdown = (tmp_path / "here.md").read_text()
    assert "Extrapolated, not measured: 9.0 min for 50 epochs" in markdown
    assert "|  |  |  |  | fast | 60 | 0.70 |" in markdown
    assert "fast" in capsys.readouterr().out


def test_what_was_found_before_an_interruption_is_kept(called, quick, monkeypatch, tmp_path):
    whole = schedule.measured

    def interrupted(*words):
        yield next(whole(*words))
        raise KeyboardInterrupt

    monkeypatch.setattr(schedule, "measured", interrupted)
    assert called("--cpu", "32:4") == 130
    written = json.loads((tmp_path / command.OUTPUT).read_text())
    assert written["state"] == "interrupted"
    assert len(written["cells"]) == 1


@pytest.mark.slow
def test_a_whole_run_that_fails_or_takes_too_long_is_noted(tmp_path):
    (tmp_path / "train").mkdir()
    failed = whole_run.run(CPU, tmp_path, Shape(32, 4), 120)
    assert failed.note.startswith("failed: ")
    assert "no images" in failed.note
    assert failed.figure_seconds is None
    late = whole_run.run(CPU, None, Shape(32, 4), 0.1)
    assert late.note == "not measured: took more than 0 s"


@pytest.mark.slow
def test_everything_runs_on_a_cpu_at_tiny_sizes(place):
    done = place.run(
        *("--gpu", "--cpu", "32:2", "--minutes", "3", "--output", "gpu.json"),
        command=("-m", "dpmi.bench"),
    )
    assert done.returncode == 0, done.stderr
    assert place.files(place.cwd) == {"gpu.json", "gpu.md"}
    written = json.loads((place.cwd / "gpu.json").read_text())
    assert written["state"] == "done"
    assert all(check["holds"] for check in written["checks"])
    assert written["run"]["seconds"] > written["run"]["timings"]["train"] > 0
    methods = {one["method"] for cell in written["cells"] for one in cell["results"]}
    assert methods == set(METHODS)
    first = written["cells"][0]["results"]
    assert [one["method"] for one in first] == ["non-private", "fast"]
    assert all(one["images_per_second"] > 0 and one["peak_mb"] > 0 for one in first)
