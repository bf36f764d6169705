"""One Gaussian release of class sums, counts and moments; the classifier is computed from it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from dpmi.mechanisms.planned import PlannedMechanism
from dpmi.models.discriminant import discriminant, pooled_discriminant
from dpmi.models.head import FeatureHead
from dpmi.privacy.gradients import refuse_delta
from dpmi.privacy.plan import PrivacyPlan
from dpmi.privacy.releases import release_sum
from dpmi.privacy.statistics import class_sensitivity, class_statistics, unpacked


class ClassMeans(PlannedMechanism):
    """Releases the sum and the number of the vectors of each class, once (Wahdany et al. 2025).

    Contract: an image adds its vector x, of norm at most 1, to one sum, and ``count_scale`` to one
    count, both of its class, and ``moment_scale`` x xᵀ to the second moment of all: sensitivity
    sqrt(1 + count_scale² + moment_scale²), the plan's ``max_grad_norm``. Where a patient
    is what is protected, a patient adds the mean of what their images would add, of the same
    sensitivity. With Gaussian noise in each value that is the plan's one step, at sample rate 1.
    Linear discriminant analysis on what was released is post-processing (arXiv 2406.08039 releases
    class means alike). Where the second moment is not released, covariances are taken to be
    spherical.

    Args:
        plan: of one step.
        count_scale: weight of a count beside a sum.
        moment_scale: weight of the second moment beside a sum; None: it is not released.
        uniform: decide under a uniform prior, by the released counts.
        options: of PlannedMechanism.
    """

    name = "class_means"

    def __init__(
        self,
        plan: PrivacyPlan,
        *,
        count_scale: float,
        moment_scale: float | None,
        uniform: bool,
        **options: Any,
    ) -> None:
        super().__init__(plan, steps_per_epoch=1, **options)
        self._count_scale, self._moment_scale = count_scale, moment_scale
        self._uniform = uniform

    def make_gradient(self, net: nn.Module, first_step: int = 0) -> _ClassSums:
        """Release the statistics, and return what releases the class sums.

        Raises:
            ValueError: no head, or a δ below what the noise can keep.
        """
        if not isinstance(net, FeatureHead):
            raise ValueError("class means are of features: give model.train=head")
        refuse_delta(self.plan, sum(self._sizes(net)))
        if not first_step:
            self._release_statistics(net, self.plan.n)
        return _ClassSums(self, net)

    def release(self, net: FeatureHead) -> None:
        """Execute the plan's step, and set the head from what it releases."""
        plan, scale, moment_scale = self.plan, self._count_scale, self._moment_scale
        classes, train = len(net.log_shares), self._train
        assert train is not None
        assert train.vectors is not None
        with torch.no_grad():
            rows = net.centred(train.vectors.to(net.centre.device)).cpu()
        released = release_sum(
            class_statistics(rows, train.labels, classes, scale, moment_scale, train.weights),
            sensitivity=class_sensitivity(scale, moment_scale),
            noise_multiplier=plan.noise_multiplier,
            noise=self._noise,
            purpose="gradient",
            step=self.taken,
            ledger=self.ledger,
            journal=self._journal,
            physical_batch_size=plan.n,
        )
        sums, counts, moment = released.split(self._sizes(net))
        sums, counts, std = sums.view(classes, -1), counts / scale, plan.noise_std
        if moment_scale is None:
            weight, bias = discriminant(sums, counts, std, std / scale)
        else:
            moment = unpacked(moment / moment_scale)
            stds = std, std / scale, std / moment_scale
            weight, bias = pooled_discriminant(sums, counts, moment, *stds)
        net.set_weights(weight, bias)
        if self._uniform:
            net.set_class_counts(counts)

    def _sizes(self, net: FeatureHead) -> list[int]:
        """How many values are released: of sums, of counts, of the second moment."""
        classes, width = len(net.log_shares), len(net.centre)
        moment = 0 if self._moment_scale is None else width * (width + 1) // 2
        return [classes * width, classes, moment]

    def settle(self, net: nn.Module, logits: Tensor) -> None:
        """Nothing: discriminant analysis has decided midway."""

    def describe(self) -> dict[str, Any]:
        """Return the plan, the ledger, and the weights of counts and moments."""
        weights = {"count_scale": self._count_scale, "moment_scale": self._moment_scale}
        return super().describe() | weights


class _ClassSums:
    """Stands where a gradient does: sets the weights, and leaves nothing to the optimizer."""

    def __init__(self, mechanism: ClassMeans, net: FeatureHead) -> None:
        self._mechanism, self._net = mechanism, net

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        """Release, whatever the batch; return detached logits of its vectors, (B, D)."""
        self._mechanism.release(self._net)
        for parameter in self._net.parameters():
            parameter.grad = None
        with torch.no_grad():
            logits: Tensor = self._net(images)
        return logits
