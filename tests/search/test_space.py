import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.initialize import initialize_config_dir
from hypothesis import given
from hypothesis import strategies as st

from dpmi.base.errors import UserError
from dpmi.config.folder import config_dir

optuna = pytest.importorskip("optuna", reason="the optuna extra is not installed")

from optuna.distributions import (  # noqa: E402
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from dpmi.search.space import read_space  # noqa: E402


def space_of(*words):
    with initialize_config_dir(config_dir(), version_base="1.3"):
        return read_space(words, GlobalHydra.instance().config_loader())


GRAMMAR = {
    "x=a,b": CategoricalDistribution(["a", "b"]),
    "x=choice(1,2.5,[1,2])": CategoricalDistribution(["1", "2.5", "[1,2]"]),
    "x=a,b,a": CategoricalDistribution(["a", "b"]),
    "mechanism=glob([none,dpsgd])": CategoricalDistribution(["dpsgd", "none"]),
    "x=interval(1,5)": FloatDistribution(1.0, 5.0),
    "x=tag(log,interval(1e-4,1))": FloatDistribution(1e-4, 1.0, log=True),
    "x=int(interval(1,5))": IntDistribution(1, 5),
    "x=int(tag(log,interval(1,64)))": IntDistribution(1, 64, log=True),
    "x=tag(log,range(1,65))": IntDistribution(1, 64, log=True),
    "x=range(0,0.3,0.1)": FloatDistribution(0.0, 0.2, step=0.1),
}


@pytest.mark.parametrize("word", GRAMMAR)
def test_hydras_grammar_is_read_as_hydra_means_it(word):
    assert list(space_of(word).varied.values()) == [GRAMMAR[word]]


@given(st.integers(-20, 20), st.integers(-20, 20), st.integers(-7, 7).filter(bool))
def test_a_range_has_the_numbers_that_hydra_enumerates(start, stop, step):
    word = f"x=range({start},{stop},{step})"
    (override,) = OverridesParser.create().parse_overrides([word])
    numbers = [int(text) for text in override.sweep_string_iterator()]
    if not numbers:
        with pytest.raises(UserError, match="no number is in it"):
            space_of(word)
        return
    found = space_of(word).varied["x"]
    assert sorted(numbers) == list(range(found.low, found.high + 1, found.step))


MISTAKES = {
    "x=interval(5,1)": "no interval of numbers",
    "x=interval(1,inf)": "no interval of numbers",
    "x=tag(log,interval(0,1))": "low > 0",
    "x=tag(log,range(1,9,2))": "step",
    "x=tag(log,range(1.0,2.0,0.5))": "whole numbers",
    "x=tag(log,choice(1,2))": "no logarithm",
    "x=tag(uniform,interval(1,2))": "no such tag: uniform",
    "x=shuffle(1,2)": "order",
    "x=range(1,1)": "no number",
    "x=range(1,2,0)": "no number",
    "mechanism=glob(nothing*)": "no option",
    "x=1": "nothing is varied",
}


@pytest.mark.parametrize("word", MISTAKES)
def test_what_cannot_be_drawn_from_is_named_with_what_is_allowed(word):
    with pytest.raises(UserError, match="allowed are choice") as refused:
        space_of(word)
    assert MISTAKES[word] in str(refused.value)
    assert word in str(refused.value) or word == "x=1"


def test_examples_hold_all_options_of_groups_together_and_each_end_of_the_others():
    space = space_of(
        "mechanism=none,dpsgd",
        "data=phantom_xray,folder",
        "beta=interval(1,4)",
        "model.norm=group,frozen_batch",
        "seed=1",
    )
    examples = [space.overrides(values) for values in space.examples()]
    for mechanism in ("none", "dpsgd"):
        for data in ("phantom_xray", "folder"):
            mine = [w for w in examples if w[:2] == [f"mechanism={mechanism}", f"data={data}"]]
            assert {w[2] for w in mine} == {"beta=1.0", "beta=4.0"}
            assert {w[3] for w in mine} == {"model.norm=group", "model.norm=frozen_batch"}
    assert all(words[4] == "seed=1" for words in examples)
