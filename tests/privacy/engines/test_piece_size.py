import job_processes
import pytest
import torch
from torch import nn

from dpmi.models.network import build_network
from dpmi.privacy.engines import piece_size
from dpmi.privacy.engines.bookkeeping import BookKeeping
from dpmi.privacy.engines.opacus_hooks import OpacusHooks
from dpmi.privacy.engines.piece_size import free_memory, physical_batch_size
from dpmi.run.memory import PeakMemory

CPU = torch.device("cpu")
MIB = 2**20


def chosen(net, free_mb, monkeypatch, expected=32, keeps_gradients=False, views=1):
    monkeypatch.setattr(piece_size, "free_memory", lambda device: free_mb * MIB)
    return physical_batch_size(
        net,
        (3, 32, 32),
        expected_batch_size=expected,
        keeps_gradients=keeps_gradients,
        views=views,
    )


def convolution():
    return nn.Sequential(nn.Conv2d(3, 64, 3, padding=1), nn.ReLU(), nn.AvgPool2d(32), nn.Flatten())


def test_a_piece_is_a_power_of_two_that_grows_with_the_free_memory(monkeypatch):
    net = convolution()
    sizes = [chosen(net, free, monkeypatch) for free in (0, 4, 8, 16, 32, 10**6)]
    assert sizes == sorted(sizes)
    assert sizes[0] == 1
    assert sizes[-1] == 64  # twice the expected batch: more memory changes no bit any more
    assert all(size & (size - 1) == 0 for size in sizes)
    assert len(set(sizes)) > 3


def test_an_engine_that_keeps_every_gradient_gets_smaller_pieces(monkeypatch):
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 1000))  # 12 MB of parameters
    assert chosen(net, 400, monkeypatch) == 64
    assert chosen(net, 400, monkeypatch, keeps_gradients=True) == 16


def test_images_in_several_views_are_so_many_fewer_in_a_piece(monkeypatch):
    net = convolution()
    sizes = [chosen(net, 32, monkeypatch, views=views) for views in (1, 2, 4)]
    assert sizes == [sizes[0], sizes[0] // 2, sizes[0] // 4]
    assert sizes[2] > 1


def test_choosing_leaves_the_network_and_the_random_state_alone(monkeypatch):
    net = build_network("resnet18", 2, "group", None)
    before = [p.clone() for p in net.parameters()], torch.get_rng_state()
    chosen(net, 100, monkeypatch)
    assert all(torch.equal(a, b) for a, b in zip(before[0], net.parameters(), strict=True))
    assert all(p.grad is None for p in net.parameters())
    assert torch.equal(before[1], torch.get_rng_state())


def test_the_limit_of_a_container_counts(tmp_path, monkeypatch):
    whole = free_memory(CPU)
    assert whole > 100 * MIB
    limit, statistics = tmp_path / "memory.max", tmp_path / "memory.stat"
    monkeypatch.setattr(piece_size, "_CGROUPS", ((limit, statistics, "anon"),))
    statistics.write_text(f"anon {30 * MIB}\nfile {60 * MIB}\n")
    limit.write_text(f"{100 * MIB}\n")
    assert free_memory(CPU) == 70 * MIB  # pages of files make room when asked
    limit.write_text(f"{20 * MIB}\n")
    assert free_memory(CPU) == 0
    limit.write_text("max\n")
    assert free_memory(CPU) > 100 * MIB


ENGINES = {"fast": BookKeeping, "opacus": OpacusHooks}


def peak_of_a_piece(engine, images, views):
    """MB that one pass takes on top of the network and the clipped sums, in this process."""
    torch.set_num_threads(1)
    net = build_network("resnet18", 2, "group", None)
    batch, labels = torch.rand(images, views, 1, 64, 64), torch.arange(images) % 2
    sums = {p: torch.zeros_like(p) for p in net.parameters()}
    clipping = ENGINES[engine](net, 1.0, {})
    clipping.add_clipped_sum(batch[:1], labels[:1], sums, 1.0)  # what is loaded once and kept
    memory = PeakMemory()
    memory.training_starts(CPU)
    clipping.add_clipped_sum(batch, labels, sums, 1.0)
    return memory.mb()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("views", [1, 2])
def test_a_piece_takes_no_more_memory_than_it_was_given(engine, views, monkeypatch):
    net = build_network("resnet18", 2, "group", None)
    free = 600
    monkeypatch.setattr(piece_size, "free_memory", lambda device: free * MIB)
    images = physical_batch_size(
        net,
        (3, 64, 64),
        expected_batch_size=1000,
        keeps_gradients=engine == "opacus",
        views=views,
    )
    assert images > 1
    with job_processes.context().Pool(1) as pool:
        peak = pool.apply(peak_of_a_piece, (engine, images, views))
    if peak is None:
        pytest.skip("this system cannot forget an earlier peak of memory")
    assert peak < free
