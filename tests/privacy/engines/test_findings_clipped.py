"""The clipped sum of examples with several findings is that of a loop over the examples."""

import copy
import math

import pytest
import torch
from test_multiplicity import CLIP, clipped_sum, error, resnet
from torch import nn

pytestmark = pytest.mark.usefixtures("one_thread")


def loop(net, images, findings):
    """An example at a time, by autograd alone, in double; the loss is written out once more.

    Returns:
        The clipped sum, flat, and the norms of the examples' gradients.
    """
    exact = copy.deepcopy(net).double()
    parameters = [p for p in exact.parameters() if p.requires_grad]
    total, norms = torch.zeros(sum(p.numel() for p in parameters)).double(), []
    for views, truth in zip(images.double(), findings.double(), strict=True):
        of_views = truth if truth.ndim == 2 else truth.expand(len(views), -1)
        losses = []
        for logits, its in zip(exact(views), of_views, strict=True):
            known = [k for k, value in enumerate(its.tolist()) if not math.isnan(value)]
            each = [
                nn.functional.softplus(-logits[k])
                if its[k] == 1
                else nn.functional.softplus(logits[k])
                for k in known
            ]
            losses.append(sum(each) / len(each) if each else logits.sum() * 0)
        grads = torch.autograd.grad(sum(losses) / len(losses), parameters)
        flat = torch.cat([g.flatten() for g in grads])
        norms.append(flat.norm().item())
        total = total + flat * min(1.0, CLIP / (norms[-1] + 1e-12))
    return total, norms


def examples(count=5, views=1):
    generator = torch.Generator().manual_seed(views)
    images = torch.rand(count, views, 3, 32, 32, generator=generator)
    shape = (count, views, 3) if views > 1 else (count, 3)
    findings = (torch.rand(shape, generator=generator) < 0.5).float()
    findings[torch.rand(shape, generator=generator) < 0.3] = math.nan
    findings[-1] = math.nan  # of which nothing is known
    return images, findings


@pytest.mark.parametrize("engine", ["fast", "opacus"])
@pytest.mark.parametrize("views", [1, 2])
def test_an_examples_findings_are_clipped_together_as_in_a_loop_over_examples(engine, views):
    net, (images, findings) = resnet("group"), examples(views=views)
    with torch.no_grad():
        net.head.weight.normal_(generator=torch.Generator().manual_seed(1))
    expected, norms = loop(net, images, findings)
    assert min(norms[:-1]) > CLIP  # all are clipped
    assert norms[-1] == 0
    given = images if views > 1 else images[:, 0]
    found, dropped = clipped_sum(engine, net, given, findings)
    assert (error(found, expected) < 1e-5, dropped) == (True, 0)
    alone, _ = clipped_sum(engine, net, given[:1], findings[:1])
    assert alone.norm().item() == pytest.approx(CLIP, rel=1e-4)


@pytest.mark.parametrize("engine", ["fast", "opacus"])
def test_an_example_of_which_nothing_is_known_adds_exactly_nothing(engine):
    net, (images, findings) = resnet("group"), examples()
    found, dropped = clipped_sum(engine, net, images[-1:, 0], findings[-1:])
    assert (found.abs().max().item(), dropped) == (0.0, 0)
