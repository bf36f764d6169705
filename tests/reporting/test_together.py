import dataclasses
import io

import pytest
from record_builders import failed, record, seven
from rich.console import Console

from dpmi.privacy.accounting import epsilon
from dpmi.privacy.guarantee import printed_epsilon
from dpmi.privacy.spending import LedgerEntry, Spending
from dpmi.privacy.total import total
from dpmi.reporting.sorting import figure4
from dpmi.reporting.sweep_report import print_tables
from dpmi.reporting.table import as_markdown
from dpmi.reporting.together import ALONE, together
from dpmi.run.records.record import RunAccount

RATE, STEPS, DELTA = 128 / 4000, 31, 1e-4
NOISE = {1: 1.0536, 2: 1.4652, 4: 2.2804}  # with which such a run has ε = 1/β, by PLD


def took(run, entry=None, steps=STEPS):
    """What a run of the default sweep takes; of LDP a release of its own for each seed."""
    mechanism, beta, name = run.config["mechanism"]["name"], run.config["beta"], run.run
    entry = entry or name
    if mechanism == "none":
        return Spending(entry, name, reason="trained on the images without any mechanism")
    if mechanism == "ldp":
        return Spending(entry, name, value_epsilon=1 / beta, image_epsilon=2304 / beta)
    return Spending(entry, name, (LedgerEntry(NOISE[beta], RATE, steps),), DELTA)


def account_of(runs, **changes):
    accounts = [RunAccount(id="1", spending=took(run), superseded=()) for run in runs]
    return [
        run.model_copy(update={"account": account.model_copy(update=changes)})
        for run, account in zip(runs, accounts, strict=True)
    ]


def text_of(runs):
    return " ".join(line for its in together(figure4(runs)) for line in (its.title, *its.lines))


def composed(*entries):
    return f"ε = {printed_epsilon(epsilon(entries, DELTA, 'pld'))}"


def runs_of(mechanism, seeds=(1,)):
    return account_of([record(mechanism, beta, seed=seed) for seed in seeds for beta in (1, 2, 4)])


def test_a_sweep_states_the_exact_total_of_its_models_of_its_releases_and_of_both():
    models, releases = runs_of("dpsgd"), runs_of("ldp")
    all_three = composed(*(took(run).ledger[0] for run in models))
    assert f"{all_three}, δ = 1e-4 per image: 3 runs by DP-SGD" in text_of(models)
    assert "ε = 1.75 per channel value: 3 releases by LDP" in text_of(releases)
    both = text_of([*models, *releases])
    replaced = epsilon([took(run).ledger[0] for run in models], DELTA, "pld", "replace-one")
    value, image = printed_epsilon(1.75 + replaced), printed_epsilon(1.75 * 2304 + replaced)
    assert f"ε = {value}, δ = 1e-4 per channel value, {image} per image, replace-one" in both


@pytest.mark.parametrize(
    ("betas", "seeds", "expected"), [((1, 2, 4), 1, 1.12), ((1,), 3, 1.55), ((1, 2, 4), 3, 1.82)]
)
def test_models_compose_to_less_than_the_sum_of_their_epsilons(betas, seeds, expected):
    runs = account_of([record("dpsgd", beta, seed=seed) for beta in betas for seed in range(seeds)])
    whole = total(run.account.spending for run in runs)
    assert whole.models_epsilon == pytest.approx(expected, abs=0.01)
    assert f"ε = {printed_epsilon(whole.models_epsilon)}, δ" in text_of(runs)
    assert whole.models_epsilon < sum(1 / beta for beta in betas) * seeds


def test_releases_of_their_own_for_each_seed_add_up():
    assert "ε = 5.25 per channel value: 9 releases" in text_of(runs_of("ldp", (1, 2, 3)))


def test_beside_a_run_without_any_mechanism_there_is_no_epsilon():
    text = text_of(account_of(seven()))
    assert "no ε with chest_xray-none-beta1-seed42: trained on the images without any" in text
    assert "ε = 1.75 per channel value: 3 releases by LDP" in text  # what is without it is named


def test_a_release_that_runs_share_counts_once():
    runs = [record("ldp", 1.0, seed=seed) for seed in (1, 2, 3)]
    shared = [
        run.model_copy(
            update={"account": RunAccount(id="1", spending=took(run, "same"), superseded=())}
        )
        for run in runs
    ]
    assert "ε = 1 per channel value: 1 release by LDP" in text_of(shared)


def test_superseded_attempts_and_runs_that_failed_are_counted():
    (run,) = account_of([record("dpsgd", 1.0)])
    old = took(run, "old", steps=12)
    again = run.model_copy(
        update={"account": run.account.model_copy(update={"superseded": (old,)})}
    )
    assert ", and what superseded attempts may have released" in text_of([again])
    assert composed(*old.ledger, *took(run).ledger) in text_of([again])
    (died,) = account_of([failed(seed=2)])
    assert composed(*took(run).ledger * 2) in text_of([run, died])
    assert "2 runs by DP-SGD" in text_of([run, died])


def test_other_images_are_distinguished_unless_their_accounts_have_some_in_common():
    xrays, phantoms = record("dpsgd", 1.0), record("dpsgd", 1.0, dataset="phantom_xray")
    (one,) = account_of([xrays])
    (other,) = account_of([phantoms], id="2")
    first, second = together(figure4([one, other]))
    assert first.title == "All runs on chest_xray published together"
    assert second.title == "All runs on phantom_xray published together"
    (other,) = account_of([phantoms], id="2", overlaps=("1",))
    (both,) = together(figure4([one, other]))
    assert both.title.startswith("All runs on chest_xray and phantom_xray published")
    assert "2 runs by DP-SGD" in both.lines[0]


def test_records_of_runs_that_released_nothing_need_no_total():
    assert together(figure4([failed(account=None)])) == []


def test_the_total_stands_under_the_table_on_a_terminal_and_in_markdown():
    """With what one cell alone takes, and that choosing it by its results is not covered."""
    panels = figure4(account_of(seven()))
    console = Console(width=80, file=io.StringIO(), record=True)
    print_tables(panels, console)
    shown = " ".join(console.export_text().split())
    (whole,) = together(panels)
    for line in (f"{whole.title}:", *whole.lines, ALONE):
        assert line in shown
        assert line in as_markdown(panels)
    assert "no ε covers choosing it by its results" in ALONE


def test_different_deltas_are_stated_at_the_largest():
    runs = account_of([record("dpsgd", 1.0), record("dpsgd", 2.0)])
    finer = dataclasses.replace(runs[0].account.spending, delta=1e-6)
    runs[0] = runs[0].model_copy(
        update={"account": runs[0].account.model_copy(update={"spending": finer})}
    )
    assert "δ = 1e-4 (the largest of theirs)" in text_of(runs)
