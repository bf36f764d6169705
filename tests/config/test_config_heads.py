import re
from pathlib import Path

import pytest

from dpmi.base.errors import UserError
from dpmi.config.folder import config_dir

PRESETS = (
    "frontier_pneumonia", "frontier_aptos", "frontier_class_means", "frontier_second_moments",
    "frontier_ldp_features",
)  # fmt: skip
HEAD = ("model.train=head", "model.norm=frozen_batch")
FIRST = ("model.train=head_then_all", "model.norm=frozen_batch")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([*HEAD, "mechanism=ldp"], r"^model\.train=head: .*none, dpsgd, class_means"),
        (["model.train=head"], r"^model\.norm=group: .*allowed is frozen_batch"),
        ([*HEAD, "data.augment=affine"], r"^data\.augment=affine: .*allowed is none"),
        (
            [*HEAD, "privacy.unit=image", "data.multiplicity=2"],
            r"^data\.multiplicity=2: .*head.*allowed is 1",
        ),
        ([*HEAD, "trainer.devices=2"], r"^trainer\.devices=2: .*allowed is 1"),
        ([*HEAD, "trainer.compile=true"], r"^trainer\.compile=True: .*allowed is false"),
        (["mechanism=class_means"], r"^model\.train=all: .*allowed is head"),
        ([*HEAD, "mechanism=class_means", "model.head=ordinal"], r"^model\.head=ordinal: "),
        (
            [*HEAD, "mechanism=ldp_features", "model.features.centre=false"],
            r"^model\.features\.centre=False: .*allowed is true",
        ),
        (
            [*HEAD, "mechanism=class_means", "mechanism.moment_scale=0"],
            r"^mechanism\.moment_scale=0.*greater than or equal to",
        ),
        (["mechanism=ldp_features"], r"^model\.train=all: .*allowed is head"),
        (
            [*HEAD, "mechanism=ldp_features", "model.features.drawn_classes=true"],
            r"^model\.features\.drawn_classes=True: .*give model\.features\.project",
        ),
        (["model.features.stages=[]"], r"^model\.features\.stages=\[\]: name one or more"),
        (["model.features.views=[mirror,mirror]"], r"^model\.features\.views=.*each once"),
        ([*FIRST, "mechanism=ldp"], r"^model\.train=head_then_all: .*allowed is all"),
        ([*FIRST, "mechanism=class_means"], r"^model\.train=head_then_all: .*allowed is head"),
        (["model.train=head_then_all"], r"^model\.norm=group: .*allowed is frozen_batch"),
        (["data.batch_size=0"], r"^data\.batch_size=0: allowed are all and integers"),
    ],
)
def test_a_head_that_would_not_do_what_its_config_says_is_refused(composed, overrides, message):
    with pytest.raises(UserError, match=message):
        composed(*overrides)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_of_a_head_is_a_whole_config_under_each_mechanism_and_says_who_chose(
    composed, name
):
    """Nothing of it can depend on a user's images: all of its values are in its file."""
    for mechanism in ("none", "dpsgd", "class_means", "ldp_features"):
        computed = mechanism in ("class_means", "ldp_features")
        if not (computed and name == "frontier_aptos"):  # its head is ordinal
            composed(f"experiment={name}", f"mechanism={mechanism}")
    values = [
        line
        for line in Path(config_dir(), "experiment", f"{name}.yaml").read_text().splitlines()
        if re.match(r"  (  )?\w+: \S", line) or line.startswith("max_grad_norm")
    ]
    chosen = [line for line in values if not re.search(r"(augment|weights|norm|train): ", line)]
    for line in chosen:
        assert re.search(r"# .*(a priori|cross-validation|planned|seen|proxy|as front)", line), line
