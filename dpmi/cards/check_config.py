"""Check that config, plan, ledger and guarantee of a run are consistent."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from dpmi.cards.check import Check, compare, failed, near, passed, unknown
from dpmi.cards.wording import WITHOUT_EPSILON
from dpmi.config.sections import MECHANISMS, DpsgdMechanism
from dpmi.privacy.accounting import epsilon, planned_entries
from dpmi.privacy.guarantee import Guarantee
from dpmi.privacy.laplace import WHITE, mean_moves
from dpmi.privacy.plan import PrivacyPlan, StatisticRelease, delta_for
from dpmi.privacy.spending import LedgerEntry
from dpmi.run.records.public import PublicRecord

_SAME = 1e-6  # relative
_COUNTED = re.compile(r"the number of training (?:image|patient)s, (\d+), is public")
_CALIBRATED = 0.98  # of the target ε: noise is found to within a thousandth of it


def config_checks(record: PublicRecord) -> Iterator[Check]:
    """All of them that the public record allows."""
    config, guarantee = record.config, record.guarantee
    assert guarantee
    mechanism = config["mechanism"]
    yield compare("mechanism of config and guarantee", guarantee.mechanism, mechanism["name"])
    if guarantee.epsilon is None:
        return
    if mechanism["name"] in WITHOUT_EPSILON:
        yield failed("config allows a guarantee", f"{mechanism['name']} has none")
        return
    if guarantee.delta == 0:
        yield from _pure(config, guarantee)
        return
    yield compare(
        "accountant of config and guarantee", guarantee.accountant, mechanism["accountant"]
    )
    executed = record.executed
    if not executed.get("plan") or not executed.get("ledger"):
        yield unknown("plan and ledger agree", "not on the card: a user's own data")
        yield _below(guarantee, _counted(guarantee))
        if guarantee.epsilon > (1 + _SAME) / config["beta"]:
            yield unknown(
                "ε is that of β", "above 1/β, perhaps by steps that were lost or spent before"
            )
        else:
            yield passed("ε is that of β", f"at most 1/β = {1 / config['beta']:.4g}")
        return
    try:
        plan = _plan(executed["plan"])
    except (TypeError, ValueError, KeyError) as error:
        yield failed("plan is possible", str(error))
        return
    yield from _of_plan(plan, executed, record, guarantee)
    yield from _of_config(plan, config)


def _plan(values: Mapping[str, Any]) -> PrivacyPlan:
    """The plan, which must have δ < 1/n, a positive noise and a batch within n."""
    own = {key: value for key, value in values.items() if key not in ("sample_rate", "sensitivity")}
    own["statistics"] = tuple(StatisticRelease(**one) for one in own["statistics"])
    return PrivacyPlan(**own)


def _of_plan(
    plan: PrivacyPlan, executed: Mapping[str, Any], record: PublicRecord, guarantee: Guarantee
) -> Iterator[Check]:
    ledger = [LedgerEntry(**entry) for entry in executed["ledger"]]
    stated = (guarantee.delta, guarantee.unit, guarantee.adjacency, guarantee.accountant)
    own = (plan.delta, plan.unit, plan.adjacency, plan.accountant)
    yield compare("δ, unit, adjacency, accountant of plan and guarantee", stated, own, show=False)
    yield _below(guarantee, plan.n)
    yield compare("n of the plan is that of the assumptions", plan.n, _counted(guarantee))
    in_plan = executed["plan"]["sample_rate"], executed["plan"]["sensitivity"]
    derived = plan.sample_rate, plan.sensitivity
    yield compare("rate is batch/n, sensitivity that of the norm", in_plan, derived)
    known = {(s.noise_multiplier, 1.0) for s in plan.statistics}
    known.add((plan.noise_multiplier, plan.sample_rate))
    strange = [e for e in ledger if (e.noise_multiplier, e.sample_rate) not in known]
    name = "ledger has no noise and no rate but the plan's"
    yield failed(name, str(strange[0])) if strange else passed(name)
    name, lost = "ledger has the plan's steps", executed.get("lost_steps", 0)
    ran = sum(entry.steps for entry in ledger) - lost
    whole = plan.steps + len(plan.statistics)
    right = ran <= whole if record.stopped else ran == whole
    right = right and lost >= 0 and all(entry.steps > 0 for entry in ledger)
    releases = f"{ran} releases of {whole}, and {lost} lost"
    yield passed(name, releases) if right else failed(name, releases)


def _counted(guarantee: Guarantee) -> int | None:
    """Training images, or patients, by the sentence that says that their number is public."""
    found = [_COUNTED.search(assumption) for assumption in guarantee.assumptions]
    return next((int(one[1]) for one in found if one), None)


def _below(guarantee: Guarantee, n: int | None) -> Check:
    name, delta = "δ is below 1/n", guarantee.delta or 0.0
    if n is None:
        return unknown(name, "n is not on the card")
    shown = f"n = {n}: 1/n = {1 / n:.3g}"
    return passed(name, shown) if delta < 1 / n else failed(name, f"δ = {delta:g}, {shown}")


def _of_config(plan: PrivacyPlan, config: Mapping[str, Any]) -> Iterator[Check]:
    mechanism, data, beta = config["mechanism"], config["data"], config["beta"]
    delta = mechanism["delta"]
    yield compare("δ of the config", plan.delta, delta_for(plan.n) if delta == "auto" else delta)
    if issubclass(MECHANISMS[mechanism["name"]], DpsgdMechanism):
        batch = data.get("batch_size", plan.expected_batch_size)
        batch = plan.n if batch == "all" else batch
        steps = max(1, round(plan.n / batch)) * config["trainer"]["max_epochs"]
        own = (plan.expected_batch_size, plan.steps, plan.max_grad_norm)
        expected = (batch, steps, config["max_grad_norm"])
        yield compare("batch, steps and norm of the config", own, expected)
    if mechanism.get("calibration") == "noise_multiplier":
        yield compare("noise is that of β", plan.noise_multiplier, beta)
        return
    planned = epsilon(planned_entries(plan, plan.steps), plan.delta, plan.accountant)
    name, shown = (
        "noise is calibrated to ε = 1/β",
        f"{planned:.4g} by the plan, 1/β = {1 / beta:.4g}",
    )
    fits = _CALIBRATED / beta <= planned <= (1 + _SAME) / beta
    yield passed(name, shown) if fits else failed(name, shown)


def _pure(config: Mapping[str, Any], guarantee: Guarantee) -> Iterator[Check]:
    """Of noised images: what the config's β, blocks and size give, where nothing came before."""
    assert guarantee.epsilon is not None
    name, own = "ε is that of β", 1 / config["beta"]
    if guarantee.epsilon > own * (1 + _SAME):
        yield unknown(name, "above 1/β, perhaps by releases that the first weights used")
        return
    yield near(name, guarantee.epsilon, own, _SAME)
    if config["mechanism"]["name"] != "ldp":
        return
    pool, side = config["mechanism"].get("pool", 1), config["data"]["image_size"]
    channels = 3 if str(guarantee.unit).startswith("channel") else 1
    means = channels * side**2 // pool**2
    whole = own * means * WHITE / mean_moves(pool)
    yield near("ε of an image is that of its blocks", guarantee.image_epsilon or 0.0, whole, _SAME)
    if channels == 3:
        of_pixel = guarantee.pixel_epsilon or 0.0
        yield near("ε of a pixel is that of its channels", of_pixel, 3 * own, _SAME)
