"""A card's three files: what stands on them, and that each byte of them counts."""

import dataclasses
import hashlib

import pytest

from dpmi.base.errors import UserError
from dpmi.cards.checks import integrity, metric_checks
from dpmi.cards.rendering import read_card, rendered
from dpmi.cards.schema import VERSION, Card, Others, Share, WeightsFile
from dpmi.cards.wording import INTENDED_USE, LIMITS, described
from dpmi.models.groups import Measured, Subgroup
from dpmi.privacy.guarantee import Guarantee
from dpmi.privacy.risk import Risk
from dpmi.run.records.public import PublicRecord

EVERY = {"html": 53, "md": 37, "json": 29}


def holds(path):
    try:
        card, content = read_card(path)
    except UserError:
        return False
    try:
        return all(check.status == "passed" for check in integrity(card, content, path.suffix))
    except (LookupError, TypeError, ValueError, AttributeError, AssertionError):
        return False  # what verify() makes a failed check of


@pytest.mark.parametrize("kind", EVERY)
def test_every_byte_of_a_card_counts(runs, kind, tmp_path):
    """Every k-th is changed by a bit, taken out, or doubled, in turn."""
    content = (runs["dpsgd"] / f"card.{kind}").read_bytes()
    path = tmp_path / f"card.{kind}"
    path.write_bytes(content)
    assert holds(path)
    for number, place in enumerate(range(0, len(content), EVERY[kind])):
        byte = content[place : place + 1]
        other = (bytes([byte[0] ^ 1]), b"", byte * 2)[number % 3]
        path.write_bytes(content[:place] + other + content[place + 1 :])
        assert not holds(path), (place, content[place - 20 : place + 20])


@pytest.mark.parametrize("end", [b"\n", b" ", b"<p>more</p>"])
@pytest.mark.parametrize("kind", EVERY)
def test_nothing_can_be_added_at_the_end(runs, kind, end, tmp_path):
    path = tmp_path / f"card.{kind}"
    path.write_bytes((runs["ldp"] / f"card.{kind}").read_bytes() + end)
    assert not holds(path)


def test_the_three_files_hold_the_same(runs):
    cards = [read_card(runs["dpsgd"] / f"card.{kind}")[0] for kind in EVERY]
    assert cards[0] == cards[1] == cards[2]


def test_a_card_without_guarantee_says_so_first_with_the_reason_and_the_false_claim(runs):
    for kind in ("md", "html"):
        text = (runs["dpsgd_published"] / f"card.{kind}").read_text()
        found = [text.index(words) for words in (
            "No privacy guarantee", "BatchNorm in training mode", "which does not hold",
            "The guarantee", "Accuracy",
        )]  # fmt: skip
        assert found == sorted(found)
    assert (runs["none"] / "card.md").read_text().startswith("# No privacy guarantee\n")


# What the pages of a fixed card hash to, by version: who changes a word or the layout raises
# VERSION in dpmi/cards/schema.py, and adds a line; cards of another version are refused.
PAGES = {
    1: "8afd73cfa2c5bccc00504f5ab32fd875a12c038a01a8722614bbb46759598a66",
    2: "3e02f280dc1ac8cab98b3310f9c4137e27a5c52190a21e904de4ef074590dda4",
    3: "6a94da648dbd56235b79d11d9827d1a031750a12c8228b77e24617a658165481",
}


def test_pages_change_only_with_the_version():
    card = fixed_card()
    pages = b"".join(rendered(card, suffix) for suffix in (".html", ".md", ".json"))
    assert hashlib.sha256(pages).hexdigest() == PAGES[VERSION]


def fixed_card():
    guarantee = Guarantee(
        mechanism="dpsgd", epsilon=1.0, delta=1e-5, unit="patient", adjacency="zero-out",
        accountant="prv", epsilons={"1e-5": 1.0, "1e-6": 1.2}, replace_one_epsilon=1.9,
        assumptions=("the number of training patients, 60, is public",),
    )  # fmt: skip
    entry = {"noise_multiplier": 1.0, "sample_rate": 0.1, "steps": 10}
    record = PublicRecord(
        public="", run="a-run", cell=None, data=None, status="completed", stopped=False,
        config={
            "beta": 1.0, "max_grad_norm": 1.0, "mechanism": {"name": "dpsgd"},
            "data": {"name": "phantom_xray", "image_size": 32},
            "model": {"name": "resnet18", "train": "all", "weights": "phantom"},
            "trainer": {"precision": "32-true"},
        },
        guarantee=guarantee,
        risk=(Risk("patient", "zero-out", 0.2, 0.6, {"0.001": 0.01, "0.01": 0.05},
                   {"2": 0.7, "10": 0.2, "1000": 0.01}, ((0.001, 0.01), (0.5, 0.7), (1.0, 1.0))),),
        executed={"plan": {"n": 60}, "ledger": [entry], "lost_steps": 0},
        metrics={"test_images/accuracy": 0.5, "test_images/auroc": 0.75},
        groups=[Subgroup("sex", "f", 10, 4, {"ill": 4, "well": 6}, {
            "auroc": Measured(0.75, 0.5, 0.9), "balanced_accuracy": Measured(0.5, 0.3, 0.7),
            "accuracy": Measured(0.5, 0.2, 0.8), "ece": Measured(None, None, None)})],
        reliability=[(0.6, 0.5, 10)], audit=None, environment={"python": "3.11", "code": "0"},
    )  # fmt: skip
    others = Others(
        account="0", at="2026-01-01T00:00:00+00:00", runs=1, says=("ε = 1",), epsilon=1.0,
        delta=1e-5, unit="patient",
    )  # fmt: skip
    its = described(record)
    return Card(
        made="2026-01-01T00:00:00+00:00", trust=its.trust, mechanism=its.mechanism,
        sensitivity=its.sensitivity, record=record, ledger_by_choice=False,
        weights=WeightsFile(name="model.safetensors", size=1, sha256="0"), others=others,
        shares=(Share(metric="test_images/accuracy", value=0.5, low=0.24, high=0.76, images=10),),
        intended_use=INTENDED_USE, limits=LIMITS,
    ).sealed()  # fmt: skip


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({}, None),
        ({"images": 11}, "its classes are not 11 images"),
        ({"class_counts": {"ill": 4, "well": 5}, "images": 9}, "sex: its groups are not 10 images"),
        ({"measures": {"accuracy": Measured(0.6, 0.2, 0.8)}}, "sex: accuracy of all is 0.6000"),
        ({"measures": {"accuracy": Measured(0.5, 0.6, 0.8)}}, "is not in its interval"),
    ],
)
def test_groups_that_are_not_those_of_the_test_images_are_found(change, says):
    card = fixed_card()
    (group,) = card.record.groups
    measures = group.measures | change.get("measures", {})
    forged = dataclasses.replace(group, **(change | {"measures": measures}))
    record = card.record.model_copy(update={"groups": [forged]})
    checks = metric_checks(card.model_copy(update={"record": record}))
    (found,) = [check for check in checks if check.name == "groups are those of the test images"]
    assert found.status == ("failed" if says else "passed")
    assert (says or "1 groups") in found.detail
