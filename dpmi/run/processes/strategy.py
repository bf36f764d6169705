"""Lightning's DDP, for processes that already run and gradients that are already summed."""

from __future__ import annotations

import torch.distributed as dist
from lightning_fabric.plugins.environments import LightningEnvironment
from pytorch_lightning.strategies import DDPStrategy

from dpmi.base.ranks import Ranks


class _StartedByUs(LightningEnvironment):
    """Tells Lightning that the processes are there, which would else start them by itself."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        self._local_rank = rank

    @property
    def creates_processes_externally(self) -> bool:
        return True

    def local_rank(self) -> int:
        return self._local_rank

    def node_rank(self) -> int:
        return 0


class GradientsReduceThemselves(DDPStrategy):
    """Lightning's DDP without torch's wrapper around the network.

    The wrapper sums gradients while they are computed. Here nothing may be summed before it is
    clipped, and what is computed is no gradient of a parameter.

    Args:
        ranks: which process this is; the process group is there.
    """

    def __init__(self, ranks: Ranks) -> None:
        super().__init__(cluster_environment=_StartedByUs(ranks.rank))

    def configure_ddp(self) -> None:
        """Begin with the first process's weights, as the wrapper would."""
        assert self.model is not None
        for value in self.model.state_dict().values():
            dist.broadcast(value, 0)
