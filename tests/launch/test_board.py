import io
import re
from types import SimpleNamespace

import pytest
from rich.console import Console

from dpmi.launch.board import Board
from dpmi.launch.jobs import Ending
from dpmi.privacy.guarantee import printed_epsilon
from dpmi.run.screen.status import RunStatus

CELLS = (
    "none seed=42", "ldp β=0.25 seed=43", "dpsgd_published β=0.25 seed=44", "chest_xray dpsgd β=4",
)  # fmt: skip
TRAINING = RunStatus(
    phase="training", pid=1, host="node-17", device="gpu 3", epoch=3, epochs=50, epochs_done=2,
    latest=0.912, of="val", epsilon=0.53213, unit="image", seconds_left=3723.4,
)  # fmt: skip


def jobs(tmp_path, labels=CELLS):
    config = SimpleNamespace(hydra=SimpleNamespace(sweep=SimpleNamespace(dir="outputs/sweep")))
    for number in range(len(labels)):
        (tmp_path / str(number)).mkdir()
    return [
        SimpleNamespace(number=n, label=label, folder=tmp_path / str(n), config=config)
        for n, label in enumerate(labels)
    ]


def terminal(width=80, height=24):
    """A terminal that does not understand control codes: what is shown is what is written."""
    return Console(
        file=io.StringIO(), width=width, height=height, force_terminal=True, color_system=None,
        legacy_windows=False,
    )  # fmt: skip


def shown(console):
    text = console.file.getvalue()
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text.split("\x1b[1A")[-1])


@pytest.mark.parametrize("width", [80, 120])
def test_the_board_fits_the_terminal_and_shows_all_of_a_running_job(tmp_path, width):
    console = terminal(width)
    with Board(all_jobs := jobs(tmp_path), console) as board:
        for job in all_jobs:
            board.started(job, None)
            TRAINING.write(job.folder)
        board.refresh()
    lines = shown(console).splitlines()
    assert max(len(line) for line in lines) <= width
    assert "4 running" in lines[0]
    rows = [line for line in lines if "node-17" in line]
    for job, line in zip(all_jobs, rows, strict=True):
        for words in ("node-17 gpu 3", "3/50", "91.2% val", "0.533 per image", "1:02:03"):
            assert words in line
        assert line.startswith(job.label if width == 120 else job.label.split()[0])


def test_on_a_low_terminal_the_running_and_the_failed_are_shown_and_all_are_counted(tmp_path):
    console = terminal(height=12)
    many = [f"seed={n}" for n in range(30)]
    with Board(all_jobs := jobs(tmp_path, many), console) as board:
        for job in all_jobs[20:23]:
            board.started(job, "gpu 0")
        board.ended(all_jobs[22], Ending(1, "died", "failed"), None)
        board.refresh()
    text = shown(console)
    assert "2 running, 1 failed, 27 waiting" in text
    for seed in (20, 21, 22):
        assert re.search(rf"seed={seed}\b", text)
    assert len(text.splitlines()) <= 12


def test_without_a_terminal_there_is_a_line_for_the_start_each_epoch_and_the_end(
    tmp_path, real_records
):
    console = Console(file=io.StringIO(), width=80)
    record = next(r for r in real_records[0] if r.config["mechanism"]["name"] == "dpsgd")
    (job,) = jobs(tmp_path, CELLS[1:2])
    with Board([job], console) as board:
        board.started(job, "gpu 3")
        for epoch in (1, 2, 2, 3):
            TRAINING.model_copy(update={"epochs_done": epoch}).write(job.folder)
            board.refresh()
        board.ended(job, Ending(0, result="completed"), record)
    lines = console.file.getvalue().splitlines()
    assert lines[0] == "1 jobs in outputs/sweep"
    assert lines[1] == f"{job.label}  started on gpu 3"
    assert [line.split("  ")[1] for line in lines[2:5]] == [f"epoch {e}/50" for e in (1, 2, 3)]
    assert lines[2].endswith("val accuracy 91.2%  ε 0.533 per image  1:02:03 left")
    assert lines[5].startswith(f"{job.label}  completed: test accuracy ")
    assert str(record.guarantee) in lines[5]
    assert len(lines) == 6


def test_an_accuracy_never_stands_without_its_epsilon(tmp_path, real_records):
    console = terminal(120)
    records = real_records[0]
    all_jobs = jobs(tmp_path, [f"cell {n}" for n in range(len(records))])
    with Board(all_jobs, console) as board:
        for job, record in zip(all_jobs, records, strict=True):
            board.started(job, None)
            board.ended(job, Ending(0, result=record.status), record)
        board.refresh()
    for job, record in zip(all_jobs, records, strict=True):
        (line,) = [line for line in shown(console).splitlines() if f"{job.label} " in line]
        assert f"{record.metrics['test/accuracy']:.1%} test" in line
        promise = record.guarantee
        assert (
            "none" if promise.epsilon is None else f"{printed_epsilon(promise.epsilon)} per"
        ) in line


def test_what_a_job_left_before_this_sweep_is_not_taken_for_news(tmp_path):
    console = Console(file=io.StringIO())
    (job,) = jobs(tmp_path, CELLS[:1])
    with Board([job], console) as board:
        TRAINING.write(job.folder)
        board.refresh()  # it waits still
        assert board.rows[0].status is None
        assert board.rows[0].state == "waiting"
