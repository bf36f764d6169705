"""Weights that a run left carry what was taken for them to who goes on with them."""

import json
import math

import pytest
import safetensors
import torch
from hydra import compose, initialize_config_dir
from rich.console import Console

from dpmi.base.errors import UserError
from dpmi.config.folder import config_dir
from dpmi.config.schema import load_config
from dpmi.models.weights import read_state_dict, read_weights, write_state_dict
from dpmi.privacy.account import Accounts
from dpmi.privacy.accounting import epsilon
from dpmi.privacy.spending import LedgerEntry, Spending
from dpmi.run.first_weights import Provenance, Share, Start
from dpmi.run.job import Run

pytestmark = pytest.mark.usefixtures("one_thread")
DPSGD = ("mechanism=dpsgd", "mechanism.accountant=rdp", "mechanism.delta=1e-4")
PUBLIC = "the weights before training come from public data"


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def train(tiny, base):
    """Run a job to its end; returns its record and the file of its weights."""

    def job(*words):
        overrides = [*tiny, f"cache_dir={base / 'cache'}", *words]
        with initialize_config_dir(config_dir(), version_base="1.3"):
            config = load_config(compose("config", overrides=overrides))
        (folder := base / str(len(list(base.iterdir())))).mkdir()
        record = Run(config, folder, Console(quiet=True)).execute()
        return record, folder / "model.safetensors"

    return job


@pytest.fixture(scope="module")
def private(train):
    return train(*DPSGD)


@pytest.fixture(scope="module")
def plain(train):
    return train("mechanism=none")


@pytest.fixture(scope="module")
def noised(train):
    return train("mechanism=ldp")


def ledger(record):
    return [LedgerEntry(**entry) for entry in record.mechanism["ledger"]]


def test_a_run_on_the_same_images_states_the_epsilon_of_both(train, private):
    first, file = private
    record, again = train(*DPSGD, f"model.weights={file}", "seed=2")
    both = epsilon([*ledger(first), *ledger(record)], 1e-4, "rdp")
    assert record.guarantee.epsilon == both > first.guarantee.epsilon
    assert record.curves["epsilon"][-1] == both
    assert record.account.before == (first.account.spending,)
    assert any("took from the same images" in words for words in record.guarantee.assumptions)
    assert PUBLIC not in record.guarantee.assumptions
    third, _ = train(*DPSGD, f"model.weights={again}", "seed=3")  # and so on
    assert third.guarantee.epsilon == epsilon(
        [*ledger(first), *ledger(record), *ledger(third)], 1e-4, "rdp"
    )
    assert len(third.account.before) == 2


def test_a_budget_of_the_run_counts_what_its_weights_took(train, private):
    _, file = private
    record, _ = train(*DPSGD, f"model.weights={file}", "seed=4", "privacy.max_epsilon=1.1")
    assert "was reached after" in record.stopped
    assert record.guarantee.epsilon <= 1.1
    (entry,) = ledger(record)
    one_more = LedgerEntry(entry.noise_multiplier, entry.sample_rate, entry.steps + 1)
    assert epsilon([*ledger(private[0]), one_more], 1e-4, "rdp") > 1.1


def test_images_in_common_are_enough_to_compose(train, private):
    first, file = private
    record, _ = train(*DPSGD, f"model.weights={file}", "data.train_images=61")
    assert record.guarantee.epsilon == epsilon([*ledger(first), *ledger(record)], 1e-4, "rdp")


@pytest.mark.parametrize("mechanism", ["mechanism=dpsgd", "mechanism=ldp"])
def test_weights_without_any_epsilon_are_refused_on_the_same_images(train, plain, base, mechanism):
    _, file = plain
    before = Accounts(base / "cache").read()
    record, _ = train(mechanism, f"model.weights={file}")
    assert record.status == "failed"
    assert f"model.weights={file}: was trained on some of the same images without any ε" in (
        record.reason
    )
    assert "\n" not in record.reason
    assert Accounts(base / "cache").read() == before


def test_a_run_that_promises_nothing_may_start_from_them(train, plain):
    first, file = plain
    record, _ = train("mechanism=none", f"model.weights={file}", "seed=2")
    assert record.status == "completed"
    assert record.account.before == (first.account.spending,)


def test_on_other_images_a_run_states_what_the_weights_carry_of_theirs(train, private, plain):
    _, file = private
    record, _ = train(*DPSGD, f"model.weights={file}", "data.seed=8")
    assert record.guarantee.epsilon == epsilon(ledger(record), 1e-4, "rdp")
    (words,) = [w for w in record.guarantee.assumptions if "of other images" in w]
    assert "per image: 1 run by DP-SGD" in words
    assert record.account.before == ()
    record, _ = train(*DPSGD, f"model.weights={plain[1]}", "data.seed=8")
    (words,) = [w for w in record.guarantee.assumptions if "of other images" in w]
    assert "no ε with phantom_xray-none-seed42" in words


def test_weights_of_noised_images_add_the_epsilon_of_other_releases_alone(train, noised):
    _, file = noised
    same, _ = train("mechanism=ldp", f"model.weights={file}", "seed=2")
    assert same.guarantee.epsilon == 1.0
    other, _ = train("mechanism=ldp", "beta=2", f"model.weights={file}")
    assert other.guarantee.epsilon == 1.5
    assert other.guarantee.image_epsilon == 1.5 * 8 * 8 * 255 / 16  # means of blocks of 4 x 4
    refused, _ = train("mechanism=ldp", "beta=4", f"model.weights={file}", "privacy.max_epsilon=1")
    assert "would spend ε = 1.25 per channel value" in refused.reason


def test_one_epsilon_of_two_units_is_not_stated(train, private, noised):
    record, _ = train(*DPSGD, f"model.weights={noised[1]}")
    assert "on noised ones, by LDP" in record.reason
    record, _ = train("mechanism=ldp", f"model.weights={private[1]}")
    assert "by sums with Gaussian noise, and this run is by ldp" in record.reason


def test_what_a_file_states_is_public_and_verified(private, base):
    record, file = private
    with safetensors.safe_open(file, framework="pt") as opened:
        written = json.loads(opened.metadata()["dpmi"])
    assert written["guarantee"]["epsilon"] == record.guarantee.epsilon
    assert written["guarantee"]["unit"] == "image"
    (share,) = written["taken"]
    assert share["account"] == record.account.id
    assert share["spending"]["ledger"] == record.mechanism["ledger"]
    assert record.data["sha256"] not in json.dumps(written)
    assert not any(digest.hex() in json.dumps(written)
                   for account in Accounts(base / "cache").read()
                   for digest in account.images)  # fmt: skip


def test_weights_that_another_program_wrote_are_taken_to_be_public(train, private, tmp_path):
    state = read_state_dict(private[1])
    torch.save(state, tmp_path / "theirs.pth")
    record, _ = train(*DPSGD, f"model.weights={tmp_path / 'theirs.pth'}")
    assert PUBLIC in record.guarantee.assumptions
    assert record.guarantee.epsilon == epsilon(ledger(record), 1e-4, "rdp")


def test_weights_of_another_version_are_refused_in_one_line(train, private, tmp_path):
    state, metadata = read_weights(private[1])
    file = tmp_path / "later.safetensors"
    write_state_dict(state, file, json.dumps(json.loads(metadata) | {"version": 2}))
    record, _ = train(*DPSGD, f"model.weights={file}")
    assert f"model.weights={file}: its metadata was written by another" in record.reason


@pytest.mark.parametrize(("before", "now"), [("image", "patient"), ("patient", "image")])
def test_weights_that_hid_another_unit_of_the_same_images_are_refused(before, now):
    share = Share(
        account="a", spending=Spending("e", "r", (LedgerEntry(2.0, 0.1, 9),), unit=before)
    )
    start = Start("file", None, Provenance(guarantee={}, taken=(share,)))
    with pytest.raises(UserError, match=f"did not protect the same as this run .{now}s"):
        start.first_weights({"a"}, "dpsgd", now)
    assert start.first_weights({"a"}, "dpsgd", before).ledger == share.spending.ledger
    assert start.first_weights({"other"}, "dpsgd", now).ledger == ()
    assert start.first_weights({"a"}, "none", now).taken


def test_an_infinite_epsilon_is_not_lost_in_the_weights_file():
    stated = Provenance(guarantee={"epsilon": 500.0, "replace_one_epsilon": math.inf}, taken=())
    assert Provenance.model_validate_json(stated.model_dump_json()) == stated
