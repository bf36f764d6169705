import dataclasses
import hashlib
import itertools
import multiprocessing
import os
import sys

import dp_accounting
import pytest
from dp_accounting import pld

from dpmi.base.errors import UserError
from dpmi.privacy.account import Accounts, total_of
from dpmi.privacy.accounting import epsilon
from dpmi.privacy.spending import LedgerEntry, Spending
from dpmi.privacy.total import total


def digests(*numbers):
    return [hashlib.sha256(str(number).encode()).hexdigest() for number in numbers]


def by_gradients(entry="a", steps=10, noise=4.0, delta=1e-5):
    return Spending(entry, f"run {entry}", (LedgerEntry(noise, 0.1, steps),), delta)


def by_images(entry="l", epsilon=0.5, values=100):
    return Spending(entry, f"run {entry}", value_epsilon=epsilon, image_epsilon=values * epsilon)


def entered(accounts, images):
    found = accounts.overlapping(images)
    return {name: entry for account in found for name, entry in account.entries.items()}


def independent_epsilon(spendings, delta):
    accountant = pld.PLDAccountant(dp_accounting.NeighboringRelation.REPLACE_SPECIAL)
    for spending in spendings:
        for entry in spending.ledger:
            gaussian = dp_accounting.GaussianDpEvent(entry.noise_multiplier)
            sampled = dp_accounting.PoissonSampledDpEvent(entry.sample_rate, gaussian)
            accountant.compose(dp_accounting.SelfComposedDpEvent(sampled, entry.steps))
    return accountant.get_epsilon(delta)


def test_what_is_reserved_is_on_the_disk_and_what_is_settled_takes_its_place(tmp_path):
    accounts, images = Accounts(tmp_path), digests(1, 2, 3)
    name = accounts.reserve(images, by_gradients(steps=10))
    (account,) = Accounts(tmp_path).read()
    assert (account.id, account.entries["a"].status) == (name, "reserved")
    assert account.entries["a"].spending == by_gradients(steps=10)
    accounts.settle(by_gradients(steps=4), "interrupted")
    entry = entered(accounts, images)["a"]
    assert (entry.status, entry.spending) == ("interrupted", by_gradients(steps=4))
    assert accounts.reserve(images, by_gradients(steps=10)) == name  # resumed: the same entry
    assert entered(accounts, images)["a"].status == "reserved"
    assert len(entered(accounts, images)) == 1


def test_the_account_is_that_of_the_images_in_whatever_order_and_however_often(tmp_path):
    accounts = Accounts(tmp_path)
    name = accounts.reserve(digests(1, 2, 3), by_gradients("a"))
    assert accounts.reserve(digests(3, 2, 1, 1), by_gradients("b")) == name
    assert accounts.reserve(digests(4, 5), by_gradients("c")) != name
    assert set(entered(accounts, digests(1))) == {"a", "b"}


def test_no_other_choice_of_the_same_images_begins_with_an_empty_account(tmp_path):
    """One image more, one less, another split: what was spent on any of them is counted."""
    accounts = Accounts(tmp_path)
    accounts.reserve(digests(*range(10)), by_gradients("a"))
    for number, other in enumerate([range(11), range(9), range(9, 30)]):
        images = digests(*other)
        assert "a" in entered(accounts, images)
        accounts.reserve(images, by_gradients(str(number)))
    assert set(entered(accounts, digests(9))) == {"a", "0", "2"}
    assert set(entered(accounts, digests(100))) == set()


def test_the_name_of_an_account_says_nothing_about_its_images(tmp_path):
    images = digests(1, 2)
    names = {Accounts(tmp_path / str(n)).reserve(images, by_gradients()) for n in range(3)}
    assert len(names) == 3


def test_the_total_is_what_dp_accounting_composes_and_not_the_sum(tmp_path):
    accounts, images = Accounts(tmp_path), digests(1)
    spendings = [by_gradients("a", 100, 4.0), by_gradients("b", 50, 2.0, 1e-4)]
    for spending in spendings:
        accounts.reserve(images, spending)
    whole = total_of(accounts.overlapping(images))
    assert whole.delta == 1e-4
    assert whole.deltas_differ
    expected = independent_epsilon(spendings, 1e-4)
    assert whole.models_epsilon == pytest.approx(expected, abs=1e-3)
    assert whole.unit_epsilon == whole.models_epsilon
    alone = [independent_epsilon([spending], 1e-4) for spending in spendings]
    assert max(alone) < whole.models_epsilon < sum(alone)


def test_pure_epsilons_of_noised_images_add_up_and_a_shared_release_counts_once(tmp_path):
    accounts, images = Accounts(tmp_path), digests(1)
    for entry, each in (("x", 1.0), ("y", 0.5), ("z", 0.25), ("x", 1.0)):
        accounts.reserve(images, by_images(entry, each))
    whole = total_of(accounts.overlapping(images))
    assert whole.releases_epsilon == whole.value_epsilon == 1.75
    assert whole.unit_epsilon == 175
    assert whole.delta == 0


def test_a_budget_of_all_runs_is_refused_before_anything_is_entered(tmp_path):
    accounts, images = Accounts(tmp_path), digests(1, 2)
    one = total_of([], by_gradients("a")).unit_epsilon
    accounts.reserve(images, by_gradients("a"), budget=one)
    with pytest.raises(
        UserError, match=r"privacy\.max_total_epsilon=.*all runs on these"
    ) as refused:
        accounts.reserve(digests(2, 3), by_gradients("b"), budget=one)
    assert "\n" not in str(refused.value)
    assert set(entered(accounts, images)) == {"a"}
    assert len(accounts.read()) == 1  # nothing half-made
    accounts.reserve(digests(3), by_gradients("b"), budget=one)  # other images
    accounts.reserve(images, by_gradients("a"), budget=one)  # resumed, it is not counted twice
    both = total_of([], by_gradients("ab", 20)).unit_epsilon
    accounts.reserve(digests(2, 4), by_gradients("c"), budget=both)


def test_a_budget_is_of_the_unit_that_the_run_protects(tmp_path):
    accounts, images = Accounts(tmp_path), digests(1)
    accounts.reserve(images, by_images("x", 0.5), budget=0.8)
    with pytest.raises(UserError, match="per channel value"):
        accounts.reserve(images, by_images("y", 0.5), budget=0.8)
    with pytest.raises(UserError, match="per image, for noised images of local DP were released"):
        accounts.reserve(images, by_gradients(), budget=10.0)


def hiding_patients(spending):
    return dataclasses.replace(spending, unit="patient")


def test_a_total_is_a_patients_where_all_that_was_taken_hides_patients():
    two = [hiding_patients(by_gradients(entry, steps=100)) for entry in "ab"]
    whole = total(two)
    assert whole.unit == "patient"
    assert whole.unit_epsilon == pytest.approx(independent_epsilon(two, 1e-5), rel=1e-3)
    assert "per patient: 2 runs by DP-SGD" in str(whole)


def test_an_image_among_what_hides_patients_is_counted_as_replaced_and_no_patient_is_reported():
    """To blank an image replaces what its patient contributes, by something else."""
    one, other = by_gradients("a", steps=100), hiding_patients(by_gradients("b", steps=100))
    mixed, alone = total([one, other]), total([one, by_gradients("b", steps=100)])
    assert mixed.unit == "image"
    ledger = [*one.ledger, *other.ledger]
    assert mixed.unit_epsilon == epsilon(ledger, 1e-5, "pld", adjacency="replace-one")
    assert mixed.unit_epsilon > 1.5 * alone.unit_epsilon
    assert "ε of a patient is not known: 1 of 2 protect images alone" in str(mixed)
    assert "patient" not in str(alone)


def test_a_budget_of_patients_is_refused_where_other_runs_hid_images_alone(tmp_path):
    accounts, images = Accounts(tmp_path), digests(1)
    accounts.reserve(images, hiding_patients(by_gradients("a")), budget=10.0)
    accounts.reserve(images, by_gradients("b"), budget=10.0)
    with pytest.raises(UserError, match=r"protect images alone.*privacy\.unit=image"):
        accounts.reserve(images, hiding_patients(by_gradients("c")), budget=10.0)
    with pytest.raises(UserError, match="per image"):
        accounts.reserve(images, by_gradients("d", steps=10_000), budget=1.0)


def test_no_budget_holds_where_a_run_has_no_epsilon(tmp_path):
    accounts, images = Accounts(tmp_path), digests(1)
    accounts.reserve(images, Spending("n", "plain", reason="trained without any mechanism"))
    with pytest.raises(UserError, match="plain has none"):
        accounts.reserve(images, by_gradients(), budget=1e9)
    accounts.settle(Spending("n", "plain"), "failed")  # before its first step
    accounts.reserve(images, by_gradients(), budget=1e9)


LINE = "entries.jsonl"


def lines_of(folder):
    (path,) = folder.glob(f"accounts/*/{LINE}")
    return path


@pytest.mark.parametrize("tail", ["cut", "zeros", "rubbish"])
def test_a_last_line_that_a_power_cut_tore_hides_neither_those_before_nor_after(tmp_path, tail):
    accounts, images = Accounts(tmp_path), digests(1)
    for entry in "ab":
        accounts.reserve(images, by_gradients(entry))
    path = lines_of(tmp_path)
    whole = path.read_bytes()
    more = {"cut": whole[: len(whole) // 4], "zeros": bytes(70), "rubbish": b"\xff{"}[tail]
    path.write_bytes(whole + more)
    assert set(entered(accounts, images)) == {"a", "b"}
    accounts.reserve(images, by_gradients("c"))
    assert set(entered(accounts, images)) == {"a", "b", "c"}
    total_of(accounts.overlapping(images))


def test_no_flipped_bit_changes_what_was_spent_without_an_error(tmp_path):
    accounts, images = Accounts(tmp_path), digests(1)
    accounts.reserve(images, by_gradients("a"))
    path = lines_of(tmp_path)
    whole = path.read_bytes()
    for at in range(len(whole) - 1):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :])
        with pytest.raises(UserError, match="damaged, so what these images have spent"):
            total_of(accounts.overlapping(images))
    path.write_bytes(whole)
    total_of(accounts.overlapping(images))


def test_where_the_images_of_an_account_cannot_be_read_it_may_be_of_any(tmp_path):
    accounts = Accounts(tmp_path)
    accounts.reserve(digests(1), by_gradients("a"))
    (file,) = tmp_path.glob("accounts/*/images")
    content = bytearray(file.read_bytes())
    content[40] ^= 1
    file.write_bytes(content)
    with pytest.raises(UserError, match="images: damaged"):
        accounts.reserve(digests(2), by_gradients("b"), budget=100.0)
    accounts.reserve(digests(2), by_gradients("b"))  # without a budget it goes on
    assert len(accounts.read()) == 2


def enter_until_it_fails(accounts, images, done):
    for number in range(1000):
        accounts.reserve(images, by_gradients(str(number)))
        done.append(str(number))


def test_a_full_disk_enters_nothing_and_leaves_no_half_line(tmp_path, disk):
    with disk(tmp_path / "small", "size=64k") as folder:
        accounts, images = Accounts(folder), digests(1)
        (folder / "ballast").write_bytes(bytes(40_000))
        done = []
        with pytest.raises(OSError, match="No space left"):
            enter_until_it_fails(accounts, images, done)
        (account,) = accounts.read()
        assert list(account.entries) == done
        assert not account.damage


def start(work, *arguments):
    """A process that starts at once: what is loaded here, it has."""
    process = multiprocessing.get_context("fork").Process(target=work, args=arguments)
    process.start()
    return process


def enter_many(folder, who):
    accounts = Accounts(folder)
    for step in range(25):
        accounts.reserve(digests(1, 2), by_gradients(f"{who}-{step}"))
        accounts.settle(by_gradients(f"{who}-{step}", 3), "completed")


def test_several_processes_on_one_account_lose_no_entry_and_make_one_account(tmp_path):
    processes = [start(enter_many, tmp_path, who) for who in range(3)]
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    (account,) = Accounts(tmp_path).read()
    assert set(account.entries) == {f"{who}-{step}" for who in range(3) for step in range(25)}
    assert {entry.status for entry in account.entries.values()} == {"completed"}
    assert not account.damage


def take_the_last(folder, who, budget, begin):
    begin.wait()
    try:
        Accounts(folder).reserve(digests(1), by_gradients(who), budget)
    except UserError:
        sys.exit(7)


def test_of_two_processes_that_want_the_last_of_a_budget_one_gets_it(tmp_path):
    budget = total_of([], by_gradients("a")).unit_epsilon
    begin = multiprocessing.get_context("fork").Barrier(2)
    pair = [start(take_the_last, tmp_path, who, budget, begin) for who in "ab"]
    for process in pair:
        process.join(120)
    assert sorted(process.exitcode for process in pair) == [0, 7]
    assert len(entered(Accounts(tmp_path), digests(1))) == 1


def take_and_tell(folder, pipe):
    for step in itertools.count():
        Accounts(folder).reserve(digests(1), by_gradients(str(step)))
        os.write(pipe, b"%d\n" % step)


def test_a_process_killed_at_any_moment_has_taken_nothing_that_is_not_entered(tmp_path):
    for lines in (1, 7, 20):
        folder = tmp_path / str(lines)
        heard, written = os.pipe()
        process = start(take_and_tell, folder, written)
        os.close(written)
        with os.fdopen(heard) as file:
            for _ in range(lines):
                file.readline()
            process.kill()
            taken = lines + len(file.read().splitlines())
        process.join()
        assert {str(n) for n in range(taken)} <= set(entered(Accounts(folder), digests(1)))
