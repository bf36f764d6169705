"""A release that two processes make together is the one that one makes alone."""

import multiprocessing

import pytest
import torch
import torch.distributed as dist
from torch import nn

from dpmi.base.ranks import ALONE, Ranks
from dpmi.privacy.engines.bookkeeping import BookKeeping
from dpmi.privacy.gradients import PrivateGradient
from dpmi.privacy.journal import Journal, read_journal
from dpmi.privacy.ledger import Ledger
from dpmi.privacy.noise import GaussianNoise
from dpmi.privacy.plan import PrivacyPlan
from dpmi.privacy.randomness import NoiseSource

CLIP, STEPS = 0.5, 3
SIZES = (5, 1, 0)  # of the batches: unequal parts, an empty one, none at all


class RunsOutOnce(BookKeeping):
    """An engine whose memory does not hold two images, once."""

    ran_out = False

    def add_clipped_sum(self, images, labels, sums, scale):
        if len(images) > 1 and not self.ran_out:
            self.ran_out = True
            sums[next(iter(sums))].fill_(7.0)  # half-finished work
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().add_clipped_sum(images, labels, sums, scale)


def releases(ranks, journal=None, engine=BookKeeping):
    """Gradients of every step, in order; and the gradient's maker."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 3))
    ledger = Ledger()
    gradient = PrivateGradient(
        net,
        engine(net, CLIP, {}),
        plan=PrivacyPlan(
            n=100, expected_batch_size=4, max_grad_norm=CLIP, noise_multiplier=0.5,
            steps=STEPS, delta=1e-4, accountant="prv",
        ),
        noise=GaussianNoise(NoiseSource(3)),
        ledger=ledger,
        physical_batch_size=4,
        journal=journal,
        ranks=ranks,
    )  # fmt: skip
    made = []
    for step, size in enumerate(SIZES):
        generator = torch.Generator().manual_seed(step)
        images = torch.rand(size, 3, 2, 2, generator=generator)
        labels = torch.arange(size) % 3
        if step == 0:
            images[1] = torch.nan  # of the second process, where there are two
        mine = ranks.part(list(range(size)))
        gradient(images[mine], labels[mine])
        made.append(torch.cat([p.grad.flatten() for p in net.parameters()]))
    return torch.stack(made), gradient, ledger


def work(rank, port, engine, folder, pipe):
    torch.set_num_threads(1)
    store = dist.TCPStore("127.0.0.1", port, is_master=False)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2)
    journal = Journal(folder / "journal.jsonl") if rank == 0 else None
    kind = RunsOutOnce if rank == engine else BookKeeping
    made, gradient, ledger = releases(Ranks(rank, 2), journal, kind)
    pipe.send((made.numpy(), gradient.dropped, gradient.physical_batch_size, ledger.entries))
    dist.destroy_process_group()


@pytest.fixture
def together(tmp_path):
    """Make the releases in two processes, one of which, or neither, runs out of memory."""

    def make(out_of_memory=None):
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["dpmi.run.screen.terminal", "hydra", "wandb"])
        store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        heard, processes = [], []
        for rank in range(2):
            ear, mouth = context.Pipe(duplex=False)
            arguments = (rank, store.port, out_of_memory, tmp_path, mouth)
            processes.append(context.Process(target=work, args=arguments))
            processes[-1].start()
            heard.append(ear)
        assert all(ear.poll(60) for ear in heard)
        results = [ear.recv() for ear in heard]
        for process in processes:
            process.join(60)
        return results

    return make


def check(results, expected, piece):
    made, gradient, ledger = expected
    for releases, dropped, size, entries in results:
        torch.testing.assert_close(torch.from_numpy(releases), made, atol=1e-7, rtol=0)
        assert dropped == gradient.dropped == 1
        assert size == piece
        assert entries == ledger.entries
    assert (results[0][0] == results[1][0]).all()  # to the bit


def test_two_processes_release_what_one_releases_with_its_noise_once(together, tmp_path):
    check(together(), releases(ALONE), piece=4)
    (reservation,) = read_journal(tmp_path / "journal.jsonl")
    assert (reservation.first, reservation.physical_batch_size) == (0, 4)


@pytest.mark.parametrize("rank", [0, 1])
def test_where_one_runs_out_of_memory_all_go_on_in_its_pieces_and_the_journal_knows(
    rank, together, tmp_path
):
    """Whoever resumes the run must know that a release was rounded otherwise."""
    check(together(rank), releases(ALONE), piece=1)
    sizes = [r.physical_batch_size for r in read_journal(tmp_path / "journal.jsonl")]
    assert sizes == [4, 1]
