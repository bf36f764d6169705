"""Forged cards: whatever was changed, and however well the rest was made to fit."""

import json
import math
import shutil

import pytest

from dpmi.cards.check import near
from dpmi.cards.checks import file_checks, verify
from dpmi.cards.rendering import read_card
from dpmi.cards.wording import shares
from dpmi.privacy.accounting import epsilon
from dpmi.privacy.risk import risks
from dpmi.privacy.spending import LedgerEntry
from dpmi.run.records.public import PublicRecord


def failed(verified):
    return {check.name for check in verified.checks if check.status == "failed"}


@pytest.mark.parametrize("suffix", ["html", "md", "json"])
@pytest.mark.parametrize(
    "name", ["dpsgd", "ldp", "none", "ldp_published", "dpsgd_published", "own"]
)
def test_a_card_of_a_real_run_holds(runs, name, suffix):
    verified = verify(runs[name] / f"card.{suffix}", runs[name] / "model.safetensors")
    assert failed(verified) == set()
    assert verified.holds


def test_epsilon_is_recomputed_by_both_accountants_at_each_delta_of_the_card(runs):
    verified = verify(runs["dpsgd"] / "card.md", runs["dpsgd"] / "model.safetensors")
    proven = [
        check for check in verified.checks if check.name.startswith("ε is not below the truth")
    ]
    assert [check.name.rpartition(" ")[2] for check in proven] == ["1e-3", "1e-5", "1e-6"]
    assert all("PRV" in check.detail and "PLD" in check.detail for check in proven)


def lower(guarantee):
    guarantee["epsilon"] /= 2
    guarantee["replace_one_epsilon"] /= 2
    guarantee["epsilons"] = {delta: its / 2 for delta, its in guarantee["epsilons"].items()}


def restate(values, metadata=None):
    """Let ε and the bounds on an attacker be those of the forged ledger."""
    record = values["record"]
    guarantee = record["guarantee"]
    entries = [LedgerEntry(**entry) for entry in record["executed"]["ledger"]]
    of = (entries, guarantee["delta"], guarantee["accountant"])
    guarantee["epsilon"] = epsilon(*of)
    guarantee["replace_one_epsilon"] = epsilon(*of, adjacency="replace-one")
    guarantee["epsilons"] = {d: epsilon(entries, float(d), of[2]) for d in guarantee["epsilons"]}
    parsed = PublicRecord.model_validate(record)
    record["risk"] = [one.to_dict() for one in risks(parsed.guarantee, entries)]
    if metadata is not None:
        metadata["guarantee"] = json.loads(json.dumps(guarantee))
        metadata["taken"][-1]["spending"]["ledger"] = record["executed"]["ledger"]


def test_an_epsilon_that_is_lowered_on_card_and_weights_alike_is_not_what_the_ledger_gives(forge):
    found = failed(verify(*forge(
        "dpsgd",
        lambda values: lower(values["record"]["guarantee"]),
        lambda metadata: lower(metadata["guarantee"]),
    )))  # fmt: skip
    for delta in ("1e-3", "1e-5", "1e-6"):
        assert {
            f"ε is what rdp gives, δ = {delta}",
            f"ε is not below the truth, δ = {delta}",
        } <= found
    assert "ε under replace-one is not below the truth" in found


@pytest.mark.parametrize("delta", ["1e-5", "1e-6"])
def test_an_epsilon_is_checked_at_each_delta_alone(forge, delta):
    def change(guarantee):
        guarantee["epsilons"][delta] *= 0.9

    found = failed(verify(*forge(
        "dpsgd",
        lambda values: change(values["record"]["guarantee"]),
        lambda metadata: change(metadata["guarantee"]),
    )))  # fmt: skip
    assert found >= {f"ε is what rdp gives, δ = {delta}"}


def with_ledger(change):
    """A forged ledger, to which all else is made to fit but the weights."""

    def of_values(values):
        change(values["record"]["executed"])
        restate(values)

    return of_values


def test_noise_that_is_raised_everywhere_on_the_card_is_not_that_of_the_weights(forge):
    def change(executed):
        executed["plan"]["noise_multiplier"] *= 2
        executed["ledger"][0]["noise_multiplier"] *= 2

    found = failed(verify(*forge("dpsgd", with_ledger(change))))
    assert "ledger in the weights file is the card's" in found
    assert "noise is calibrated to ε = 1/β" in found


def both(runs, change):
    """Changes of card and weights that fit each other: a forger who has read this file."""
    real, _ = read_card(runs["dpsgd"] / "card.json")
    forged = json.loads(real.as_json())
    stored = {"guarantee": {}, "taken": [{"spending": {}}]}
    change(forged["record"])
    restate(forged, stored)

    def of_values(values):
        weights = values["weights"]
        values.clear()
        values.update(forged | {"weights": weights})

    def of_weights(metadata):
        metadata["guarantee"] = stored["guarantee"]
        metadata["taken"][-1]["spending"] |= stored["taken"][-1]["spending"]

    return of_values, of_weights


def fewer_steps(record):
    record["executed"]["ledger"][0]["steps"] -= 1


def lower_rate(record):
    record["executed"]["ledger"][0]["sample_rate"] /= 2


def lower_rate_of_the_plan_too(record):
    lower_rate(record)
    record["executed"]["plan"]["sample_rate"] /= 2


def more_images(record):
    plan = record["executed"]["plan"]
    plan["n"] *= 2
    plan["sample_rate"] /= 2
    lower_rate(record)


def large_delta(record):
    plan, guarantee = record["executed"]["plan"], record["guarantee"]
    plan["delta"] = guarantee["delta"] = 0.1


def another_beta(record):
    record["config"]["beta"] = 2.0


def lost_steps(record):
    record["executed"]["lost_steps"] = 2


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (fewer_steps, "ledger has the plan's steps"),
        (lost_steps, "ledger has the plan's steps"),
        (lower_rate, "ledger has no noise and no rate but the plan's"),
        (lower_rate_of_the_plan_too, "rate is batch/n, sensitivity that of the norm"),
        (more_images, "batch, steps and norm of the config"),
        (more_images, "n of the plan is that of the assumptions"),
        (large_delta, "plan is possible"),
        (another_beta, "noise is calibrated to ε = 1/β"),
    ],
)
def test_a_ledger_must_be_that_of_plan_and_config_though_card_and_weights_agree(
    runs, forge, change, name
):
    assert name in failed(verify(*forge("dpsgd", *both(runs, change))))


def test_delta_is_held_against_the_number_of_images_though_there_is_no_plan(forge):
    def change(guarantee):
        guarantee["delta"] = 0.5

    found = failed(verify(*forge(
        "own",
        lambda values: change(values["record"]["guarantee"]),
        lambda metadata: change(metadata["guarantee"]),
    )))  # fmt: skip
    assert "δ is below 1/n" in found


def test_a_run_that_was_invented_whole_is_not_detected_as_the_list_says(runs, forge, capsys):
    def change(record):
        record["config"]["trainer"]["max_epochs"] = 1
        record["executed"]["plan"]["steps"] //= 2
        record["executed"]["ledger"][0]["steps"] //= 2
        entry = LedgerEntry(**record["executed"]["ledger"][0])
        guarantee = record["guarantee"]
        record["config"]["beta"] = 1 / epsilon([entry], guarantee["delta"], guarantee["accountant"])

    from dpmi.verify import main

    card, weights = forge("dpsgd", *both(runs, change))
    assert main([str(card), str(weights)]) == 0
    assert "that the ledger was executed" in capsys.readouterr().out


def more_accurate(values):
    record = values["record"]
    record["metrics"]["test_images/accuracy"] = 0.9
    parsed = PublicRecord.model_validate(record)
    values["shares"] = [share.model_dump() for share in shares(parsed)]


def safer(values):
    values["record"]["risk"][0]["accuracy"] = 0.51


def unknown(values):
    values["record"]["risk"][0]["advantage"] = "NaN"


def flatter(values):
    values["record"]["risk"][0]["curve"][3][1] /= 2


def narrower(values):
    values["shares"][0]["low"] += 0.01


def local(values):
    values["trust"] = "local"


def a_device(values):
    values["limits"] = values["limits"][1:]


def impossible(values):
    values["record"]["metrics"]["test_images/auroc"] = 1.2


def better_calibrated(values):
    values["record"]["metrics"]["test_images/ece"] = 0.001


def without_strict_deltas(values):
    values["record"]["guarantee"]["epsilons"] = {}


def nothing_else(values):
    guarantee = values["record"]["guarantee"]
    values["others"] |= {key: guarantee[key] for key in ("delta", "unit")} | {"epsilon": 0.1}


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (more_accurate, "accuracy is that of the reliability diagram"),
        (better_calibrated, "calibration error is that of the diagram"),
        (impossible, "metrics are in their range"),
        (narrower, "intervals as recomputed"),
        (safer, "bounds on an attacker follow from the releases"),
        (unknown, "bounds on an attacker follow from the releases"),
        (flatter, "bounds on an attacker follow from the releases"),
        (local, "trust model, mechanism, sensitivity, limits"),
        (a_device, "trust model, mechanism, sensitivity, limits"),
        (without_strict_deltas, "states ε at the stricter δ"),
        (nothing_else, "total of the account is not below this run's ε"),
    ],
)
def test_what_follows_from_the_rest_is_recomputed(forge, change, name):
    assert name in failed(verify(*forge("dpsgd", change)))


def audit(values, bound, refuted=False):
    guarantee = values["record"]["guarantee"]
    values["record"]["audit"] = {
        "lower_bound": bound, "method": "a", "refuted": refuted, "claimed": guarantee["epsilon"],
        "delta": guarantee["delta"], "unit": guarantee["unit"], "confidence": 0.95, "canaries": 100,
        "bounds": {"a": {"epsilon": bound, "assumes": "", "claimed": None}}, "runs": 1,
        "says": f"audited: ε ≥ {bound:.3g} (95 %)",
    }  # fmt: skip


def test_an_audit_that_refutes_the_claim_is_an_error_whatever_its_label(forge):
    name = "audit does not refute the claim"
    assert name not in failed(verify(*forge("dpsgd", lambda values: audit(values, 0.2))))
    assert name in failed(verify(*forge("dpsgd", lambda values: audit(values, 5.0))))


def test_a_bound_of_an_audit_is_of_a_claim_of_the_card(forge):
    def change(values):
        audit(values, 5.0)
        values["record"]["audit"]["bounds"]["a"]["claimed"] = 9.0

    found = failed(verify(*forge("dpsgd", change)))
    assert "each bound of the audit is compared with a claim of the card" in found


def test_noised_images_have_the_epsilon_of_beta_and_of_the_release_in_the_weights(forge):
    def change(values):
        guarantee, record = values["record"]["guarantee"], values["record"]
        record["config"]["beta"] *= 2
        for key in ("epsilon", "image_epsilon", "replace_one_epsilon"):
            guarantee[key] /= 2
        guarantee["epsilons"] = {d: its / 2 for d, its in guarantee["epsilons"].items()}
        parsed = PublicRecord.model_validate(record)
        record["risk"] = [one.to_dict() for one in risks(parsed.guarantee)]

    found = failed(verify(*forge("ldp", change)))
    assert "ε adds up from the releases in the weights file" in found
    assert "ε of an image adds up likewise" in found


@pytest.mark.parametrize("name", ["none", "dpsgd_published"])
def test_a_run_without_guarantee_cannot_be_given_one(runs, forge, name):
    other = json.loads(read_card(runs["dpsgd"] / "card.json")[0].as_json())["record"]["guarantee"]

    def change(values):
        values["record"]["guarantee"] = other | {"mechanism": name}

    def metadata(stored):
        stored["guarantee"] = other | {"mechanism": name}

    assert "config allows a guarantee" in failed(verify(*forge(name, change, metadata)))


def test_weights_of_another_run_are_not_those_of_the_card(runs):
    found = failed(verify(runs["dpsgd"] / "card.html", runs["none"] / "model.safetensors"))
    assert {"SHA-256 of the weights", "guarantee in the weights file is the card's"} <= found


def test_a_byte_of_the_weights_that_is_changed_is_found(runs, tmp_path):
    card, _ = read_card(runs["dpsgd"] / "card.json")
    spoilt = tmp_path / "model.safetensors"
    shutil.copy(runs["dpsgd"] / "model.safetensors", spoilt)
    size = spoilt.stat().st_size
    with spoilt.open("r+b") as file:
        for place in (0, 9, 300, size // 2, size - 1):
            file.seek(place)
            (byte,) = file.read(1)
            file.seek(place)
            file.write(bytes([byte ^ 1]))
            file.flush()
            found = list(file_checks(card, spoilt))
            assert [check.status for check in found] == ["failed", "passed"]
            file.seek(place)
            file.write(bytes([byte]))
    spoilt.write_bytes(spoilt.read_bytes()[:-1])
    verified = verify(runs["dpsgd"] / "card.json", spoilt)
    assert {"SHA-256 of the weights", "size of the weights", "weights file is whole"} <= failed(
        verified
    )


def test_another_code_is_reported_and_is_no_error(runs, forge):
    def change(values):
        values["record"]["environment"]["code"] = "0" * 12

    verified = verify(*forge("none", change))
    assert verified.holds
    assert verified.checks[-1].status == "cannot be checked"
    assert "0" * 12 in verified.checks[-1].detail


@pytest.mark.parametrize(("stated", "status"), [(math.inf, "passed"), (9.0, "failed")])
def test_an_infinite_epsilon_is_compared_as_any_other(stated, status):
    assert near("ε", stated, math.inf, 1e-6).status == status
