import pytest

from dpmi.run.records.reading import read_records

pytestmark = pytest.mark.slow

SET_UP = (
    *("model.norm=batch", "model.average=none"),
    *("trainer.test_every_epoch=true", "trainer.max_epochs=2"),
)


@pytest.fixture(scope="module")
def sweep(shared_place, tiny):
    """The authors' cells at one β, by the command."""
    words = ("-m", "mechanism=none,ldp_published,dpsgd_published", *tiny, *SET_UP)
    done = shared_place.train(*words, "data.batch_size=32", "beta=2", COLUMNS="80")
    assert done.returncode == 0, done.stdout + done.stderr
    (folder,) = shared_place.outputs.iterdir()
    return done.stdout, {r.config["mechanism"]["name"]: r for r in read_records(folder)}


def test_the_records_promise_nothing_and_keep_the_claim(sweep):
    _, records = sweep
    assert records["none"].guarantee.claim is None
    for name in ("ldp_published", "dpsgd_published"):
        promise = records[name].guarantee
        assert promise.epsilon is None
        assert promise.claim.epsilon == 0.5
        assert "epsilon" not in records[name].curves


def test_the_best_test_epoch_is_kept_apart_from_the_last(sweep):
    _, records = sweep
    for record in records.values():
        by_epoch = record.curves["test/accuracy"]
        assert len(by_epoch) == 2
        assert record.metrics["test/accuracy"] == pytest.approx(by_epoch[-1])
        assert record.metrics["selected_on_test/accuracy"] == max(by_epoch)


def test_the_steps_are_those_of_shuffled_batches(sweep):
    _, records = sweep
    found = records["dpsgd_published"].mechanism
    assert found["steps"] == 4  # 60 images in batches of 32 and 28, twice
    assert (found["microbatches"], found["noise_multiplier"]) == (32, 9.7)


def test_the_screen_shows_the_claim_beside_the_accuracy(sweep):
    screen = " ".join(sweep[0].split())
    assert screen.count("the poster's authors claimed ε = 0.5") == 2
    assert screen.count("no privacy guarantee") == 3
    assert "(claimed" in screen
