"""How many images of a logical batch go through the network at once, from the memory at hand."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import Tensor, nn

# Peak of a pass over what its forward part keeps, measured for both engines from 32 to 512 px:
# 1.5 to 2.2.
_PEAK_OVER_KEPT = 2.5
# The rest is for what else runs, and for a free memory that is reported too high.
_SHARE_OF_FREE = 0.5
_MEMINFO = Path("/proc/meminfo")
# Of this process's control group, as seen in a container, in both versions: the limit, and in which
# file what is in use, under which name. Pages of files are not counted: they make room when asked.
_CGROUPS = (
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.stat"), "anon"),
    (
        Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
        Path("/sys/fs/cgroup/memory/memory.stat"),
        "total_rss",
    ),
)


def physical_batch_size(
    net: nn.Module,
    input_shape: tuple[int, ...],
    *,
    expected_batch_size: int,
    keeps_gradients: bool,
    views: int = 1,
    sharers: int = 1,
) -> int:
    """Choose a power of two that half of the free memory holds.

    Steps of two, and at most the first that is twice the expected batch, which a Poisson batch
    hardly ever exceeds: so a run that is repeated on a CPU with memory to spare takes the same
    pieces, and gives the same bits, whatever else is in memory.

    Args:
        net: the network, on its device, as it will train; one image of zeros is passed through.
        input_shape: of one image, (C, H, W), or of one vector, (D,).
        expected_batch_size: of a logical batch.
        keeps_gradients: the engine keeps a gradient of all parameters for each view.
        views: of each image.
        sharers: processes of this run that share the memory.

    Returns:
        Images of a piece, at least 1.
    """
    most = 1
    while most < 2 * expected_batch_size:
        most *= 2
    device = next(net.parameters()).device
    an_image = _PEAK_OVER_KEPT * _bytes_kept(net, input_shape)
    if keeps_gradients:
        an_image += sum(p.nbytes for p in net.parameters() if p.requires_grad)
    an_image *= views
    room = _SHARE_OF_FREE * free_memory(device) / sharers
    while most > 1 and most * an_image > room:
        most //= 2
    return most


def _bytes_kept(net: nn.Module, input_shape: tuple[int, ...]) -> int:
    """Memory that the backward pass of one image waits for, the parameters aside."""
    own = {t.untyped_storage().data_ptr() for t in (*net.parameters(), *net.buffers())}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        address = tensor.untyped_storage().data_ptr()
        if address not in own:
            kept[address] = tensor  # held: an address that is let go is given out again
        return tensor

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda kept: kept):
        net(torch.zeros(1, *input_shape, device=next(net.parameters()).device))
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def free_memory(device: torch.device) -> int:
    """Bytes that may be had on ``device``: on a CPU within the limits of a container, too."""
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + cached
    free = [_free_in_the_system()]
    for limit, statistics, in_use in _CGROUPS:
        if limit.is_file() and (most := limit.read_text().strip()) != "max":
            free.append(int(most) - _field(statistics, in_use))
    return max(0, min(free))


def _free_in_the_system() -> int:
    if _MEMINFO.is_file():
        return _field(_MEMINFO, "MemAvailable:") * 2**10
    # Elsewhere than on Linux: all there is, where no more is known without a further package.
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _field(file: Path, name: str) -> int:
    (words,) = (line.split() for line in file.read_text().splitlines() if line.split()[0] == name)
    return int(words[1])
