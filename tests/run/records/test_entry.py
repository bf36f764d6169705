"""What runs that are killed, refused, superseded or complete leave in the account."""

import json
import os
import signal
import time

import dp_accounting
import job_processes
import pytest
from dp_accounting import pld

from dpmi.privacy.account import Accounts, total_of
from dpmi.privacy.journal import AHEAD, read_journal
from dpmi.run.records.reading import read_record

RUN = ("trainer.max_epochs=2", "trainer.checkpoint_seconds=0")
DPSGD_OF_BETA = (*RUN, "mechanism=dpsgd", "mechanism.accountant=rdp")
# Noise that is given: to search for it takes longer than to train.
DPSGD = (*DPSGD_OF_BETA, "mechanism.calibration=noise_multiplier", "beta=2.5")
STEPS = 12
# Of runs that nothing kills.
RARELY = "trainer.checkpoint_seconds=1000"


@pytest.fixture
def words(tiny, tmp_path):
    return lambda *its: (*tiny, *its, f"cache_dir={tmp_path / 'cache'}")


@pytest.fixture
def accounts(tmp_path):
    return Accounts(tmp_path / "cache")


def steps(spending):
    return sum(entry.steps for entry in spending.ledger)


def killed_when(reached, folder, *words, number=signal.SIGKILL):
    """Start the job, and kill it as soon as something is so."""
    process = job_processes.start(folder, *words)
    while process.is_alive() and not reached():
        time.sleep(0.001)
    os.kill(process.pid, number)
    process.join(600)
    return process.exitcode


def latest(folder):
    return max((int(p.name.split("-")[1]) for p in folder.glob("checkpoints/*.ckpt")), default=0)


def test_a_run_is_one_entry_reserved_by_its_plan_and_then_what_it_took(words, accounts, tmp_path):
    """Killed between the reservation and the first release, resumed, and completed."""
    folder, command = tmp_path / "job", words(*DPSGD)
    entered = lambda: any(account.entries for account in accounts.read())  # noqa: E731
    assert killed_when(entered, folder, *command) == -signal.SIGKILL
    (account,) = accounts.read()
    (entry,) = account.entries.values()
    assert (entry.status, steps(entry.spending)) == ("reserved", STEPS)
    assert not (folder / "journal.jsonl").exists()
    assert job_processes.run(folder, *command, RARELY) == 0
    (again,) = accounts.read()
    (settled,) = again.entries.values()
    assert (again.id, settled.spending.entry) == (account.id, entry.spending.entry)
    record = read_record(folder / "record.json")
    assert settled.status == record.status == "completed"
    assert settled.spending == record.account.spending
    assert record.account.id == account.id
    assert [entry["steps"] for entry in record.mechanism["ledger"]] == [STEPS]
    assert steps(settled.spending) == STEPS
    assert not (folder / "entry.json").exists()


def test_a_killed_run_stays_at_its_plan_and_superseded_at_what_its_journal_states(
    words, accounts, tmp_path
):
    folder, command = tmp_path / "job", words(*DPSGD)
    killed_when(lambda: latest(folder) >= 3, folder, *command)
    ((killed,),) = [account.entries.values() for account in accounts.read()]
    assert (killed.status, steps(killed.spending)) == ("reserved", STEPS)
    journal = max(r.last for r in read_journal(folder / "journal.jsonl"))
    done = latest(folder)
    assert job_processes.run(folder, *command, "rerun=true", RARELY) == 0
    (account,) = accounts.read()
    old, new = account.entries.values()
    assert (old.status, new.status) == ("superseded", "completed")
    assert done <= steps(old.spending) == journal <= done + AHEAD
    record = read_record(folder / "record.json")
    assert record.account.superseded == (old.spending,)
    assert record.account.spending == new.spending
    assert steps(new.spending) == STEPS
    printed = " ".join(job_processes.printed(folder).split())
    assert f"may have released {journal} noised gradients before it" in printed
    both = total_of([account])
    assert both.models_epsilon == pytest.approx(composed(old.spending, new.spending), abs=1e-3)
    assert both.models_epsilon > record.guarantee.epsilon


def composed(*spendings):
    accountant = pld.PLDAccountant(dp_accounting.NeighboringRelation.REPLACE_SPECIAL)
    for entry in (entry for spending in spendings for entry in spending.ledger):
        gaussian = dp_accounting.GaussianDpEvent(entry.noise_multiplier)
        sampled = dp_accounting.PoissonSampledDpEvent(entry.sample_rate, gaussian)
        accountant.compose(dp_accounting.SelfComposedDpEvent(sampled, entry.steps))
    return accountant.get_epsilon(spendings[0].delta)


def test_keys_and_checkpoints_of_superseded_attempts_are_destroyed(words, accounts, tmp_path):
    """Also of one whose key was lost; and what they may have taken is still counted."""
    folder, command = tmp_path / "job", words(*DPSGD)
    killed_when(lambda: latest(folder) >= 2, folder, *command)
    key = json.loads((folder / "resume.json").read_text())["noise_key"]
    (folder / "resume.json").unlink()
    shelf = folder / "superseded" / "1" / "entry.json"
    killed_when(lambda: shelf.exists() and latest(folder) >= 2, folder, *command)
    again = json.loads((folder / "resume.json").read_text())["noise_key"]
    assert job_processes.run(folder, *command, "rerun=true", RARELY) == 0
    for path in folder.rglob("*"):
        assert path.suffix != ".ckpt"
        assert path.name not in ("resume.json", "checkpoints")
        content = path.read_bytes().decode("latin-1") if path.is_file() else ""
        assert key not in content
        assert again not in content
    record = read_record(folder / "record.json")
    assert [steps(s) >= 2 for s in record.account.superseded] == [True, True]
    (account,) = accounts.read()
    assert [e.status for e in account.entries.values()] == [*["superseded"] * 2, "completed"]


def test_a_run_that_ends_early_counts_what_an_attempt_before_it_may_have_released(words, tmp_path):
    """Resumed from its start, it is stopped before it comes to where the first was killed."""
    folder = tmp_path / "job"
    command = words(*DPSGD, RARELY, "trainer.max_epochs=20")
    journal = folder / "journal.jsonl"
    killed_when(lambda: len(read_journal(journal)) > 3, folder, *command)
    released = max(r.last for r in read_journal(journal))
    before = journal.stat().st_size
    status = killed_when(
        lambda: journal.stat().st_size > before, folder, *command, number=signal.SIGTERM
    )
    assert status == 75
    record = read_record(folder / "record.json")
    assert steps(record.account.spending) == released
    assert latest(folder) < released
    assert record.mechanism["lost_steps"] == released - latest(folder)


def test_every_kind_of_run_is_entered_with_its_epsilon_or_why_it_has_none(
    words, accounts, tmp_path
):
    kinds = {
        "none": ("mechanism=none",),
        "ldp": ("mechanism=ldp", "beta=2"),
        "seeded": (*DPSGD, "trainer.max_epochs=1", "noise_seed=3", RARELY),
        "published": ("mechanism=ldp_published",),
    }
    took = {}
    for name, its in kinds.items():
        assert job_processes.run(tmp_path / name, *words(*its)) == 0
        took[name] = read_record(tmp_path / name / "record.json").account.spending
    (account,) = accounts.read()
    assert {s.entry for s in took.values()} == set(account.entries)
    assert {e.status for e in account.entries.values()} == {"completed"}
    assert "without any mechanism" in took["none"].reason
    assert (took["ldp"].value_epsilon, took["ldp"].reason) == (0.5, None)
    assert took["ldp"].image_epsilon == 0.5 * 8 * 8 * 255 / 16  # means of blocks of 4 x 4
    assert "noise_seed" in took["seeded"].reason
    assert took["published"].reason


def test_other_preprocessing_labels_and_splits_of_the_same_images_share_what_they_spend(
    words, accounts, tmp_path
):
    plain = ("mechanism=ldp",)
    others = [("data.image_size=48",), ("data.train_images=61",), ("data.batch_size=7",)]
    for number, its in enumerate([(), *others]):
        assert job_processes.run(tmp_path / str(number), *words(*plain, *its)) == 0
    first, size, more, batch = (
        read_record(tmp_path / str(n) / "record.json").account for n in range(4)
    )
    assert first.id == size.id == batch.id
    assert more.id != first.id
    assert more.overlaps == (first.id,)
    assert batch.spending == first.spending  # one release of the same pixels
    assert total_of(accounts.read()).releases_epsilon == 3


def test_a_run_on_noised_images_that_are_released_already_passes_no_budget(
    words, accounts, tmp_path
):
    command = words("mechanism=ldp", "privacy.max_total_epsilon=1")
    for number in range(2):
        assert job_processes.run(tmp_path / str(number), *command, f"seed={number}") == 0
    assert job_processes.run(tmp_path / "other", *command, "data.image_size=48") == 1
    record = read_record(tmp_path / "other" / "record.json")
    assert "would spend ε = 2 per channel value" in record.reason
    assert len(list((tmp_path / "cache" / "releases").glob("*/pixels.npy"))) == 1
    (account,) = accounts.read()
    assert len(account.entries) == 1


def test_a_run_that_would_pass_the_budget_of_all_is_refused_before_its_first_step(
    words, accounts, tmp_path
):
    budget = "privacy.max_total_epsilon=1.05"  # one at ε = 1, and not two
    command = words(*DPSGD_OF_BETA, "trainer.max_epochs=1", RARELY, budget)
    assert job_processes.run(tmp_path / "one", *command) == 0
    assert job_processes.run(tmp_path / "two", *command, "seed=2") == 1
    record = read_record(tmp_path / "two" / "record.json")
    assert record.reason.startswith("privacy.max_total_epsilon=1.05: with this run, all runs on")
    assert record.account is None
    assert not (tmp_path / "two" / "journal.jsonl").exists()
    assert not (tmp_path / "two" / "entry.json").exists()
    (account,) = accounts.read()
    assert len(account.entries) == 1
    allowed = [w for w in command if w != budget]
    assert job_processes.run(tmp_path / "two", *allowed, "seed=2") == 0
