import csv
import io
import re
from dataclasses import replace

import pytest
from record_builders import failed, promise, record, seven
from rich.console import Console

from dpmi.privacy.guarantee import REPEATABLE, Guarantee
from dpmi.reporting.page import page
from dpmi.reporting.sections import sections
from dpmi.reporting.sorting import figure4
from dpmi.reporting.table import as_markdown, runs_csv, terminal_table


def rendered(records, width):
    console = Console(width=width, file=io.StringIO(), record=True)
    for panel in figure4(records):
        console.print(terminal_table(panel))
    return console.export_text()


def the_columns(records):
    (panel,) = figure4(records)
    return panel.columns


def rows(records):
    return list(csv.DictReader(runs_csv(figure4(records)).splitlines()))


def test_the_columns_are_the_original_then_ldp_and_dpsgd_by_beta():
    columns = the_columns(list(reversed(seven())))
    assert [column.title for column in columns] == [
        *("original", "LDP β=1", "LDP β=2", "LDP β=4"),
        *("DP-SGD β=1", "DP-SGD β=2", "DP-SGD β=4"),
    ]


def test_the_posters_number_stands_beside_ours_where_it_has_one():
    columns = the_columns(seven())
    beside = {column.title: cells["test"].beside for column, cells in columns.items()}
    assert beside == {
        "original": "poster 90.2%",
        "LDP β=1": "poster 91.0%",
        "LDP β=2": "poster 89.6%",
        "LDP β=4": "poster 91.7%*",
        "DP-SGD β=1": "poster 79.8%*",
        "DP-SGD β=2": "poster 77.7%*",
        "DP-SGD β=4": "poster 79.7%*",
    }
    for other in (seven("phantom_xray"), [record("ldp", 3.0)]):
        columns = the_columns(other)
        assert {cells["test"].beside for cells in columns.values()} == {""}


def test_every_accuracy_has_its_guarantee_under_it():
    columns = the_columns(seven())
    promises = {column.title: cells["test"].promise for column, cells in columns.items()}
    assert promises["original"] == ("no ε",)
    assert promises["LDP β=4"] == ("ε=0.25", "δ=0", "per pixel,", "replace-one")
    assert promises["DP-SGD β=2"] == ("ε=0.5", "δ=1e-3", "per image,", "zero-out")


def test_what_an_audit_found_stands_below_the_guarantee():
    found = {"lower_bound": 0.744, "refuted": False, "says": "audited: ε ≥ 0.744 (95 %)"}
    wrong = {"lower_bound": 5.0, "refuted": True, "says": "audited: ε ≥ 5 (95 %)"}
    records = [record("ldp", 1.0), record(audit=found), record(beta=2.0, audit=wrong)]
    assert "| audited |  | ε ≥ 0.744 (95 %) | ε ≥ 5 (95 %): refuted |" in as_markdown(
        figure4(records)
    )
    assert "audited" in rendered(records, 120)
    assert "audited" not in as_markdown(figure4(records[:1]))


def test_under_replace_one_both_mechanisms_state_the_epsilon_of_an_image():
    records = [
        record("ldp", 1.0),
        record(guarantee=replace(promise("dpsgd", 1.0), replace_one_epsilon=2.1301)),
    ]
    found = {
        column.title: cells["test"].if_replaced for column, cells in the_columns(records).items()
    }
    assert found == {"LDP β=1": "ε=1020", "DP-SGD β=1": "ε=2.14"}
    assert "| image, replace-one | ε=1020 | ε=2.14 |" in as_markdown(figure4(records))
    words = rendered(records, 80).split()
    assert "ε=1020" in words
    assert "ε=2.14" in words
    found = {row["mechanism"]: row["replace_one_epsilon"] for row in rows(records)}
    assert found == {"ldp": "1020.0", "dpsgd": "2.1301"}


def test_an_epsilon_is_rounded_up_in_every_output():
    records = [record(guarantee=promise("dpsgd", 1.0, 1.0049))]
    assert "ε=1.01" in rendered(records, 80).split()
    assert "ε=1.01" in as_markdown(figure4(records))
    assert ">1.01</td>" in page(sections(figure4(records)), [], records, 0)


def test_a_run_whose_noise_can_be_repeated_has_no_epsilon_in_the_table():
    records = [record(guarantee=Guarantee.none("dpsgd", REPEATABLE))]
    (cells,) = the_columns(records).values()
    assert cells["test"].promise == ("no ε",)
    assert f"DP-SGD: {REPEATABLE}." in as_markdown(figure4(records))
    assert "repeated from noise_seed" in page(sections(figure4(records)), [], records, 0)


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("dataset", ["chest_xray", "phantom_xray"])
def test_the_seven_columns_fit_a_terminal_with_no_word_broken(width, dataset):
    counts = {"counts": {"train": 5216, "test": 624}}
    records = [r.model_copy(update={"data": counts}) for r in seven(dataset)]
    records[-1] = record("dpsgd", 4.0, test=1.0, train=1.0, dataset=dataset, data=counts)
    text = rendered(records, width)
    assert max(len(line) for line in text.splitlines()) <= width
    assert "…" not in text
    words = re.findall(r"[^\s│┃]+", text)
    for word in ("original", "privacy", "DP-SGD", "ε=0.25", "δ=1e-3", "pixel,", "image,", "β=4"):
        assert word in words
    assert "zero-out" in words
    assert {"replace-", "one"} <= set(words)
    assert words.count("81.2%") == 6
    assert words.count("90.0%") == 6
    assert words.count("100.0%") == 2
    numbers = [word for word in words if re.search(r"\d", word)]
    assert all(
        re.fullmatch(r"[εδβ]=[\d.e-]+|\d+\.\d%\*?|\d+–\d+|0\.\d{3}", number) for number in numbers
    )
    if dataset == "chest_xray":
        assert words.count("poster") == 14
        assert "79.8%*" in words
        assert words.count("78–84") == 6


def test_seeds_are_averaged_and_counted_and_the_worst_epsilon_is_shown():
    records = [
        record(test=accuracy, seed=seed, guarantee=promise("dpsgd", 1.0, epsilon))
        for seed, accuracy, epsilon in ((1, 0.70, 0.98), (2, 0.80, 0.99), (3, 0.90, 0.97))
    ]
    columns = the_columns(records)
    (cells,) = columns.values()
    assert cells["test"].accuracy == "80.0% (3 seeds)"
    assert cells["test"].promise[0] == "ε=0.99"
    assert [row["accuracy"] for row in rows(records) if row["split"] == "test"] == [
        *("0.7", "0.8", "0.9")
    ]


def test_runs_that_differ_in_their_noise_alone_are_not_called_seeds_and_give_no_interval():
    columns = the_columns([record(test=0.7), record(test=0.8)])
    (cells,) = columns.values()
    assert cells["test"].accuracy == "75.0% (2 runs)"
    assert cells["test"].interval is None


def test_a_failed_run_beside_completed_ones_hides_neither_their_guarantee_nor_its_reason():
    records = [record(seed=1), failed(seed=2)]
    columns = the_columns(records)
    (cells,) = columns.values()
    assert cells["test"].accuracy == "80.0%"
    assert cells["test"].promise == ("ε=1", "δ=1e-3", "per image,", "zero-out")
    assert cells["test"].failures == ("failed: no images at data.root=x",)
    assert "ε=1 δ=1e-3 per image, zero-out<br>failed: no images" in as_markdown(figure4(records))


def test_a_run_that_stopped_at_its_budget_says_so_beside_the_epsilon_it_spent():
    why = "privacy.max_epsilon=0.5 was reached after 3 of the plan's 9 steps"
    records = [record(seed=1, guarantee=promise("dpsgd", 1.0, 0.5), stopped=why)]
    (cells,) = the_columns(records).values()
    assert cells["test"].stopped == (f"stopped: {why}",)
    assert f"ε=0.5 δ=1e-3 per image, zero-out<br>stopped: {why} |" in as_markdown(figure4(records))
    assert "see below" in " ".join(rendered(records, 120).split())
    assert {row["reason"] for row in rows(records)} == {why}


def test_the_csv_has_a_line_a_run_and_split_with_all_that_the_table_shows():
    found = rows(seven())
    assert len(found) == 14
    assert found[0] == {
        "dataset": "chest_xray",
        "setup": "",
        "split": "train",
        "mechanism": "none",
        "beta": "",
        "seed": "42",
        "status": "completed",
        "accuracy": "0.9",
        "auroc": "0.95",
        "poster_accuracy": "0.9976",
        "epsilon": "",
        "delta": "",
        "unit": "",
        "adjacency": "",
        "claimed_epsilon": "",
        "replace_one_epsilon": "",
        "epsilon_at_1e-5": "",
        "epsilon_at_1e-6": "",
        "best_epoch_on_test": "",
        "reason": "",
    }
    last = found[-1]
    assert (last["mechanism"], last["beta"], last["split"]) == ("dpsgd", "4", "test")
    assert (last["epsilon"], last["delta"], last["unit"], last["adjacency"]) == (
        *("0.25", "0.001", "image", "zero-out"),
    )


def test_the_markdown_is_a_table_a_data_set_with_the_guarantees_and_the_footnote():
    text = as_markdown(figure4(seven() + seven("phantom_xray")))
    tables = [block for block in text.split("\n\n") if block.startswith("|")]
    assert len(tables) == 2
    for table in tables:
        lines = table.splitlines()
        assert len(lines) == 7
        assert {line.count("|") for line in lines} == {9}
        assert "ε=0.25 δ=1e-3 per image, zero-out" in lines[5]
        assert "image, replace-one" in lines[6]
    assert "**81.2%**<br>poster 79.8%*" in tables[0]
    assert "phantom_xray, test" in tables[1]
    assert "| chest_xray, test AUROC | 0.876 | 0.876 |" in tables[0]
    assert "no ε covers it" in text
