import pytest
from wandb_server import WandbServer

from dpmi.wandb_sync import main, offline_runs


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    """Two offline runs that W&B itself wrote, and no account."""
    import wandb

    for variable in ("WANDB_CACHE_DIR", "WANDB_DATA_DIR", "WANDB_ARTIFACT_DIR"):
        monkeypatch.setenv(variable, str(tmp_path / "cache"))
    for name in ("a", "b"):
        (tmp_path / "sweep" / name).mkdir(parents=True)
        run = wandb.init(
            project="dpmi", dir=str(tmp_path / "sweep" / name), mode="offline",
            settings=wandb.Settings(silent=True, console="off", reinit="create_new"),
        )  # fmt: skip
        run.log({"test/accuracy": 0.5})
        run.finish()
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # a closed port
    return tmp_path / "sweep"


def mark(run):
    """What `wandb sync` leaves beside a run that it pushed."""
    (file,) = run.glob("*.wandb")
    file.with_name(f"{file.name}.synced").touch()


def test_runs_are_pushed_once_however_often_the_command_is_given(sweep, capsys):
    runs = offline_runs([sweep, sweep])
    assert len(runs) == 2
    for run in runs:
        mark(run)
    assert main([str(sweep)]) == 0
    assert "2 offline runs, 2 pushed before; nothing to push" in capsys.readouterr().out


def test_without_credentials_nothing_is_tried_and_a_line_says_so(sweep, capsys):
    mark(offline_runs([sweep])[0])
    assert main([str(sweep)]) == 2
    printed = capsys.readouterr().err
    assert "2 offline runs, 1 pushed before, but no W&B credentials" in printed


def test_a_server_out_of_reach_leaves_the_runs_to_be_pushed_later(sweep, capsys, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    assert main([str(sweep)]) == 2
    assert "the W&B server does not answer" in capsys.readouterr().err
    assert not list(sweep.rglob("*.synced"))


def account(monkeypatch, server):
    monkeypatch.setenv("WANDB_BASE_URL", server.url)
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)


def test_what_the_server_refuses_is_reported_as_not_pushed(sweep, capsys, monkeypatch):
    with WandbServer(refuses=True) as server:
        account(monkeypatch, server)
        assert main([str(sweep)]) == 1
    printed = capsys.readouterr()
    assert "2 offline runs, 0 pushed before, 0 pushed now, 2 not" in printed.out
    for run in offline_runs([sweep]):
        assert f"not pushed: {run}" in printed.err


def test_runs_are_pushed_at_the_same_time_whole_and_once(sweep, capsys, monkeypatch):
    """The server answers neither run before it has heard of both."""
    with WandbServer(at_once=2) as server:
        account(monkeypatch, server)
        assert main([str(sweep)]) == 0
        assert "2 offline runs, 0 pushed before, 2 pushed now, 0 not" in capsys.readouterr().out
        assert server.came_together
        names = {run.name.split("-")[-1] for run in offline_runs([sweep])}
        assert server.runs == set(server.lines) == names
        for lines in server.lines.values():
            assert [line["test/accuracy"] for line in lines] == [0.5]
        server.runs.clear()
        assert main([str(sweep)]) == 0
        assert "2 pushed before; nothing to push" in capsys.readouterr().out
        assert server.runs == set()


def test_a_folder_without_offline_runs_has_nothing_to_push(tmp_path, capsys):
    assert main([str(tmp_path)]) == 0
    assert "0 offline runs" in capsys.readouterr().out
