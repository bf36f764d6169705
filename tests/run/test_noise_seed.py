"""Whoever has a noise_seed can take the noise off: it is in nothing that a run shows or leaves."""

import job_processes
import pytest

from dpmi.config.identity import config_digest, without_noise_seed
from dpmi.config.schema import plain_values
from dpmi.models.weights import read_state_dict
from dpmi.run.durability.job_folder import SEED_FILE
from dpmi.run.records.reading import read_record, read_records

SEED = "918273645"


def test_a_noise_seed_is_in_no_name_and_in_no_file_but_a_private_one(place, tiny):
    """A sweep as the command runs it, with W&B."""
    words = (*tiny, "logger=wandb", "mechanism=none,ldp", f"noise_seed={SEED}")
    done = place.train("-m", *words)
    assert done.returncode == 0, done.stderr
    files = [path for path in place.cwd.parent.rglob("*") if path.is_file()]
    assert {"multirun.yaml", "config.yaml", "record.json", "train.log"} <= {f.name for f in files}
    assert any(path.suffix == ".wandb" for path in files)
    assert not any(SEED in str(path) for path in files)
    holders = [path for path in files if SEED.encode() in path.read_bytes()]
    assert {path.name for path in holders} == {SEED_FILE}
    assert all(path.stat().st_mode & 0o077 == 0 for path in holders)
    for record in read_records(place.outputs):
        assert record.config["noise_seed"] == "given"


def test_no_digest_is_made_with_the_number_of_a_noise_seed(composed):
    """In 2 s all seeds were tried, and the one found whose digest was the record's."""
    without, one, other = (composed(f"noise_seed={seed}") for seed in ("null", 1, 2))
    assert config_digest(one) == config_digest(other) != config_digest(without)
    assert plain_values(one) == plain_values(other)
    assert plain_values(without)["noise_seed"] is None
    assert without_noise_seed("noise_seed=5") == without_noise_seed("noise_seed=6")
    assert without_noise_seed("+noise_seed=5") == "+noise_seed=given"
    for override in ("noise_seed=null", "seed=5", "data.seed=5"):
        assert without_noise_seed(override) == override


def test_a_run_with_another_noise_seed_is_not_taken_for_done(tiny, tmp_path):
    folder = tmp_path / "job"
    command = (*tiny, "mechanism=ldp", f"cache_dir={tmp_path / 'cache'}")

    def run(seed):
        assert job_processes.run(folder, *command, f"noise_seed={seed}") == 0
        weights = read_state_dict(folder / "model.safetensors")["fc.weight"]
        return weights, len(list(folder.glob("superseded/*")))

    first, again, other = run(5), run(5), run(6)
    assert first[1] == again[1] == 0
    assert "not run again" in " ".join(job_processes.printed(folder).split())
    assert other[1] == 1
    assert "another noise_seed" in " ".join(job_processes.printed(folder).split())
    assert (first[0] != other[0]).any()
    assert read_record(folder / "record.json").status == "completed"


def test_a_sweep_over_noise_seeds_is_refused_in_one_line(place, tiny):
    done = place.train("-m", *tiny, "mechanism=none", "noise_seed=1,2")
    assert done.returncode == 2
    assert done.stderr.startswith("error: noise_seed=1,2: ")
    assert done.stderr.count("\n") == 1
    assert not place.outputs.exists()


@pytest.mark.parametrize("mechanism", ["ldp", "dpsgd"])
def test_a_source_made_of_a_noise_seed_says_so_to_the_mechanism(composed, mechanism):
    from dpmi.mechanisms import build_mechanism

    for seed, reproducible in (("5", True), ("null", False)):
        words = (f"mechanism={mechanism}", f"noise_seed={seed}", "mechanism.accountant=rdp")
        config = composed(*words[: 3 if mechanism == "dpsgd" else 2])
        made = build_mechanism(config, 1000)
        assert (
            made.reproducible if mechanism == "dpsgd" else made._noise.reproducible
        ) is reproducible
