import pytest

from dpmi.config.identity import cell_name, config_digest
from dpmi.config.schema import schema_keys


def leaves(values, path=()):
    """(path, value) of every key of the schema; a table of numbers is one value."""
    for key, value in values.items():
        if isinstance(value, dict) and ".".join((*path, key)) not in schema_keys():
            yield from leaves(value, (*path, key))
        else:
            yield (*path, key), value


def changed(config, path, value):
    """A config with one other value, whatever the schema thinks of it."""
    key, *rest = path
    return config.model_copy(update={key: changed(getattr(config, key), rest, value)} if rest else {
        key: value
    })  # fmt: skip


def another(value):
    if isinstance(value, bool):
        return not value
    return value + 1 if isinstance(value, int | float) else f"other than {value}"


UNUSED = {
    "none": {"beta", "max_grad_norm", "max_physical_batch_size"},
    "ldp": {"max_grad_norm", "max_physical_batch_size"},
    "dpsgd": set(),
    "ldp_published": {"max_grad_norm", "max_physical_batch_size"},
    "dpsgd_published": {"max_physical_batch_size"},
}


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
@pytest.mark.parametrize("mechanism", UNUSED)
def test_the_digest_covers_all_that_a_run_computes_with_and_nothing_else(composed, mechanism):
    norm = "batch" if mechanism == "dpsgd_published" else "group"  # no other is allowed
    config = composed(f"mechanism={mechanism}", f"model.norm={norm}")
    same = config_digest(config)
    for path, value in leaves(config.model_dump()):
        other = config_digest(changed(config, path, another(value)))
        elsewhere = path[0] in ("output_dir", "cache_dir", "logger", "rerun") or path in (
            ("trainer", "checkpoint_seconds"), ("trainer", "devices"), ("data", "resident"),
            ("privacy", "max_total_epsilon"),
        )  # fmt: skip
        unused = path[0] in UNUSED[mechanism]
        assert (other == same) == (elsewhere or unused), path


def test_a_cell_is_named_by_data_mechanism_beta_and_seed(composed):
    assert cell_name(composed("mechanism=ldp", "beta=0.5")) == "phantom_xray-ldp-beta0.5-seed42"
    assert cell_name(composed("mechanism=none", "seed=1")) == "phantom_xray-none-seed1"
