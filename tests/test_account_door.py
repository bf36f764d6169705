import pytest

from dpmi.account import main
from dpmi.privacy.account import Accounts
from dpmi.privacy.spending import LedgerEntry, Spending

IMAGES = [f"{number:064x}" for number in range(5)]
MODEL = Spending("m", "xray-dpsgd-beta1-seed1", (LedgerEntry(4.0, 0.1, 10),), 1e-5)
NOISED = Spending("l", "xray-ldp-beta2-seed1", value_epsilon=0.5, image_epsilon=50)
PLAIN = Spending("n", "xray-none-seed1", reason="trained without any mechanism")


@pytest.fixture
def shown(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("DPMI_CACHE", str(tmp_path))

    def show(*words):
        status = main(list(words))
        printed = capsys.readouterr()
        return status, " ".join(printed.out.split()), printed.err

    return show


def test_every_run_is_shown_with_what_it_spent_and_the_total_of_all(tmp_path, shown):
    accounts = Accounts(tmp_path)
    name = accounts.reserve(IMAGES, MODEL)
    accounts.reserve(IMAGES, NOISED)
    accounts.settle(NOISED, "completed")
    status, out, _ = shown()
    assert status == 0
    assert f"account {name}: 5 training images" in out
    assert "xray-dpsgd-beta1-seed1 │ reserved │ at most ε = " in out
    assert "xray-ldp-beta2-seed1 │ completed │ ε = 0.5 per channel value: 1 release" in out
    assert "all together: ε = " in out
    assert "per image, replace-one: both" in out
    accounts.reserve(IMAGES, PLAIN)
    assert f"no ε with {PLAIN.run}: {PLAIN.reason}" in shown()[1]


def test_sets_that_have_images_in_common_count_for_each_other(tmp_path, shown):
    accounts = Accounts(tmp_path)
    first = accounts.reserve(IMAGES[:3], MODEL)
    second = accounts.reserve(IMAGES[2:], NOISED)
    _, out, _ = shown("--cache", str(tmp_path))
    assert f"shares images with {first}" in out
    assert f"shares images with {second}" in out
    assert out.count("replace-one: both") == 2


def test_a_damaged_account_is_named_and_the_others_are_shown(tmp_path, shown):
    accounts = Accounts(tmp_path)
    damaged = accounts.reserve(IMAGES[:2], MODEL)
    accounts.reserve(IMAGES[3:], NOISED)
    path = tmp_path / "accounts" / damaged / "entries.jsonl"
    path.write_text(path.read_text().replace('"steps": 10', '"steps": 1'))
    status, out, err = shown()
    assert status == 2
    assert "all together: ε = 0.5 per channel value" in out
    assert err.startswith(f"error: {path}, line 1: damaged, so what these images have spent is not")
    assert err.count("\n") == 1


def test_a_cache_without_an_account_is_one_line(tmp_path, shown):
    status, _, err = shown()
    assert status == 2
    assert (
        err == f"error: {tmp_path}/accounts: no account there; runs make one in their cache_dir\n"
    )
