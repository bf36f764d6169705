"""All checks of a card and its weights, a line each."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dpmi.base.errors import UserError
from dpmi.cards.check import Check, compare, failed, passed, unknown
from dpmi.cards.check_config import config_checks
from dpmi.cards.check_promise import promise_checks
from dpmi.cards.findings import findings_of, mean_checks
from dpmi.cards.making import weights_file
from dpmi.cards.rendering import read_card, rendered
from dpmi.cards.schema import Card
from dpmi.cards.wording import LIMITS, described, shares, test_images
from dpmi.models.groups import OF_FINDINGS, Subgroup
from dpmi.run.first_weights import Provenance
from dpmi.run.left import read_kept
from dpmi.run.records.code import code_digest
from dpmi.run.records.leaving import public_guarantee
from dpmi.run.records.public import PublicRecord

_FLOAT = 1e-5  # metrics are in single precision
_PROBABILITIES = ("accuracy", "balanced_accuracy", "auroc", "average_precision", "f1", "ece")
_OF_EACH = ("recall", *OF_FINDINGS)  # of a class or a finding: NAME/CLASS


@dataclass(frozen=True)
class Verified:
    """What was found of a card: the checks, in the order of the card."""

    card: Card
    checks: tuple[Check, ...]

    @property
    def holds(self) -> bool:
        """Whether nothing that could be checked failed."""
        return not any(check.status == "failed" for check in self.checks)


def verify(path: Path, weights: Path) -> Verified:
    """Check a card and its weights.

    Raises:
        UserError: one of them is not there, or is no such file at all.
    """
    card, content = read_card(path)
    if not weights.is_file():
        raise UserError(f"{weights}: no such file; give the weights that belong to the card")
    try:
        provenance: Provenance | None = read_kept(weights)[1]
        read = passed("weights file is whole")
    except UserError as error:
        provenance, read = None, failed("weights file is whole", str(error))
    groups = (
        integrity(card, content, path.suffix),
        file_checks(card, weights),
        (read,),
        of_same_run(card, provenance) if provenance else (),
        promise_checks(card, provenance),
        config_checks(card.record),
        audit_checks(card.record),
        metric_checks(card),
        (_code(card),),
    )
    return Verified(card, tuple(check for group in groups for check in _guarded(group)))


def _guarded(group: Iterable[Check]) -> Iterator[Check]:
    """Checks, and one that fails where the card's content is such as no run leaves."""
    try:
        yield from group
    except (LookupError, TypeError, ValueError, AttributeError, AssertionError) as error:
        yield failed("content is what a run writes", f"{type(error).__name__}: {error}")


def integrity(card: Card, content: bytes, suffix: str) -> Iterator[Check]:
    """Whether the file is, to the byte, what its own content gives."""
    own = card.digest_of_content()
    yield compare("digest of the card", card.digest, own, show=False)
    name = "page is what its data give" if suffix != ".json" else "written as cards are"
    if rendered(card, suffix) == content:
        yield passed(name, f"{len(content)} bytes, byte by byte")
    else:
        yield failed(name, "rendered again from its data, the file differs")
    its = described(card.record)
    stated = (card.trust, card.mechanism, card.sensitivity, card.limits)
    follows = (its.trust, its.mechanism, its.sensitivity, LIMITS)
    yield compare("trust model, mechanism, sensitivity, limits", stated, follows, show=False)


def file_checks(card: Card, weights: Path) -> Iterator[Check]:
    """Whether the weights are those that the card is of."""
    found = weights_file(weights)
    name, stated = "SHA-256 of the weights", card.weights.sha256
    yield compare(name, stated, found.sha256, show=False)
    yield compare("size of the weights", card.weights.size, found.size)


def of_same_run(card: Card, provenance: Provenance) -> Iterator[Check]:
    """Whether weights file and card agree on the training."""
    stated = card.record.guarantee
    assert stated
    name = "guarantee in the weights file is the card's"
    same = stated.to_dict() == provenance.guarantee == public_guarantee(stated).to_dict()
    yield passed(name) if same else failed(name, "the two disagree")
    if provenance.taken:
        run = provenance.taken[-1].spending.run
        yield compare("weights file is of the same run", card.record.run, run)


def audit_checks(record: PublicRecord) -> Iterator[Check]:
    """Whether a lower bound on ε contradicts what is claimed."""
    audit, guarantee = record.audit, record.guarantee
    name = "audit does not refute the claim"
    if audit is None or guarantee is None:
        yield unknown(name, "not audited")
        return
    unit = str(guarantee.unit).removesuffix(" of a patient")  # whose canary is an image's
    stated = (audit["claimed"], audit["delta"], audit["unit"].removesuffix(" of a patient"))
    yield compare("audit is of the claim", stated, (guarantee.epsilon, guarantee.delta, unit))
    claims = {one["claimed"] for one in audit["bounds"].values()}
    known = claims <= {None, guarantee.replace_one_epsilon}
    name = "each bound of the audit is compared with a claim of the card"
    yield passed(name) if known else failed(name, f"it names {sorted(claims - {None})}")
    name = "audit does not refute the claim"
    above = [
        method
        for method, one in audit["bounds"].items()
        if one["epsilon"] > (audit["claimed"] if one["claimed"] is None else one["claimed"])
    ]
    of_claim = [one["epsilon"] for one in audit["bounds"].values() if one["claimed"] is None]
    strongest = max(of_claim, default=0.0)
    yield compare("audit's bound is its strongest", audit["lower_bound"], strongest)
    if above or audit["refuted"] or audit["lower_bound"] > audit["claimed"]:
        yield failed(name, f"refuted: {audit['says']} (claimed {audit['claimed']:.4g})")
    else:
        yield passed(name, audit["says"])


def metric_checks(card: Card) -> Iterator[Check]:
    """Whether metrics are possible, belong together, and have the intervals that they should."""
    record, images = card.record, test_images(card.record)
    outside = [name for name, value in record.metrics.items() if not _possible(name, value)]
    name = "metrics are in their range"
    yield failed(name, ", ".join(outside)) if outside else passed(name)
    yield compare("intervals as recomputed", card.shares, shares(record), show=False)
    accuracy = record.metrics.get("test_images/accuracy")
    if record.groups:
        yield _groups(record.groups, accuracy, images)
    if findings := findings_of(record):
        yield from mean_checks(record, findings)
        return
    name = "accuracy is that of the reliability diagram"
    if accuracy is None or not images:
        yield unknown(name, "the record has no reliability diagram")
        return
    right = sum(number * share for _, share, number in record.reliability)
    close = abs(right / images - accuracy) <= _FLOAT
    whole = abs(accuracy * images - round(accuracy * images)) <= _FLOAT * images
    shown = f"{round(right)} of {images} images"
    yield passed(name, shown) if close and whole else failed(name, f"{shown}, not {accuracy:.4f}")
    ece = record.metrics.get("test_images/ece")
    if ece is not None:
        off = sum(n * abs(share - sure) for sure, share, n in record.reliability) / images
        name = "calibration error is that of the diagram"
        right_ece = abs(off - ece) <= _FLOAT
        yield passed(name, f"{off:.4f}") if right_ece else failed(name, f"{off:.4f}, not {ece:.4f}")


def _groups(groups: Sequence[Subgroup], accuracy: float | None, images: int) -> Check:
    """Whether groups are possible, and those of each column are all of the test images."""
    name = "groups are those of the test images"
    for group in groups:
        for measure, its in group.measures.items():
            value, low, high = its.value, its.low, its.high
            if value is not None and not (
                0 <= (value if low is None else low) <= value <= (value if high is None else high)
                and value <= 1
            ):
                return failed(name, f"{group.title}: {measure} {value} is not in its interval")
        if "accuracy" not in group.measures:  # findings, of which an image has any number
            if max(group.class_counts.values(), default=0) > group.images:
                return failed(name, f"{group.title}: a finding of more than {group.images} images")
        elif sum(group.class_counts.values()) != group.images:
            return failed(name, f"{group.title}: its classes are not {group.images} images")
    for column in dict.fromkeys(group.column for group in groups):
        its_own = [group for group in groups if group.column == column]
        if sum(group.images for group in its_own) != images:
            return failed(name, f"{column}: its groups are not {images} images")
        if accuracy is None:
            continue
        right = sum(g.images * (g.measures["accuracy"].value or 0.0) for g in its_own)
        if abs(right / images - accuracy) > _FLOAT:
            return failed(name, f"{column}: accuracy of all is {right / images:.4f}")
    return passed(name, f"{len(groups)} groups")


def _possible(name: str, value: float) -> bool:
    """Whether a metric can have a value; what is not a number was not defined."""
    if math.isnan(value):
        return True
    of_each = any(f"/{metric}/" in name for metric in _OF_EACH)
    if name.rpartition("/")[2] in _PROBABILITIES or of_each:
        return 0 <= value <= 1
    return -1 <= value <= 1 if name.endswith("/kappa") else True


def _code(card: Card) -> Check:
    made, here = card.record.environment.get("code"), code_digest()
    name = "code that ran is the code that checks"
    if made == here:
        return passed(name, here)
    return unknown(name, f"{made} ran, {here} checks: what is recomputed is by other code")
