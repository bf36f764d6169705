"""Check that the ε of a card, and the bounds on attackers, follow from what was executed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from dpmi.cards.check import Check, compare, failed, near, passed, unknown
from dpmi.cards.recomputing import LARGEST, recomputed
from dpmi.cards.schema import Card, Others
from dpmi.privacy.accounting import epsilon
from dpmi.privacy.guarantee import STRICTER_DELTAS, Guarantee, printed_delta
from dpmi.privacy.risk import Risk, risks
from dpmi.privacy.spending import LedgerEntry, Spending
from dpmi.privacy.total import ACCOUNTANT as TOTAL_ACCOUNTANT
from dpmi.run.first_weights import Provenance

_SAME = 1e-6  # relative: the same computation on another machine
_GRID = 1e-3  # relative: what the grids of other accountants add at most
_DIGITS = 2e-3  # relative: bounds on an attacker are kept to four digits
_BEFORE = "the weights before training took from the same images: ε is of both"


def promise_checks(card: Card, provenance: Provenance | None) -> Iterator[Check]:
    """All of the guarantee.

    Args:
        card: states it.
        provenance: metadata of the weights file; None where it cannot be read.
    """
    guarantee, record = card.record.guarantee, card.record
    assert guarantee
    if guarantee.epsilon is None or guarantee.delta is None:
        yield from _without(card, guarantee, provenance)
        return
    stricter = {printed_delta(delta) for delta in STRICTER_DELTAS}
    yield compare("states ε at the stricter δ", set(guarantee.epsilons), stricter, show=False)
    if guarantee.delta == 0:
        yield from _pure(card, guarantee, provenance)
    else:
        on_card = tuple(LedgerEntry(**entry) for entry in record.executed.get("ledger", ()))
        of_weights = provenance.taken[-1].spending if provenance and provenance.taken else None
        name = "ledger in the weights file is the card's"
        if on_card and of_weights:
            yield compare(name, on_card, of_weights.ledger, show=False)
        elif not on_card:
            yield unknown(name, "no ledger on the card: a user's own data")
        ledger = on_card or (of_weights.ledger if of_weights else ())
        if ledger:
            entries = _with_before(ledger, guarantee, provenance)
            yield from _by_ledger(guarantee, entries, record.risk)
            if card.others and card.others.epsilon is not None:
                yield _total(card.others, card.others.epsilon, guarantee, entries)
        else:
            yield unknown("ε of the ledger", "no ledger, neither on the card nor in the weights")


def _without(card: Card, guarantee: Guarantee, provenance: Provenance | None) -> Iterator[Check]:
    name = "no guarantee: no ε and no bound beside the reason"
    numbers = (guarantee.delta, guarantee.replace_one_epsilon, guarantee.image_epsilon)
    clean = not card.record.risk and not guarantee.epsilons and set(numbers) == {None}
    yield passed(name) if clean else failed(name, "it states numbers that nothing proves")
    if provenance and provenance.taken:
        reason = provenance.taken[-1].spending.reason
        yield compare("reason in the weights file is the card's", guarantee.reason, reason)


def _with_before(
    ledger: Sequence[LedgerEntry], guarantee: Guarantee, provenance: Provenance | None
) -> tuple[LedgerEntry, ...]:
    """The ledger, and what the first weights took from the same images.

    Which accounts share images is not recorded: those of the same name, or all, as ε shows.
    """
    if not provenance or _BEFORE not in guarantee.assumptions:
        return tuple(ledger)
    earlier = provenance.taken[:-1]
    same = [share for share in earlier if share.account == provenance.taken[-1].account]
    found: tuple[LedgerEntry, ...] = ()
    for shares in (same, earlier):
        before = [entry for share in shares for entry in share.spending.ledger]
        found = (*before, *ledger)
        if before and _stated_is_of(guarantee, found):
            break
    return found


def _stated_is_of(guarantee: Guarantee, entries: Sequence[LedgerEntry]) -> bool:
    assert guarantee.epsilon is not None
    assert guarantee.delta is not None
    own = epsilon(entries, guarantee.delta, str(guarantee.accountant))
    return math.isclose(own, guarantee.epsilon, rel_tol=_SAME)


def _by_ledger(
    guarantee: Guarantee, entries: tuple[LedgerEntry, ...], stated_risk: tuple[Risk, ...]
) -> Iterator[Check]:
    assert guarantee.epsilon is not None
    assert guarantee.delta is not None
    stated = {guarantee.delta: guarantee.epsilon} | {
        float(delta): its for delta, its in guarantee.epsilons.items()
    }
    try:
        for delta, its in stated.items():
            at = f"δ = {printed_delta(delta)}"
            own = epsilon(entries, delta, str(guarantee.accountant))
            yield near(f"ε is what {guarantee.accountant} gives, {at}", its, own, _SAME)
            yield _proven(f"ε is not below the truth, {at}", its, own, entries, delta)
        if guarantee.replace_one_epsilon is None:
            yield failed("ε under replace-one is what was computed", "it is not stated")
        else:
            yield from _replace_one(guarantee, guarantee.replace_one_epsilon, entries)
        yield _same_risks(stated_risk, risks(guarantee, entries))
    except (ValueError, RuntimeError, ArithmeticError, MemoryError, KeyError) as error:
        yield failed("ε of the ledger can be computed", f"{type(error).__name__}: {error}")


def _proven(
    name: str, stated: float, own: float, entries: tuple[LedgerEntry, ...], delta: float
) -> Check:
    if own > LARGEST:
        return unknown(name, f"ε above {LARGEST:g} is too large for PRV and PLD")
    both = recomputed(entries, delta)
    shown = f"stated {stated:.5g}; PRV {both.prv:.5g}, PLD {both.pld:.5g}"
    if not both.agree:
        return failed(name, f"{shown}: the two do not agree")
    if stated < both.least * (1 - _GRID):
        return failed(name, f"{shown}: neither proves it")
    return passed(name, shown)


def _replace_one(
    guarantee: Guarantee, stated: float, entries: tuple[LedgerEntry, ...]
) -> Iterator[Check]:
    assert guarantee.delta is not None
    accountant, delta = str(guarantee.accountant), guarantee.delta
    own = epsilon(entries, delta, accountant, adjacency="replace-one")
    yield near("ε under replace-one is what was computed", stated, own, _SAME)
    name = "ε under replace-one is not below the truth"
    if own > LARGEST:
        yield unknown(name, f"ε above {LARGEST:g} is too large for PLD")
        return
    found = recomputed(entries, delta).pld_replace_one
    shown = f"stated {stated:.5g}; PLD {found:.5g}"
    yield failed(name, shown) if stated < found * (1 - _GRID) else passed(name, shown)


def _same_risks(stated: tuple[Risk, ...], expected: tuple[Risk, ...]) -> Check:
    name = "bounds on an attacker follow from the releases"
    if len(stated) != len(expected):
        return failed(name, f"{len(stated)} are stated, {len(expected)} follow")
    for one, other in zip(stated, expected, strict=True):
        if (one.unit, one.adjacency) != (other.unit, other.adjacency):
            return failed(name, f"of one {one.unit} ({one.adjacency}), not {other.unit}")
        for field, own, theirs in _numbers(one, other):
            # Not by ">", which lets NaN pass.
            if own is None or theirs is None or not _close(own, theirs):
                return failed(name, f"{field} of one {one.unit}: stated {own}, found {theirs}")
    units = ", ".join(f"one {risk.unit}" for risk in stated)
    return passed(name, f"of {units}, curves and all" if stated else "none")


def _close(stated: float, found: float) -> bool:
    return abs(stated - found) <= _DIGITS * max(found, 1e-9)


def _numbers(one: Risk, other: Risk) -> Iterator[tuple[str, float | None, float | None]]:
    yield "advantage", one.advantage, other.advantage
    yield "accuracy", one.accuracy, other.accuracy
    for field in ("true_positive_rates", "candidates"):
        own, theirs = getattr(one, field), getattr(other, field)
        for key in {**own, **theirs}:
            yield f"{field} {key}", own.get(key), theirs.get(key)
    yield "points of the curve", float(len(one.curve)), float(len(other.curve))
    for (rate, power), (other_rate, other_power) in zip(one.curve, other.curve, strict=False):
        yield "curve", rate, other_rate
        yield "curve", power, other_power


def _pure(card: Card, guarantee: Guarantee, provenance: Provenance | None) -> Iterator[Check]:
    """ε-DP of noised images, or of answers: that of this release and of those before it."""
    assert guarantee.epsilon is not None
    stated = guarantee.epsilon
    yield compare("ε is the same at any δ", set(guarantee.epsilons.values()), {stated}, show=False)
    name = "ε adds up from the releases in the weights file"
    if not provenance or not provenance.taken:
        yield unknown(name, "the weights file has none")
    else:
        own = provenance.taken[-1].spending
        earlier = [share for share in provenance.taken[:-1] if _BEFORE in guarantee.assumptions]
        same = [s.spending for s in earlier if s.account == provenance.taken[-1].account]
        by_name = {took.entry: took for took in (*same, own)}
        answers = card.record.config["mechanism"]["name"] == "ldp_features"
        yield near(name, stated, sum(_of_unit(s, answers) for s in by_name.values()), _SAME)
        if not answers:
            whole = sum(took.image_epsilon or 0.0 for took in by_name.values())
            stated_whole = guarantee.image_epsilon
            yield near("ε of an image adds up likewise", stated_whole or 0.0, whole, _SAME)
    yield _same_risks(card.record.risk, risks(guarantee))


def _of_unit(spending: Spending, answers: bool) -> float:
    return (spending.image_epsilon if answers else spending.value_epsilon) or 0.0


def _total(
    others: Others, stated: float, guarantee: Guarantee, entries: tuple[LedgerEntry, ...]
) -> Check:
    """Whether all runs together took at least what this one did, by PLD as the total is."""
    name = "total of the account is not below this run's ε"
    if (others.delta, others.unit) != (guarantee.delta, guarantee.unit):
        return unknown(name, "the total is of another unit, or at another δ")
    own = epsilon(entries, others.delta, TOTAL_ACCOUNTANT)
    shown = f"{stated:.5g} on {others.at[:10]}; this run alone, by PLD, {own:.5g}"
    return passed(name, shown) if stated >= own * (1 - _SAME) else failed(name, shown)
