"""The stages that train: network, batches and callbacks, then Lightning."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import pytorch_lightning as L
from pytorch_lightning.loggers import Logger

from dpmi.data.prepare import PreparedData
from dpmi.mechanisms import Mechanism, PlannedMechanism, epochs
from dpmi.models.classifier import ImageClassifier
from dpmi.run.average import IterateAverage
from dpmi.run.durability.checkpoint import FOLDER as CHECKPOINTS
from dpmi.run.durability.checkpoint import RunCheckpoint, VerifiedFiles
from dpmi.run.durability.resume import Resumption
from dpmi.run.finite import FiniteWeights
from dpmi.run.logs.csv_log import CsvLog
from dpmi.run.logs.curves import EpochCurves, EvaluateTestImages
from dpmi.run.logs.names_callback import NamedForWhatCoversIt
from dpmi.run.logs.often import steps_between_looks
from dpmi.run.parts import TrainingBatches, batches, classifier, network
from dpmi.run.privacy_callback import PrivacyCallback
from dpmi.run.processes.strategy import GradientsReduceThemselves
from dpmi.run.screen.progress import StepTime, progress_callback
from dpmi.run.screen.status_file import StatusFile
from dpmi.run.stages.context import Context
from dpmi.run.stages.images import Inputs, Protected


@dataclass(frozen=True)
class Learner:
    """What learns, and from what.

    Attributes:
        model: the network, trained by the mechanism's gradients.
        module: batches of what the mechanism released.
    """

    model: ImageClassifier
    module: TrainingBatches


@dataclass(frozen=True)
class Training:
    """Lightning's trainer, and the callbacks that know what happens in it.

    Attributes:
        trainer: with all callbacks and loggers.
        curves: what is kept of each epoch.
        step_time: seconds of the steps.
        privacy: counts the releases, where a plan says how many there may be.
        average: of the weights, where the run keeps that.
    """

    trainer: L.Trainer
    curves: EpochCurves
    step_time: StepTime
    privacy: PrivacyCallback | None
    average: IterateAverage | None


def assemble(
    context: Context,
    images: Protected,
    inputs: Inputs,
    mechanism: Mechanism,
    released: PreparedData,
    begun: Resumption,
) -> Learner:
    """Build the network, and batches of what was released, from the run's next step on."""
    config, ranks = context.config, context.ranks
    features, patients = inputs.features, images.patients
    given = context.given.net if context.given else None
    net = given or network(
        config, len(images.data.classes), inputs.start.pretrained, features, images.data.channels
    )
    model = classifier(config, net, images.data, mechanism, ranks)
    module = batches(config, released, features, patients, mechanism, begun.step, ranks)
    return Learner(model, module)


def set_up(
    context: Context,
    learner: Learner,
    mechanism: Mechanism,
    begun: Resumption,
    doors: Sequence[Logger],
    status: StatusFile | None,
) -> Training:
    """Make the trainer, and what watches it.

    Args:
        context: of the run.
        learner: what will be trained.
        mechanism: whose releases are counted.
        begun: where training starts.
        doors: where metrics go beside the CSV log.
        status: what tells others how far the run is; None where another process does.
    """
    config, ranks = context.config, context.ranks
    assert config.trainer.precision != "auto"  # it was picked before
    step_time = StepTime()
    # The bar last: it shows what the others log.
    callbacks: list[L.Callback] = [*(context.given.watch if context.given else ()), step_time]
    privacy = None
    if isinstance(mechanism, PlannedMechanism):
        budget = config.privacy.max_epsilon
        privacy = PrivacyCallback(mechanism, begun.state.reserved, budget, begun.reservations)
        callbacks.append(privacy)
    if config.trainer.test_every_epoch:
        callbacks.append(EvaluateTestImages(learner.module.test_dataloader()))
    curves = EpochCurves(mechanism.spent, multilabel=learner.model.multilabel)
    csv_log = CsvLog(context.folder)
    checkpoint = RunCheckpoint(
        context.folder / CHECKPOINTS,
        config.trainer.checkpoint_seconds,
        context.stop,
        context.console,
        context.clock,
        csv_log,
        ranks,
    )
    average = IterateAverage() if config.model.average == "last_half" else None
    callbacks += [FiniteWeights(), curves, NamedForWhatCoversIt()]
    callbacks += [average] if average else []
    if status:
        status.watch(mechanism.spent)
        callbacks.append(status)
    callbacks += [progress_callback(context.console), checkpoint]
    trainer = L.Trainer(
        default_root_dir=context.folder,
        accelerator=config.trainer.accelerator,
        devices=ranks.size,
        strategy=GradientsReduceThemselves(ranks) if ranks.size > 1 else "auto",
        precision=config.trainer.precision,
        max_epochs=epochs(config),
        logger=[csv_log, *doors],
        callbacks=callbacks,
        plugins=[VerifiedFiles()],
        log_every_n_steps=steps_between_looks(context.device),
        num_sanity_val_steps=0,
        enable_model_summary=False,
        enable_progress_bar=context.console.is_terminal,
        use_distributed_sampler=False,  # it would replace the plan's sampler
        deterministic="warn",
    )
    return Training(trainer, curves, step_time, privacy, average)


def train(context: Context, learner: Learner, training: Training, begun: Resumption) -> None:
    """Train to the last step, or to that before which a budget ends."""
    trainer = training.trainer
    context.memory.training_starts(trainer.strategy.root_device)
    # The loader begins at the checkpoint's step, in a way that Lightning does not know.
    warnings.filterwarnings("ignore", message=".*your dataloader is not resumable")
    # Each process has evaluated all images.
    warnings.filterwarnings("ignore", message=".*It is recommended to use `self.log.*sync_dist")
    with context.timed("train"):
        trainer.fit(
            learner.model,
            datamodule=learner.module,
            ckpt_path=begun.checkpoint,
            weights_only=True,
        )
    if training.average:
        training.average.apply(learner.model)
