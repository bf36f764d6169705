"""What is on a card, and what is not: of public records alone."""

import json
import shutil

from dpmi.card import main
from dpmi.cards.checks import verify
from dpmi.cards.rendering import read_card
from dpmi.run.records.reading import read_public_record


def card_of(folder):
    return read_card(folder / "card.json")[0]


def test_a_card_holds_the_public_record_and_nothing_of_the_private_one(runs, tmp_path):
    """It is the same, but for its time, where the private record is not there at all."""
    for name in ("dpsgd", "own"):
        copy = tmp_path / name
        copy.mkdir()
        for file in ("public.json", "model.safetensors"):
            shutil.copy(runs[name] / file, copy / file)
        cache = json.loads((runs[name] / "record.json").read_text())["config"]["cache_dir"]
        assert main([str(copy), "--cache", cache]) == 0
        with_record, without = card_of(runs[name]), card_of(copy)
        assert with_record.record == without.record == read_public_record(copy / "public.json")
        times = {"made": "", "digest": ""}
        others = with_record.others.model_copy(update={"at": without.others.at})
        found = with_record.model_copy(update=times | {"others": others})
        assert found == without.model_copy(update=times)


def test_a_record_of_before_there_were_bounds_on_an_attacker_is_refused(runs, tmp_path, capsys):
    values = json.loads((runs["dpsgd"] / "public.json").read_text())
    (tmp_path / "public.json").write_text(json.dumps(values | {"risk": []}))
    assert main([str(tmp_path)]) == 2
    assert "older version" in capsys.readouterr().err
    assert len(list(tmp_path.iterdir())) == 1


def test_plan_and_ledger_of_a_users_own_data_leave_by_choice_alone(runs, tmp_path):
    assert not card_of(runs["own"]).record.executed
    text = (runs["own"] / "card.md").read_text()
    assert "ε cannot be recomputed from the card alone" in text
    assert "expected_batch_size" not in text
    assert main([str(runs["own"]), "--with-ledger", "--out", str(tmp_path)]) == 0
    chosen = card_of(tmp_path)
    assert chosen.ledger_by_choice
    assert chosen.record.executed["plan"]["expected_batch_size"] == 13
    assert "it reveals the batch size" in (tmp_path / "card.md").read_text()
    verified = verify(tmp_path / "card.html", runs["own"] / "model.safetensors")
    assert verified.holds
    assert "ledger has the plan's steps" in {
        c.name for c in verified.checks if c.status == "passed"
    }


def test_what_else_was_released_is_the_accounts_total_or_not_known(runs, tmp_path):
    found = card_of(runs["dpsgd"]).others
    assert found.runs >= 5
    assert any("LDP" in line for line in found.says)
    assert found.epsilon is None  # beside a run without any mechanism
    assert main([str(runs["dpsgd"]), "--cache", str(tmp_path), "--out", str(tmp_path)]) == 0
    assert card_of(tmp_path).others is None
    assert "not known: the account" in (tmp_path / "card.md").read_text()


def test_the_intended_use_is_the_users_and_the_limits_stay(runs, tmp_path):
    text = "A <b>trial</b> --> of our\nown | kind"
    assert main([str(runs["none"]), "--intended-use", text, "--out", str(tmp_path)]) == 0
    page = (tmp_path / "card.html").read_text()
    assert "A &lt;b&gt;trial&lt;/<wbr>b&gt; --&gt; of our own | kind" in page
    assert "Not a medical device" in page
    for kind in ("html", "md", "json"):
        assert verify(tmp_path / f"card.{kind}", runs["none"] / "model.safetensors").holds


def test_accuracy_has_the_interval_of_the_report(runs):
    from dpmi.reporting.intervals import over_images

    card = card_of(runs["dpsgd"])
    (share,) = card.shares
    interval = over_images(card.record.metrics["test_images/accuracy"], 30)
    assert (share.low, share.high, share.images) == (interval.low, interval.high, 30)
