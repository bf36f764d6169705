import pytest
from wandb_server import WandbServer

from dpmi.dashboard import main
from dpmi.reporting.workspace import dashboard, read_dashboard, to_workspace

pytest.importorskip("wandb_workspaces", reason="the dashboard extra is not installed")


@pytest.fixture(autouse=True)
def no_account(monkeypatch, tmp_path):
    """Neither a key nor a server: what W&B is asked reaches a closed port of this machine."""
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")


def test_without_credentials_the_specification_is_written_and_the_way_to_apply_it_shown(
    tmp_path, capsys
):
    file = tmp_path / "dashboard.json"
    assert main(["--entity", "team", "--project", "lungs", "--out", str(file)]) == 0
    printed = capsys.readouterr().out
    assert "no W&B credentials" in printed
    command = f"python -m dpmi.dashboard --entity team --project lungs --apply {file}"
    assert command in printed
    assert read_dashboard(file) == dashboard()


def test_what_is_written_makes_a_workspace_with_every_panel(tmp_path):
    file = tmp_path / "dashboard.json"
    main(["--out", str(file)])
    spec = read_dashboard(file)
    workspace = to_workspace(spec, "team", "lungs")
    assert [section.name for section in workspace.sections] == [
        *("Trade-off", "Learning curves", "Privacy spent", "Images before and after noise", "Runs")
    ]
    counts = [len(section.panels) for section in workspace.sections]
    assert counts == [len(section.panels) for section in spec.sections]
    sent = workspace._to_model().model_dump_json()  # what W&B would be sent
    for panel in (panel for section in spec.sections for panel in section.panels):
        named = panel.title if panel.kind != "runs" else "Run Comparer"  # which has no title
        assert named in sent
        assert all(key in sent for key in panel.y)


def test_the_dashboard_asks_for_what_runs_log(real_records):
    """A panel of a metric that no run has would stay empty."""
    summaries, logged = set(), {"nonprivate/step_time", "nonprivate/loss", "samples"}
    for run in real_records[0]:
        summaries |= run.metrics.keys() | {f"guarantee.{k}" for k in run.guarantee.to_dict()}
        logged |= run.curves.keys()
    graded = {"test/kappa"}  # of ordered classes, which no quick phantom has
    for panel in (panel for section in dashboard().sections for panel in section.panels):
        if panel.kind in ("scatter", "bars"):
            assert set(panel.y) - graded <= summaries
            assert panel.x is None or panel.x in summaries
        else:
            assert set(panel.y) <= logged
    for column in dashboard().columns:
        kind, key = column.split(":")
        assert kind == "config" or key in summaries


def test_a_server_out_of_reach_loses_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    file = tmp_path / "dashboard.json"
    assert main(["--entity", "team", "--out", str(file)]) == 0
    assert "the W&B server does not answer" in capsys.readouterr().out
    assert read_dashboard(file) == dashboard()


def test_a_written_specification_is_saved_where_there_is_a_server(tmp_path, capsys, monkeypatch):
    file = tmp_path / "dashboard.json"
    main(["--entity", "team", "--project", "lungs", "--out", str(file)])
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    with WandbServer() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        assert main(["--project", "lungs", "--apply", str(file)]) == 0  # of the account's entity
    (saved,) = server.views
    named = [section["name"] for section in saved["section"]["panelBankConfig"]["sections"]]
    assert [section.name for section in dashboard().sections] == named[:5]
    assert f"saved: {server.url}/team/lungs?nw=" in capsys.readouterr().out


@pytest.mark.parametrize("text", [None, "{", '{"name": 1}'], ids=["absent", "no JSON", "other"])
def test_what_is_no_specification_is_refused_by_name(tmp_path, capsys, text):
    file = tmp_path / "other.json"
    if text is not None:
        file.write_text(text)
    assert main(["--apply", str(file)]) == 2
    assert str(file) in capsys.readouterr().err
