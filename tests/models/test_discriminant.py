import torch

from dpmi.models.discriminant import discriminant, first_head


def classes(n=4000, d=64, apart=0.6):
    """Vectors of length one of two classes of unlike size, their sums and counts."""
    generator = torch.Generator().manual_seed(0)
    labels = (torch.arange(n) % 4 == 0).long()
    direction = torch.zeros(d)
    direction[0] = apart
    rows = torch.randn(n, d, generator=generator) / d**0.5 + 1 / d**0.5
    rows += (labels[:, None] - 0.5) * direction
    rows = (rows / rows.norm(dim=1, keepdim=True)).double()
    sums = torch.stack([rows[labels == k].sum(0) for k in (0, 1)])
    return rows.float(), labels, sums, torch.bincount(labels).double()


def margins(head, rows):
    weight, bias = head
    logits = rows @ weight.T + bias
    return logits[:, 1] - logits[:, 0]


def test_without_noise_a_first_head_decides_as_the_discriminant_does():
    rows, labels, sums, counts = classes()
    first, plain = first_head(sums, counts, 0.0, 0.0), discriminant(sums, counts, 0.0, 0.0)
    torch.testing.assert_close(margins(first, rows), margins(plain, rows), rtol=1e-3, atol=1e-3)
    assert ((margins(first, rows) > 0) == labels.bool()).float().mean() > 0.95


def test_a_first_head_is_less_sure_the_more_noise_its_sums_have_and_knows_nothing_of_noise_alone():
    """Of noise alone; 100 draws, of which none may be surer than one in ten of the clean head."""
    rows, _, sums, counts = classes()
    clean, last = margins(first_head(sums, counts, 0.0, 0.0), rows).std(), torch.inf
    generator = torch.Generator().manual_seed(1)
    for std in (10.0, 20.0, 30.0):
        noise = std * torch.randn(100, *sums.shape, generator=generator).double()
        noisy = [margins(first_head(sums + e, counts, std, 0.0), rows).std() for e in noise]
        mean = float(torch.stack(noisy).mean())
        assert mean < last
        last = mean
    shrunk = [
        margins(first_head(sums.mean(0) + 1e3 * e, counts, 1e3, 0.0), rows).std()
        for e in torch.randn(100, *sums.shape, generator=generator).double()
    ]
    assert max(shrunk) < clean / 10


def test_the_log_of_the_shares_is_all_that_is_left_of_a_head_that_noise_hides():
    _, _, _, counts = classes()
    sums = torch.zeros(2, 64, dtype=torch.float64)
    weight, bias = first_head(sums, counts, 1e3, 0.0)
    assert weight.abs().max() == 0
    torch.testing.assert_close(bias, (counts / counts.sum()).log().float())
