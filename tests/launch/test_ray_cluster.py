import re
import time
from pathlib import Path

import pytest

from dpmi.run.records.reading import read_records
from dpmi.run.screen.status import read_status

REPOSITORY = Path(__file__).resolve().parents[2]
CPU = ("trainer.accelerator=cpu", "model.weights=null", "logger=csv")
RAY = ("-m", "hydra/launcher=ray")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["cpus=0"], "cpus=0: allowed is a whole number of at least 1"),
        (["cpus=null"], "cpus=None: allowed is a whole number of at least 1"),
        (["gpus=0.5"], "gpus=0.5: allowed is a whole number of at least 0, or null"),
        (["retries=-1"], "retries=-1: allowed is a whole number of at least 0"),
        (["resources=highmem"], "resources=highmem: allowed is {NAME: NUMBER}"),
        (["address=evil://x"], "address=evil://x: allowed are auto, HOST:PORT, or null"),
        (["address=localhost:1"], "address=localhost:1: no Ray there"),
    ],
    ids=str,
)
def test_a_mistake_is_one_line_before_anything_is_written(place, words, message):
    done = place.train(*RAY, "beta=1,2", *CPU, *[f"hydra.launcher.{word}" for word in words])
    assert done.returncode == 2
    assert re.fullmatch(r"error: [^\n]+\n", done.stderr)
    assert f"hydra.launcher.{message}" in done.stderr
    assert place.files(place.cwd) == set()


@pytest.fixture
def two_nodes(place, monkeypatch):
    """A Ray cluster on this machine: a head without cores, and two nodes with one each."""
    # The place is the home of all: a cluster lets in who has its token, which lies there.
    monkeypatch.setenv("HOME", str(place.home))
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))  # as if it were installed on the nodes
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    from ray.cluster_utils import Cluster

    store = {"object_store_memory": 100 * 2**20}
    cluster = Cluster(True, head_node_args={"num_cpus": 0, "include_dashboard": False, **store})
    try:
        nodes = [cluster.add_node(num_cpus=1, **store) for _ in range(2)]
        yield cluster, nodes
    finally:
        cluster.shutdown()


def raylet(node):
    from ray._private.ray_constants import PROCESS_TYPE_RAYLET

    (info,) = node.all_processes[PROCESS_TYPE_RAYLET]
    return info.process.pid


def parent(pid):
    try:
        return int(open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[1])
    except OSError:
        return None


@pytest.mark.slow
def test_a_sweep_spreads_over_two_nodes_and_is_complete_though_one_is_killed(
    place, tiny, two_nodes
):
    cluster, nodes = two_nodes
    raylets = {raylet(node): number for number, node in enumerate(nodes)}
    longer = [word.replace("max_epochs=1", "max_epochs=6") for word in tiny]
    longer.append("model.name=resnet18")  # long enough to be found at work
    words = ("mechanism=ldp,dpsgd", "beta=1,2,4", "trainer.checkpoint_seconds=0.5")
    process = place.start(*RAY, f"hydra.launcher.address={cluster.address}", *words, *longer)
    ran_on, killed = {}, None  # job's folder to nodes
    try:
        deadline = time.monotonic() + 540
        while process.poll() is None:
            assert time.monotonic() < deadline
            for folder in place.outputs.glob("*/*-seed42-*"):
                status = read_status(folder)
                node = raylets.get(parent(status.pid)) if status else None
                if node is None:
                    continue
                ran_on.setdefault(folder.name, set()).add(node)
                if killed is None and node == 1 and status.epochs_done >= 3:
                    killed = folder.name
                    cluster.remove_node(nodes[1], allow_graceful=False)
            time.sleep(0.1)
        out, err = process.communicate()
    finally:
        process.kill()
    assert process.returncode == 0, (out, err)
    records = read_records(place.outputs)
    assert [record.status for record in records] == ["completed"] * 6
    assert killed is not None
    assert {0, 1} == set().union(*ran_on.values())
    assert ran_on[killed] == {0, 1}  # begun on one, ended on the other
    (log,) = place.outputs.glob(f"*/{killed}/train.log")
    resumed = re.search(r"resumed after (\d+) steps", log.read_text())
    assert 0 < int(resumed[1]) < 36  # not from the start
    assert sorted(record.restarts for record in records) == [0, 0, 0, 0, 0, 1]
