import csv

import pytest

from dpmi.reporting.poster import published


def test_figure_4_is_whole():
    found = published()
    cells = [("none", None), *[(m, beta) for m in ("ldp", "dpsgd") for beta in (1.0, 2.0, 4.0)]]
    assert set(found) == {
        (dataset, mechanism, beta, split)
        for dataset in ("chest_xray", "aptos")
        for mechanism, beta in cells
        for split in ("train", "test")
    }
    assert all(0 < cell.accuracy < 1 for cell in found.values())


def test_figure_4_has_the_published_numbers(shared):
    """Against a second copy of the poster's figure, where it is at hand."""
    second = shared / "reference" / "figure4.csv"
    if not second.is_file():
        pytest.skip(f"no second copy: {second} is absent (set DPMI_SHARED)")
    for row in csv.DictReader(second.open()):
        beta = float(row["beta"]) if row["beta"] else None
        found = published()[row["dataset"], row["mechanism"], beta, row["split"]]
        assert found.accuracy == pytest.approx(float(row["accuracy_percent"]) / 100)


def test_every_dpsgd_test_cell_of_the_poster_is_the_best_epoch_on_the_test_images():
    picked = {key[:3] for key, cell in published().items() if key[3] == "test"
              and cell.epoch == "best"}  # fmt: skip
    dpsgd = {(d, "dpsgd", beta) for d in ("chest_xray", "aptos") for beta in (1.0, 2.0, 4.0)}
    assert picked == dpsgd | {("chest_xray", "ldp", 4.0)}


def test_the_authors_last_epochs_are_those_of_their_notebooks():
    last = {
        (dataset, beta): 100 * published()[dataset, "dpsgd", beta, "test"].last
        for dataset in ("chest_xray", "aptos")
        for beta in (1.0, 2.0, 4.0)
    }
    expected = {
        ("chest_xray", 1.0): 78.7, ("chest_xray", 2.0): 72.0, ("chest_xray", 4.0): 69.6,
        ("aptos", 1.0): 43.2, ("aptos", 2.0): 24.2, ("aptos", 4.0): 38.5,
    }  # fmt: skip
    assert last == pytest.approx(expected, abs=0.06)
    epochs = {len(cell.curve) for key, cell in published().items() if key[3] == "test"}
    assert epochs == {50, 100}
    assert published()["aptos", "none", None, "test"].epoch == "last"
