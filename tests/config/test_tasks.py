"""One class an image or several findings: what each task takes, and what it refuses by name."""

import pytest

from dpmi.base.errors import UserError
from dpmi.config.identity import config_digest

NIH = ("data=nih", "data.task=multilabel")


def test_a_newcomer_names_the_task_alone(composed):
    config = composed(*NIH)
    assert config.multilabel
    assert (config.model.prior, config.data.finding) == ("midway", None)
    assert len(config.data.learned) == 14
    assert composed(*NIH, "data.findings=[Mass,Edema]").data.learned == ("Mass", "Edema")
    assert len(composed("data=chexpert", "data.task=multilabel").data.learned) == 13


def test_without_it_one_finding_is_learned_and_the_config_says_which(composed):
    config = composed("data=nih")
    assert (config.multilabel, config.data.finding) == (False, "Pneumonia")
    assert composed("data=nih", "data.finding=Mass").data.learned == ("Mass",)
    assert not composed("data=phantom_xray").multilabel


def test_task_and_findings_are_a_part_of_what_a_run_is(composed):
    words = [("data=nih",), NIH, (*NIH, "data.findings=[Mass]"), (*NIH, "data.findings=[Edema]")]
    assert len({config_digest(composed(*some)) for some in words}) == 4


@pytest.mark.parametrize("mechanism", ["none", "ldp", "dpsgd"])
def test_mechanisms_that_learn_findings(composed, mechanism):
    assert composed(*NIH, f"mechanism={mechanism}").multilabel


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("data.finding=Mass",), r"data.finding=Mass: .*allowed is null .data.findings=\[Mass\]"),
        (("mechanism=class_means",), "under mechanism none, ldp, dpsgd; under mechanism=class_m"),
        (("mechanism=ldp_features",), "under mechanism=ldp_features allowed is classes"),
        (("mechanism=ldp_published",), "under mechanism=ldp_published allowed is classes"),
        (("mechanism=dpsgd_published", "model.norm=batch"), "=dpsgd_published allowed is classes"),
        (("model.train=head_then_all",), "multilabel allowed are all and head"),
        (
            ("model.train=head", "model.norm=frozen_batch", "model.head=ordinal"),
            "model.head=ordinal: findings have no order; .* allowed is linear",
        ),
        (("mechanism=none", "trainer.test_every_epoch=true"), "findings have none of; .* false"),
        (("data=csv", "data.graded=true"), "data.graded=True: findings are present or absent"),
        (("data.findings=[Mas]",), "data.findings.0=Mas"),
        (("data.findings=[Mass,Mass]",), "name one or more, each once"),
        (("data.task=classes", "data.findings=[Mass]"), "under data.task=classes allowed is null"),
    ],
)
def test_what_findings_do_not_have_is_refused_in_one_line(composed, words, message):
    own = any(word.startswith("data=") for word in words)
    with pytest.raises(UserError, match=message) as refused:
        composed(*NIH[own:], *words)
    assert "\n" not in str(refused.value)
