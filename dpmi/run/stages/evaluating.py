"""The stage that measures: the threshold, then metrics of all splits and of groups."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from dpmi.data.prepare import PreparedData
from dpmi.mechanisms import Mechanism
from dpmi.models.by_group import by_group
from dpmi.models.groups import Subgroup
from dpmi.run.logs.curves import selected_on_test
from dpmi.run.matching import find_threshold
from dpmi.run.stages.context import Context
from dpmi.run.stages.training import Learner, Training


@dataclass(frozen=True)
class Measured:
    """What is measured of the weights that a run keeps.

    Attributes:
        metrics: by name; those named ``nonprivate/`` no ε covers.
        reliability: mean confidence, accuracy and number of the test images in each bin.
        groups: metrics of the test images apart for each group.
    """

    metrics: dict[str, float] = field(default_factory=dict)
    reliability: list[tuple[float, float, int]] = field(default_factory=list)
    groups: list[Subgroup] = field(default_factory=list)


def evaluate(
    context: Context,
    learner: Learner,
    training: Training,
    mechanism: Mechanism,
    data: PreparedData,
) -> Measured:
    """Choose the threshold, and evaluate test, training and validation images.

    Args:
        context: of the run.
        learner: trained.
        training: that trained it.
        mechanism: which may release what the threshold needs.
        data: all images, as they were before any release.
    """
    model, module, trainer = learner.model, learner.module, training.trainer
    with context.timed("evaluate"):
        seen, size = module.train_eval_dataloader(), context.config.data.image_size
        find_threshold(model, trainer, mechanism, seen, data, size)
        loaders: list[Any] = [module.test_dataloader()]
        loaders += [val] if (val := module.val_dataloader()) else []
        trainer.test(model, dataloaders=loaders, verbose=False)
    metrics = {k: float(v) for k, v in trainer.callback_metrics.items()}
    metrics |= selected_on_test(training.curves.values)
    groups: list[Subgroup] = []
    test = data.splits["test"]
    if model.tested and test.groups:
        groups = by_group(model.tested, test.groups, test.patients, data.classes)
    context.clock.add_earlier({"steps": training.step_time.seconds})
    return Measured(metrics, model.reliability, groups)
