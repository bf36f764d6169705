import pytest

from dpmi.base.errors import UserError

optuna = pytest.importorskip("optuna", reason="the optuna extra is not installed")

from optuna.distributions import CategoricalDistribution, FloatDistribution  # noqa: E402

from dpmi.search.study import STUDY_FILE, add, choose, open_study, unfinished  # noqa: E402

VARIED = {
    "model.learning_rate": FloatDistribution(1e-3, 1.0, log=True),
    "model.norm": CategoricalDistribution(["group", "frozen_batch"]),
}
TERMS = ["mechanism=none"]


def scored(values):
    return values["model.learning_rate"] + (values["model.norm"] == "group")


def search(folder, trials, tell=lambda number: True):
    """A search whose runs take no time; what it chose, trial by trial."""
    study = open_study(folder, TERMS, "code")
    while len(study.trials) < trials:
        values = choose(study, VARIED, seed=1)
        trial = add(study, values, VARIED, str(len(study.trials)))
        if tell(trial.number):
            study.tell(trial.number, scored(values))
    return [trial.params for trial in study.trials]


def test_a_search_that_is_opened_again_chooses_as_one_that_was_not_closed(tmp_path):
    """Beyond the ten trials that are chosen without looking at earlier ones."""
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    whole = search(tmp_path / "one", 16)
    for trials in range(1, 17):
        parts = search(tmp_path / "other", trials)
    assert parts == whole
    assert len({trial["model.learning_rate"] for trial in whole}) == 16
    later = whole[10:]
    assert sum(values["model.norm"] == "group" for values in later) >= 4  # it learns


def test_other_seeds_choose_otherwise(tmp_path):
    study = open_study(tmp_path, TERMS, "code")
    assert len({choose(study, VARIED, seed)["model.learning_rate"] for seed in range(20)}) == 20


def test_a_trial_is_unfinished_until_it_has_a_value(tmp_path):
    search(tmp_path, 4, tell=lambda number: number != 2)
    (left,) = unfinished(open_study(tmp_path, TERMS, "code"))
    assert (left.number, left.user_attrs) == (2, {"folder": "2"})


def test_wherever_a_write_was_cut_the_search_goes_on(tmp_path):
    chosen = search(tmp_path, 3)
    path = tmp_path / STUDY_FILE
    whole = path.read_bytes()
    last = whole.rstrip(b"\n").rfind(b"\n") + 1
    for end in (last + 1, (last + len(whole)) // 2, len(whole) - 1):
        path.write_bytes(whole[:end])
        path.with_name(f"{STUDY_FILE}.lock").touch()  # of the process that was killed
        study = open_study(tmp_path, TERMS, "code")
        assert [trial.params for trial in study.trials] == chosen
        assert [trial.number for trial in unfinished(study)] == [2]  # its value was lost


def test_another_search_in_the_same_folder_is_refused_and_leaves_the_first_alone(tmp_path):
    search(tmp_path, 2)
    before = (tmp_path / STUDY_FILE).read_bytes()
    for terms, message in ((["mechanism=ldp"], "mechanism=none"), ([*TERMS, "x=1"], "fewer keys")):
        with pytest.raises(UserError, match="holds another search") as error:
            open_study(tmp_path, terms, "code")
        assert message in str(error.value)
    assert (tmp_path / STUDY_FILE).read_bytes() == before


@pytest.mark.parametrize(("code", "anew"), [("code", True), ("other code", False)])
def test_a_search_that_begins_anew_keeps_what_was_there(tmp_path, capsys, code, anew):
    search(tmp_path, 2)
    before = (tmp_path / STUDY_FILE).read_bytes()
    assert open_study(tmp_path, TERMS, code, anew=anew).trials == []
    (kept,) = (tmp_path / "superseded").iterdir()
    assert kept.read_bytes() == before
    assert ("the code has changed" in capsys.readouterr().out) == (not anew)
