"""DP-SGD as the poster's authors ran it: clipped means of microbatches, which give no ε.

"Benchmarking Differentially Private Residual Networks for Medical Imagery", arXiv 2005.13099, and
the code its authors published. The arithmetic of the microbatches is that of TensorFlow Privacy
(``num_microbatches``): clip means, sum, add noise once, divide by their number.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dpmi.privacy.noise import GaussianNoise


class MicrobatchGradient:
    """Leaves in ``p.grad`` the noised mean of clipped means of microbatches, as the authors did.

    The whole batch goes through the network once, in training mode. Its losses are cut into
    k = ``microbatches`` runs of neighbours; g_j is the gradient of the mean loss of run j, and with
    C = ``max_grad_norm`` what is left is (sum_j clip_C(g_j) + N(0, (noise_multiplier C)^2 I)) / k.
    k stays the same in the last, smaller batch of an epoch, whose runs are shorter (and, where
    the authors' code would stop, differ by one image). That is k backward passes through the
    whole batch: a BatchNorm ties the images together.

    Contract: none for an image. Clipping bounds g_j, but an image is part of every g_j through the
    BatchNorm, so that replacing it can turn all k of them: the sum moves by up to 2 k C, not C.
    The BatchNorm keeps running statistics of the images without noise, too.

    Args:
        net: the network.
        microbatches: k.
        max_grad_norm: C, over all parameters together.
        noise_multiplier: standard deviation of the noise in units of C.
        noise: draws the noise, on the network's device.
        first_step: number of the first batch, which its noise depends on; not 0 where a run is
            resumed.
    """

    def __init__(
        self,
        net: nn.Module,
        *,
        microbatches: int,
        max_grad_norm: float,
        noise_multiplier: float,
        noise: GaussianNoise,
        first_step: int = 0,
    ) -> None:
        self._net, self._microbatches = net, microbatches
        self._bound, self._std = max_grad_norm, noise_multiplier * max_grad_norm
        self._noise = noise
        self._parameters = [p for p in net.parameters() if p.requires_grad]
        sizes = [p.numel() for p in self._parameters]
        self._buffer = self._parameters[0].new_empty(sum(sizes))
        parts = self._buffer.split(sizes)
        self._parts = [part.view(p.shape) for part, p in zip(parts, self._parameters, strict=True)]
        self.steps = first_step

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        """Process one batch.

        Args:
            images: (B, C, H, W) in [0, 1]; B at least 1, and no microbatch is left empty: of a
                batch of less than k images each is a microbatch.
            labels: (B,) class indices.

        Returns:
            Logits (B, K), detached.
        """
        # No ε to keep: the noise is the same, its sum with the means is not kept to a lattice.
        self._noise.fill(self._buffer, self._std, self.steps)
        logits: Tensor = self._net(images)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))  # under autocast
        losses = nn.functional.cross_entropy(logits, labels, reduction="none")
        runs = losses.tensor_split(min(self._microbatches, len(losses)))
        for number, run in enumerate(runs, start=1):
            self._add_clipped(run.mean(), keep_graph=number < len(runs))
        self._buffer.div_(len(runs))
        for parameter, part in zip(self._parameters, self._parts, strict=True):
            parameter.grad = part
        self.steps += 1
        return logits.detach()

    def _add_clipped(self, loss: Tensor, keep_graph: bool) -> None:
        mean = torch.autograd.grad(loss, self._parameters, retain_graph=keep_graph)
        factor = torch.clamp(self._bound / nn.utils.get_total_norm(mean), max=1.0)
        for part, grad in zip(self._parts, mean, strict=True):
            part.addcmul_(grad, factor)
