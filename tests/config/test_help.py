"""What ``--help`` says of each key."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from dpmi.config.composition import register_resolvers
from dpmi.config.folder import config_dir
from dpmi.config.help import keys_help

GROUPS = ("data", "mechanism", "model", "trainer", "logger")
OPTIONS = [
    [f"{group}={file.stem}" for file in sorted(Path(config_dir(), group).glob("*.yaml"))]
    for group in GROUPS
]
# One option of each group at a time, until there was each of them.
TOGETHER = [
    [options[min(i, len(options) - 1)] for options in OPTIONS]
    for i in range(max(map(len, OPTIONS)))
]


@pytest.fixture
def helped(monkeypatch):
    """The help of a config, as key to (value, meaning), after a look at its width."""
    monkeypatch.setenv("COLUMNS", "72")

    def of(*overrides):
        register_resolvers()
        with initialize_config_dir(config_dir(), version_base="1.3"):
            config = compose("config", list(overrides), return_hydra_config=True)
        found, key = {}, None
        for line in keys_help(config).splitlines():
            if line.startswith("    "):
                assert len(line) <= 72
                found[key][1] = f"{found[key][1]} {line.strip()}".strip()
            elif line:
                key, _, value = line.partition("=")
                found[key] = [value, ""]
        return found

    return of


@pytest.mark.parametrize("options", TOGETHER, ids=" ".join)
def test_every_key_of_every_option_has_a_meaning(helped, options):
    found = helped(*options)
    assert not [key for key, (_, meaning) in found.items() if len(meaning) < 5]
    assert {key.partition(".")[0] for key in found} >= {"beta", "privacy", "data", "model"}


def test_a_key_is_shown_as_one_would_give_it(helped):
    found = helped("noise_seed=3", "model.features.stages=[layer3,layer4]")
    assert found["noise_seed"][0] == "3"
    assert found["model.features.stages"][0] == "[layer3,layer4]"
    assert (found["model.momentum"][0], found["data.resize"][0]) == ("0.9", "null")
    assert found["mechanism.whiten"][0] == "true"
    assert found["cache_dir"][0] == "$${oc.env:DPMI_CACHE,'~/.cache/dpmi'}"  # a template's dollar
    assert "data.name" not in found  # is given by data=OPTION


def test_an_option_that_changes_another_ones_value_says_what_it_means_there(helped):
    assert helped()["trainer.precision"][1].startswith("precision of forward and backward passes")
    assert "whichever is faster here" in helped("trainer=auto")["trainer.precision"][1]
    assert helped("trainer=auto")["trainer.max_epochs"] == helped()["trainer.max_epochs"]


def test_an_experiment_changes_values_and_not_their_meaning(helped):
    found = helped("experiment=frontier_pneumonia", "data.root=/images")
    plain = helped("data=chest_xray", "data.root=/images")
    assert found["model.learning_rate"] == ["1.0", plain["model.learning_rate"][1]]
    assert found["data.image_size"][1] == plain["data.image_size"][1]
