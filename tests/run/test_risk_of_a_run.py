"""What an attacker can do, in the records of whole runs."""

import math

import dp_accounting
import numpy as np
import pytest
from dp_accounting import pld
from rich.console import Console

from dpmi.privacy.spending import LedgerEntry
from dpmi.run.job import Run
from dpmi.run.records.reading import read_public_record, read_record


@pytest.fixture(scope="module")
def left(composed, tiny, tmp_path_factory):
    """Folder of a run by DP-SGD that releases its threshold beside six steps."""
    folder = tmp_path_factory.mktemp("job")
    words = [word for word in tiny if not word.startswith("model.prior")]
    words += ["model.prior=midway", "mechanism=dpsgd", "beta=0.5"]
    config = composed(*words, f"cache_dir={tmp_path_factory.mktemp('cache')}")
    assert Run(config, folder, Console(quiet=True)).execute().status == "completed"
    return folder


def test_the_bounds_in_the_record_are_those_of_the_ledger_in_it(left):
    """dp-accounting's own accountant, of the whole ledger, under the guarantee's adjacency."""
    record = read_record(left / "record.json")
    entries = [LedgerEntry(**entry) for entry in record.mechanism["ledger"]]
    assert [entry.steps for entry in entries] == [1, 6, 1]
    counting = pld.PLDAccountant(dp_accounting.NeighboringRelation.REPLACE_SPECIAL)
    for entry in entries:
        gaussian = dp_accounting.GaussianDpEvent(entry.noise_multiplier)
        step = dp_accounting.PoissonSampledDpEvent(entry.sample_rate, gaussian)
        counting.compose(step, entry.steps)
    profile = [(e, float(counting.get_delta(e))) for e in np.linspace(0, 7, 61)]
    (risk,) = record.risk
    assert (risk.unit, risk.adjacency) == (record.guarantee.unit, record.guarantee.adjacency)
    assert risk.advantage == pytest.approx(profile[0][1], rel=3e-3)
    assert risk.accuracy == pytest.approx((1 + profile[0][1]) / 2, rel=1e-3)
    for rate, bound in (*risk.true_positive_rates.items(), (1 / 10, risk.candidates["10"])):
        lines = [
            line
            for e, delta in profile
            for line in (
                math.exp(e) * float(rate) + delta,
                1 - math.exp(-e) * (1 - delta - float(rate)),
            )
        ]
        assert bound == pytest.approx(min(lines), rel=5e-3)


def test_the_public_record_has_them_too(left):
    private, public = read_record(left / "record.json"), read_public_record(left / "public.json")
    assert public.risk == private.risk != ()


def test_each_mechanism_is_bounded_as_its_guarantee_says_and_none_without_one(real_records):
    completed = [run for sweep in real_records for run in sweep if run.status == "completed"]
    assert {run.config["mechanism"]["name"] for run in completed} == {
        "none", "ldp", "dpsgd", "ldp_published", "dpsgd_published",
    }  # fmt: skip
    for run in completed:
        if run.guarantee.epsilon is None:
            assert run.risk == ()
            assert run.guarantee.reason
            continue
        first, *others = run.risk
        assert (first.unit, first.adjacency) == (run.guarantee.unit, run.guarantee.adjacency)
        if run.config["mechanism"]["name"] == "ldp":
            (image,) = others
            assert first.accuracy == pytest.approx(1 / (1 + math.exp(-1)), abs=1e-4)
            assert (image.unit, image.says_nothing) == ("image", True)
        else:
            assert 0.5 < first.accuracy < 1 / (1 + math.exp(-1))
            assert not others


def test_a_run_that_failed_before_it_released_anything_bounds_nothing(real_records):
    (failed,) = [run for sweep in real_records for run in sweep if run.status == "failed"]
    assert failed.risk == ()
