"""The contents of a card's pages, in order, as plain text."""

from __future__ import annotations

from dataclasses import dataclass

from dpmi.cards.findings import facts_of, findings_of, plain
from dpmi.cards.schema import Card, Share
from dpmi.cards.wording import TRUSTED, test_images
from dpmi.models.groups import Measured, Subgroup
from dpmi.models.names import UNDEFINED
from dpmi.privacy.guarantee import Guarantee, printed_delta, printed_epsilon
from dpmi.run.records.leaving import LENT, OWN_DATA

ACCOUNTANTS = {
    "prv": "PRV (Gopi et al. 2021, by Opacus)",
    "pld": "PLD (Doroshenko et al. 2022, by dp-accounting)",
    "rdp": "RDP (Mironov et al. 2019, by Opacus)",
}
NO_LEDGER = (
    "not on this card: plan and ledger of a user's own data reveal the batch size, and are "
    "included only on request (--with-ledger). ε cannot be recomputed from the card alone"
)
BY_CHOICE = " Included at the user's request; it reveals the batch size."
NOT_KNOWN = (
    "not known: the account of the training images was not at hand when the card was made. "
    "Whatever else was released from them adds to the ε above"
)
# Kept under "Implementation": assumptions about how the noise is made.
_OF_IMPLEMENTATION = ("operating system", "rounding in single precision", "2^-64", "64 bits")
_FLOATING = {
    "dpsgd": "sums in single precision, rounded with their noise to one lattice",
    "class_means": "sums in single precision, rounded with their noise to one lattice",
    "ldp": "noise drawn as integers, exact on the 8-bit grid",
    "ldp_features": "flips drawn as integers",
}
CANNOT = (
    "that the ledger was executed, and on which images: only whoever ran it knows",
    "that the test images were what the card says, and the metrics computed on them",
    "what else was released from the same images, beyond what the card states",
    "who made the card: it has a digest, and no signature",
)


@dataclass(frozen=True)
class Section:
    """A heading, facts under names, and sentences after them."""

    title: str
    facts: tuple[tuple[str, str], ...] = ()
    sentences: tuple[str, ...] = ()


def sections(card: Card) -> list[Section]:
    """All of them."""
    return [
        _promise(card),
        _meaning(card),
        _assumed(card),
        _elsewhere(card),
        _accuracy(card),
        _implementation(card),
        _data(card),
        Section("Intended use and limits", (("Intended use", card.intended_use),), card.limits),
    ]


def headline(card: Card) -> str:
    """The guarantee, or that there is none, in a line."""
    guarantee = _guarantee(card)
    if guarantee.epsilon is None or guarantee.delta is None:
        return "No privacy guarantee"
    return f"{_at(guarantee.epsilon, guarantee.delta)} for one {guarantee.unit}"


def beneath(card: Card) -> tuple[str, ...]:
    """What must be read together with the headline."""
    guarantee = _guarantee(card)
    if guarantee.reason is not None:
        claim = (f"{_capital(str(guarantee.claim))}.",) if guarantee.claim else ()
        return (f"{_capital(guarantee.reason)}.", *claim)
    other = "replaced by any other" if guarantee.adjacency == "replace-one" else _ZERO_OUT
    stated = [f"Neighbours: data sets in which one {guarantee.unit} is {other}."]
    whole = guarantee.image_epsilon
    if whole is not None:
        stated.append(f"For a whole image ε = {printed_epsilon(whole)}.")
    return tuple(stated)


_ZERO_OUT = "replaced by one that contributes nothing (zero-out)"


def _guarantee(card: Card) -> Guarantee:
    guarantee = card.record.guarantee
    assert guarantee is not None  # of a run that completed
    return guarantee


def _promise(card: Card) -> Section:
    its = _guarantee(card)
    facts: list[tuple[str, str]] = []
    if its.epsilon is not None and its.delta is not None:
        facts += [
            ("Unit", f"one {its.unit}"),
            ("Adjacency", f"{its.adjacency}"),
            ("ε, δ", _at(its.epsilon, its.delta)),
        ]
        if its.delta:
            others = "; ".join(_at(e, float(delta)) for delta, e in its.epsilons.items())
            facts.append(("At stricter δ", others))
        if its.pixel_epsilon is not None:
            facts.append(("Per pixel", f"ε = {printed_epsilon(its.pixel_epsilon)}, all channels"))
        if its.image_epsilon is not None:
            facts.append(("Per image", f"ε = {printed_epsilon(its.image_epsilon)}"))
        elif its.replace_one_epsilon is not None and its.adjacency != "replace-one":
            facts.append(("Replace-one", _at(its.replace_one_epsilon, its.delta)))
        facts.append(("Accountant", ACCOUNTANTS.get(its.accountant or "", its.accountant or "")))
    else:
        facts.append(("Guarantee", "none"))
    facts += [("Trust model", TRUSTED[card.trust]), ("Mechanism", card.mechanism)]
    if card.sensitivity:
        facts.append(("Sensitivity", card.sensitivity))
    if its.epsilon is not None and its.delta:
        facts.append(("Executed", _executed(card)))
    if card.record.stopped:
        facts.append(("Stopped", "by a budget of ε, before the last step that was planned"))
    return Section("The guarantee", tuple(facts))


def _executed(card: Card) -> str:
    executed = card.record.executed
    if not executed.get("ledger"):
        return NO_LEDGER
    releases = "; ".join(
        f"{e['steps']} x noise {printed_epsilon(e['noise_multiplier'])} at rate "
        f"{e['sample_rate']:.4g}"
        for e in executed["ledger"]
    )
    lost = executed.get("lost_steps")
    beside = f", {lost} of them by an attempt that was killed" if lost else ""
    stated = f"{releases}{beside}; of n = {executed['plan']['n']}."
    return stated + BY_CHOICE * card.ledger_by_choice


def _meaning(card: Card) -> Section:
    if not card.record.risk:
        return Section("What an attacker can do", (), (
            "There is no bound: an attacker may find any training image in the weights.",
        ))  # fmt: skip
    stated = [sentence for risk in card.record.risk for sentence in risk.sentences]
    return Section("What an attacker can do", (), tuple(stated))


def _assumed(card: Card) -> Section:
    stated = [a for a in _guarantee(card).assumptions if not _is_of_implementation(a)]
    nothing = ("nothing: without a guarantee there is nothing to assume",)
    return Section("What is assumed", (), tuple(_capital(a) + "." for a in stated or nothing))


def _elsewhere(card: Card) -> Section:
    others, audit = card.others, card.record.audit
    if others is None:
        known = NOT_KNOWN
    else:
        entries = f"{others.runs} {'entry' if others.runs == 1 else 'entries'}"
        total = "; ".join(others.says) or "nothing was released"
        known = f"in all, on {others.at[:10]}, by {entries} of the account: {total}"
    if audit is None:
        audited = "not audited"
    else:
        against = f"against the claim of {printed_epsilon(audit['claimed'])}"
        found = "; the claim is REFUTED" if audit["refuted"] else ""
        audited = f"{audit['says']}, {audit['canaries']} canaries, {against}{found}"
    return Section(
        "What else is known", (("Released from the same data", known), ("Audit", audited))
    )


def _accuracy(card: Card) -> Section:
    with_interval = {share.metric: _share(share) for share in card.shares}
    facts = list(with_interval.items())
    of_each = findings_of(card.record)
    others = [f"{m} {plain(v)}" for m, v in card.record.metrics.items() if m not in with_interval]
    if of_each:
        facts += facts_of(card.record, of_each)
    elif others:
        facts.append(("Other metrics", "; ".join(others)))
    facts += [(group.title, _group(group)) for group in card.record.groups]
    picked = any(name.startswith("selected_on") for name in card.record.metrics)
    covered = f"{test_images(card.record)} test images, which no ε covers"
    intervals = "95 % intervals by Wilson's score, over the sampling of test images"
    means = "the mean is over the findings of which a metric is defined"
    notes = [f"{covered}; {means if of_each else intervals}."]
    if picked:
        notes.append("Values selected on the test images are too high.")
    return Section("Metrics" if of_each else "Accuracy", tuple(facts), tuple(notes))


def _implementation(card: Card) -> Section:
    its, config = card.record.environment, card.record.config
    packages = its.get("packages") or {}
    guarantee = _guarantee(card)
    made = [_capital(a) + "." for a in guarantee.assumptions if _is_of_implementation(a)]
    points = [f"network in {config['trainer']['precision']}"]
    if guarantee.epsilon is not None:
        points.append(_FLOATING.get(guarantee.mechanism, "not known"))
    names = ("dpmi", "torch", "opacus", "dp-accounting", "numpy")
    versions = ", ".join(f"{name} {packages.get(name)}" for name in names)
    return Section(
        "Implementation",
        (
            ("Floating point", "; ".join(points)),
            ("Versions", f"{versions}, Python {its.get('python')}, {its.get('device')}"),
            ("Code", f"digest {its.get('code')}, commit {_short(its.get('git_commit'))}"),
        ),
        tuple(made),
    )


def _data(card: Card) -> Section:
    config = card.record.config
    data, model = config["data"], config["model"]
    name = data["name"]
    whose = f"{name}, lent by agreement" if name in LENT else f"{name}, public"
    findings = findings_of(card.record)
    classes = [m.rpartition("/")[2] for m in card.record.metrics if "/recall/" in m]
    before = model["weights"] or "drawn"
    facts = [
        ("Training images", "a user's own" if name in OWN_DATA - LENT else whose),
        ("Size", f"{data['image_size']} x {data['image_size']} pixels"),
        ("Findings" if findings else "Classes", ", ".join(findings or classes)),
        ("Test images", f"{test_images(card.record)}{_split(data.get('test'))}"),
        ("Network", f"{model['name']}; trained: {model['train']}; weights before: {before}"),
    ]  # fmt: skip
    return Section("Data and network", tuple(facts))


def _short(commit: str | None) -> str:
    """Enough of a commit to find it, and whether files were changed since."""
    digits, plus, changed = (commit or "not known").partition("+")
    return digits[:12] + plus + changed


def _split(test: str | None) -> str:
    return f", {test.replace('_', ' ')}" if test else ""


def _is_of_implementation(assumption: str) -> bool:
    return any(words in assumption for words in _OF_IMPLEMENTATION)


def _group(group: Subgroup) -> str:
    """Accuracy with its interval, AUROC and calibration error, and how many images it has."""
    accuracy = group.measures.get("accuracy")
    stated = [f"{group.images} images"]
    stated += [f"accuracy {_of_group(accuracy)}"] if accuracy else []
    stated += [
        f"{name} {measured.value:.3f}"
        for name, measured in group.measures.items()
        if name != "accuracy" and measured.value is not None
    ]
    return "; ".join(stated)


def _of_group(measured: Measured) -> str:
    if measured.value is None:
        return UNDEFINED
    value = f"{100 * measured.value:.1f} %"
    if measured.low is None or measured.high is None:
        return value
    return f"{value} (95 %: {100 * measured.low:.1f}–{100 * measured.high:.1f})"


def _share(share: Share) -> str:
    ends = f"{100 * share.low:.1f}–{100 * share.high:.1f}"
    return f"{100 * share.value:.1f} % (95 %: {ends})"


def _at(epsilon: float, delta: float) -> str:
    return f"ε = {printed_epsilon(epsilon)} at δ = {printed_delta(delta)}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:] if text[:1].isascii() else text  # ε stays ε
