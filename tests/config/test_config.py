import warnings
from pathlib import Path

import pytest
import yaml
from hydra.errors import HydraException
from omegaconf import DictConfig
from test_identity import leaves

from dpmi.base.errors import UserError
from dpmi.config.mistakes import explain
from dpmi.config.schema import Config, load_config, plain_values, schema_keys

REPOSITORY = Path(__file__).resolve().parents[2]
CONF = REPOSITORY / "conf"

REFUSED = {  # overrides to what the line must say: the key with its value, and what is allowed
    "beta=0": ("beta=0", "greater than or equal to 0.000000001"),
    "beta=-1": ("beta=-1", "greater than or equal to 0.000000001"),
    "beta=inf": ("beta=inf", "finite"),
    "beta=nan": ("beta=nan", "finite"),
    "beta=abc": ("beta=abc", "number"),
    "beta=null": ("beta=None", "number"),
    "seed=1.5": ("seed=1.5", "integer"),
    "seed=-1": ("seed=-1", "greater than or equal to 0"),
    "foo=1": ("foo", "no such key", "--help"),
    "+foo=1": ("foo", "no such key"),
    "model.nrom=group": ("model.nrom", "no such key", "model.norm"),
    "+model.foo=1": ("model.foo", "no such key"),
    "+data.foo=1": ("data.foo", "no such key"),
    "mechanism=foo": (
        "mechanism=foo",
        "dpsgd, dpsgd_published, ldp, ldp_features, ldp_published, none",
    ),
    "experiment=foo": (
        "experiment=foo",
        "as_published_aptos, as_published_pneumonia, figure4_aptos, figure4_pneumonia",
    ),
    "mechanism=ldp trainer.test_every_epoch=true": ("trainer.test_every_epoch=True", "false"),
    "mechanism=dpsgd trainer.test_every_epoch=true": ("trainer.test_every_epoch=True", "flatters"),
    "mechanism=dpsgd model.norm=batch": ("model.norm=batch", "mixes", "group and frozen_batch"),
    "model.norm=instance": ("model.norm=instance", "'batch', 'group', 'frozen_batch' or 'layer'"),
    "model.norm=layer": ("model.norm=layer: resnet18 has no LayerNorm", "group, frozen_batch"),
    "model=vit_b_16 model.norm=group": ("model.norm=group: vit_b_16 has LayerNorm", "is layer"),
    "model=vit_b_16 data.image_size=40": ("data.image_size=40", "multiples of 16"),
    "model=vit_b_16 model.train=head model.features.stages=[layer1]": (
        "model.features.stages=layer1: the stages of vit_b_16",
        "allowed is penultimate",
    ),
    "model=convnext_tiny mechanism.engine=opacus": ("mechanism.engine=opacus", "allowed is fast"),
    "model=vit_b_16 experiment=as_published_aptos mechanism=dpsgd_published data.root=/x": (
        "model.name=vit_b_16",
        "allowed is resnet18",
    ),
    "model.name=alexnet": ("model.name=alexnet: allowed are convnext_tiny", "vit_b_16"),
    "model.input=raw": ("model.input=raw", "'auto', 'imagenet', 'half' or 'xrv'"),
    "data.image_size=16": ("data.image_size=16", "greater than or equal to 32"),
    "data.image_size=64 data.resize=40": ("data.resize=40", "data.image_size=64", "64 or more"),
    "model.frozen=layer4": ("model.frozen=layer4", "'layer2' or 'layer3'"),
    "model.frozen=stem model.weights=null": ("model.frozen=stem", "random", "null"),
    "model.frozen=stem model.norm=batch mechanism=none": ("model.frozen=stem", "statistics"),
    "model.norm=frozen_batch model.weights=null": ("model.norm=frozen_batch", "model.weights"),
    "data=folder data.test_fraction=1": ("data.test_fraction=1", "less than 1"),
    "data=folder data.bit_depth=7": ("data.bit_depth=7", "auto and integers from 8 to 16"),
    "data=folder data.window=[40]": ("data.window=[40]", "null and two numbers, as [0,4095]"),
    "data=folder data.window=[40,0]": ("data.window=[40, 0]", "width, must be 1 or more"),
    "data=csv data.value_range=[5,1]": ("data.value_range=[5, 1]", "lower than the second"),
    "data=csv data.value_range=[0,inf]": ("data.value_range=[0, inf]", "null and two numbers"),
    "data=chest_xray data.root=x data.max_left_out=2": ("data.max_left_out=2", "equal to 1"),
    "data=chest_xray data.root=null": ("data.root=None", "string"),
    "data=chest_xray data.root=???": ("data.root", "missing"),
    "mechanism.delta=0": ("mechanism.delta=0", "greater than 0"),
    "mechanism.delta=1": ("mechanism.delta=1", "less than 1"),
    "max_grad_norm=0": ("max_grad_norm=0", "greater than or equal to 0.000000001"),
    "mechanism.accountant=gdp": ("mechanism.accountant=gdp", "'prv', 'rdp' or 'pld'"),
    "max_physical_batch_size=0": ("max_physical_batch_size=0", "greater than or equal to 1"),
    "max_physical_batch_size=all": ("max_physical_batch_size=all", "auto"),
    "trainer.precision=16-mixed": ("trainer.precision=16-mixed", "'32-true' or 'bf16-mixed'"),
    "trainer.compile=true mechanism.engine=opacus": ("trainer.compile=True", "fast"),
    "data.resident=gpu": ("data.resident=gpu", "auto, true and false"),
    "data.resident=true data.num_workers=2": ("data.num_workers=2", "allowed is 0"),
    "data.multiplicity=0": ("data.multiplicity=0", "greater than or equal to 1"),
    "privacy.unit=image data.multiplicity=2 data.augment=none": (
        "data.multiplicity=2",
        "the same",
        "allowed is 1",
    ),
    "mechanism=dpsgd_published data=chest_xray data.root=x model.norm=batch data.multiplicity=2": (
        "data.multiplicity=2",
        "mechanism=dpsgd_published",
        "allowed is 1",
    ),
    "trainer.devices=0": ("trainer.devices=0", "greater than or equal to 1"),
    "trainer=ddp mechanism=none model.norm=batch": (
        "model.norm=batch",
        "trainer.devices=2",
        "group and frozen_batch",
    ),
    "trainer=ddp mechanism=dpsgd_published data=chest_xray data.root=x model.norm=batch": (
        "trainer.devices=2",
        "mechanism=dpsgd_published",
        "allowed is 1",
    ),
    "trainer.max_epochs=0": ("trainer.max_epochs=0", "greater than or equal to 1"),
    "mechanism.delta=small": ("mechanism.delta=small", "auto"),
    "noise_seed=1 privacy.max_epsilon=1": ("privacy.max_epsilon=1", "noise_seed=null"),
    "privacy.max_epsilon=0": ("privacy.max_epsilon=0", "greater than 0"),
    "mechanism=none privacy.max_epsilon=1": ("privacy.max_epsilon=1", "mechanism=none", "null"),
    "trainer.checkpoint_seconds=-1": ("trainer.checkpoint_seconds=-1", "or equal to 0"),
    "seed=1099511627776": ("seed=1099511627776", "less than 4294967296"),
    "data=folder data.split_seed=4294967296": ("data.split_seed=4294967296", "less than"),
    "beta=1e300": ("beta=1e+300", "less than or equal to 1000000000"),
    "beta=1e-310": ("beta=1e-310", "greater than or equal to 0.000000001"),
    "max_grad_norm=1e300": ("max_grad_norm=1e+300", "less than or equal to 1000000000"),
    "model.learning_rate=1e300": ("model.learning_rate=1e+300", "auto", "up to 1000000"),
    "model.learning_rate=true": ("model.learning_rate=True", "auto"),
    "mechanism.noise_walk=0": ("mechanism.noise_walk=0", "auto", "null"),
    "model.weight_decay=1e300": ("model.weight_decay=1e+300", "less than or equal to 1000000"),
    "trainer.max_epochs=99999999999": ("trainer.max_epochs=99999999999", "equal to 2147483647"),
    "max_physical_batch_size=99999999999": ("max_physical_batch_size=99999999999", "2147483647"),
    "data.batch_size=99999999999": ("data.batch_size=99999999999", "2147483647"),
    "data.train_images=1000000000000": ("data.train_images=1000000000000", "equal to 10000000"),
    "data.num_workers=-1": ("data.num_workers=-1", "greater than or equal to 0"),
    "data.num_workers=100000": ("data.num_workers=100000", "less than or equal to 1024"),
    "data=medmnist data.name=chestmnist": ("data.name=chestmnist: allowed are pathmnist, derma",),
    "data.name=none": ("data.name=none: allowed are phantom_xray, phantom_fundus",),
    "data=nih data.finding=Oedema": ("data.finding=Oedema", "'Edema'"),
    "logger.project=a/b": ("logger.project=a/b", "none of / "),
    "data=folder data.root=/x/a=b": ("data.root=/x/a=b", """write 'data.root="/x/a=b"'"""),
    "data=folder data.root=/x/ü": ("data.root=/x/ü", """write 'data.root="/x/ü"'"""),
    "data=folder data.root=/x/a,b": ("data.root=/x/a,b", """write 'data.root="/x/a,b"'"""),
    "logger.mode=loud": ("logger.mode=loud", "'auto', 'online' or 'offline'"),
    "beta=[1": ("beta=[1", "KEY=VALUE"),
}


@pytest.mark.parametrize("overrides", REFUSED)
def test_a_refused_config_is_one_line_of_key_value_and_what_is_allowed(composed, overrides):
    with pytest.raises((UserError, HydraException)) as refusal:
        composed(*overrides.split())
    line = explain(refusal.value)
    assert "\n" not in line
    assert "full_key" not in line
    assert str(REPOSITORY) not in line
    for words in REFUSED[overrides]:
        assert words in line


def test_every_mistake_of_a_config_is_named(composed):
    with pytest.raises(
        UserError, match=r"seed=-2: .*; beta=-1: .*; data\.batch_size=0: "
    ) as refusal:
        load_config(
            DictConfig(
                composed().model_dump(mode="json")
                | {"beta": -1, "seed": -2}
                | {"data": composed().data.model_dump() | {"batch_size": 0}}
            )
        )
    assert "\n" not in str(refusal.value)


def test_batch_norm_is_allowed_where_gradients_are_not_clipped(composed):
    for mechanism in ("none", "ldp"):
        assert composed(f"mechanism={mechanism}", "model.norm=batch").model.norm == "batch"


@pytest.mark.parametrize(
    ("experiment", "dataset"), [("figure4_pneumonia", "chest_xray"), ("figure4_aptos", "aptos")]
)
@pytest.mark.parametrize("mechanism", ["none", "ldp", "dpsgd"])
def test_the_experiments_are_the_posters_set_up(composed, experiment, dataset, mechanism):
    config = composed(
        f"experiment={experiment}", f"mechanism={mechanism}", "beta=2", "data.root=/images"
    )
    assert config.data.model_dump() == {
        "name": dataset,
        "root": "/images",
        "test": "official",
        "resize": 256,
        "image_size": 224,
        "batch_size": 128,
        "augment": "affine",
        "multiplicity": 1,
        "on_corrupt": "error",
        "max_left_out": 0.1,
        "num_workers": 0,
        "resident": "auto",
        "groups": ["kind"] if dataset == "chest_xray" else None,
    }
    of_heads = {"head", "features"}
    assert config.model.model_dump(exclude=of_heads) == {
        "name": "resnet18",
        "weights": "imagenet",
        "input": "auto",
        "train": "all",
        "frozen": None,
        "prior": "train",
        "average": "none",
        "schedule": "constant",
        "norm": "frozen_batch",  # not the poster's BatchNorm, for which no ε holds
        "learning_rate": 0.01,
        "weight_decay": 0.001,
        "momentum": 0.0,
        "gradient_clip_val": None,
    }
    assert (config.trainer.max_epochs, config.seed, config.beta) == (50, 42, 2.0)
    if config.mechanism.name == "dpsgd":
        assert config.mechanism.calibration == "epsilon"
        assert (config.mechanism.delta, config.max_grad_norm) == (1e-4, 1.0)


def test_delta_follows_from_the_number_of_images_but_where_the_poster_is_compared_with(composed):
    deltas = {
        words: composed(*words.split()).mechanism.delta
        for words in ("data=folder", "experiment=figure4_aptos", "experiment=figure4_pneumonia")
    }
    assert list(deltas.values()) == ["auto", 1e-4, 1e-4]
    changed = composed("experiment=figure4_aptos", "mechanism.delta=1e-6")
    assert changed.mechanism.delta == 1e-6


@pytest.mark.parametrize(
    ("words", "frozen", "rate", "walk"),
    [
        ("mechanism=none", None, 0.01, None),
        ("mechanism=ldp", None, 0.01, None),
        ("mechanism=dpsgd", "all_but_norms", 0.05, 0.05),
        ("mechanism=dpsgd model.frozen=null", None, 0.01, 0.008),
        ("mechanism=dpsgd model.frozen=layer2", "layer2", 0.01, 0.008),
        ("mechanism=dpsgd model.weights=null", None, 0.01, 0.008),
        ("mechanism=none model.frozen=all_but_norms", "all_but_norms", 0.05, None),
        ("mechanism=dpsgd model.train=head model.norm=frozen_batch", None, 0.01, None),
    ],
)
def test_what_auto_stands_for_follows_from_the_mechanism_and_what_is_trained(
    composed, words, frozen, rate, walk
):
    config = composed(*words.split())
    assert (config.frozen, config.learning_rate, config.noise_walk) == (frozen, rate, walk)


def test_an_experiments_values_can_be_changed_on_the_command_line(composed):
    config = composed("experiment=figure4_aptos", "trainer.max_epochs=2", "model.weights=phantom")
    assert (config.trainer.max_epochs, config.model.weights) == (2, "phantom")


@pytest.mark.parametrize(
    ("experiment", "dataset"),
    [("as_published_pneumonia", "chest_xray"), ("as_published_aptos", "aptos")],
)
@pytest.mark.parametrize("mechanism", ["none", "ldp_published", "dpsgd_published"])
def test_the_experiments_as_published_differ_from_the_posters_set_up_in_the_flaws_alone(
    composed, experiment, dataset, mechanism
):
    figure4 = experiment.replace("as_published", "figure4")
    ours = composed(f"experiment={experiment}", f"mechanism={mechanism}", "beta=2").model_dump()
    honest = composed(f"experiment={figure4}", "mechanism=none", "beta=2").model_dump()
    assert ours["data"] == honest["data"]
    assert ours["model"] == honest["model"] | {"norm": "batch"}
    assert ours["trainer"] == honest["trainer"] | {"test_every_epoch": True}
    for key in ("seed", "noise_seed", "beta", "max_grad_norm"):
        assert ours[key] == honest[key]


def keys_with_lines(text):
    """(path, line) of every key in a YAML text whose value is no section."""

    def walk(node, path):
        for key, value in node.value:
            here = (*path, key.value)
            if isinstance(value, yaml.MappingNode):
                yield from walk(value, here)
            elif not isinstance(value, yaml.SequenceNode):
                yield here, lines[key.start_mark.line]

    lines = text.splitlines()
    return list(walk(yaml.compose(text), ()))


OF_HYDRA = sorted((CONF / "hydra").glob("*/*.yaml"))
OPTIONS = sorted(
    path
    for path in CONF.rglob("*.yaml")
    if path.parent.name not in ("experiment", "conf", "launcher", "sweeper")
)


@pytest.mark.parametrize(
    "file", [CONF / "config.yaml", *OPTIONS, *OF_HYDRA], ids=lambda path: path.stem
)
def test_every_key_says_in_a_comment_what_it_means(file):
    text = file.read_text()
    assert text.startswith("# ")
    for path, line in keys_with_lines(text):
        if path[0] in ("hydra", "defaults") or path in (("name",), ("_target_",)):  # Hydra's own
            continue
        comment = line.partition(" # ")[2] or line.partition("  # ")[2]
        assert len(comment.strip()) >= 5, f"{file.name}: {'.'.join(path)} has no comment"


@pytest.mark.parametrize("file", sorted((CONF / "experiment").glob("*.yaml")), ids=lambda p: p.stem)
def test_experiments_set_only_keys_that_are_explained_elsewhere(file):
    text = file.read_text()
    assert text.startswith("# @package _global_\n# ")
    explained = {".".join(path) for path, _ in keys_with_lines((CONF / "config.yaml").read_text())}
    for option in OPTIONS:
        group = option.parent.name
        for path, _ in keys_with_lines(option.read_text()):
            explained |= {f"{group}.{path[0]}", ".".join((group, *path))}
    for path, _ in keys_with_lines(text):
        assert path[0] == "defaults" or ".".join(path) in explained


def test_the_files_and_the_schema_have_the_same_keys(composed):
    in_files = set()
    for option in OPTIONS:
        if option.parent.name == "poster":  # what an experiment puts over a mechanism's option
            continue
        other = {  # than by default, which these do not allow
            "dpsgd_published": ["model.norm=batch"],
            "class_means": ["model.train=head", "model.norm=frozen_batch"],
            "ldp_features": ["model.train=head", "model.norm=frozen_batch"],
        }.get(option.stem, [])
        config = composed(f"{option.parent.name}={option.stem}", *other)
        in_files |= {".".join(path) for path, _ in leaves(config.model_dump())}
    assert in_files == schema_keys()
    assert {key.split(".")[0] for key in in_files} == set(Config.model_fields)


def test_a_pair_of_numbers_is_written_down_without_a_warning(composed):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        values = plain_values(
            composed("data=folder", "data.window=[40,400]", "data.value_range=[0,4095]")
        )
    assert values["data"]["window"] == [40.0, 400.0]
    assert values["data"]["value_range"] == [0.0, 4095.0]
