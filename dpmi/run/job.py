"""One run, from a config to a record."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytorch_lightning as L
import torch
from omegaconf import OmegaConf
from rich.console import Console
from torch import Tensor

from dpmi.config import Config, DpsgdMechanism, WandbConfig, cell_name, config_digest
from dpmi.data.datamodule import ImageDataModule
from dpmi.data.prepare import PreparedData, prepare
from dpmi.errors import UserError
from dpmi.mechanisms import DPSGD, Mechanism, build_mechanism
from dpmi.models.classifier import ImageClassifier
from dpmi.models.weights import build_resnet18, imagenet_state_dict, read_state_dict
from dpmi.run.curves import EpochCurves, EvaluateTestImages, selected_on_test
from dpmi.run.loggers import OptionalWandbLogger, csv_logger
from dpmi.run.memory import PeakMemory, keep_freed_memory
from dpmi.run.pretrain import phantom_weights
from dpmi.run.privacy_callback import PrivacyCallback
from dpmi.run.progress import StepTime, progress_callback
from dpmi.run.record import ImageSample, RunRecord, environment
from dpmi.run.samples import image_sample, log_samples

CONFIG_FILE = "config.yaml"
_log = logging.getLogger(__name__)


class Run:
    """A run in the making: what is known so far is what its record will say.

    Args:
        config: the checked config.
        folder: the job's folder, existing.
        console: what the user sees.
    """

    def __init__(self, config: Config, folder: Path, console: Console) -> None:
        self.config, self.folder, self.console = config, folder, console
        self.cache_dir = Path(config.cache_dir).expanduser()
        self._data: PreparedData | None = None
        self._mechanism: Mechanism | None = None
        self._device: str | None = None
        self._metrics: dict[str, float] = {}
        self._curves: EpochCurves | None = None
        self._sample: ImageSample | None = None
        self._memory = PeakMemory()
        self._timings: dict[str, float] = {}

    def execute(self) -> RunRecord:
        """Prepare, train, evaluate, and leave the record.

        Returns:
            The record, already written; a failure is a record with ``status="failed"``.

        Raises:
            KeyboardInterrupt: interrupted; the record says so and is written.
        """
        started = time.perf_counter()
        logging.captureWarnings(True)  # libraries' advice goes to the job's log, not to the screen
        OmegaConf.save(self.config.model_dump(mode="json"), self.folder / CONFIG_FILE)
        try:
            self._work()
        except UserError as error:
            return self._record("failed", str(error), started)
        except (
            KeyboardInterrupt,
            SystemExit,
        ) as error:  # Lightning turns the first into the second
            self._record("interrupted", "interrupted by the user", started)
            raise KeyboardInterrupt from error
        except Exception as error:
            _log.exception("the run failed")
            return self._record("failed", f"{type(error).__name__}: {error}", started)
        return self._record("completed", None, started)

    def _work(self) -> None:
        config = self.config
        keep_freed_memory()
        L.seed_everything(config.seed, verbose=False)
        with self._timed("prepare"):
            delta = config.mechanism.delta if isinstance(config.mechanism, DpsgdMechanism) else None
            self._data = data = prepare(config.data, self.cache_dir, delta)
        self._mechanism = mechanism = build_mechanism(config, len(data.splits["train"].labels))
        with self._timed("release"):
            released = mechanism.release_data(data)
        self._sample = image_sample(config, data, released)
        state = self._first_weights()
        net = build_resnet18(len(data.classes), config.model.norm, state)
        model = ImageClassifier(
            net,
            classes=data.classes,
            graded=data.graded,
            make_gradient=mechanism.make_gradient,
            learning_rate=config.model.learning_rate,
            weight_decay=config.model.weight_decay,
            momentum=config.model.momentum,
        )
        module = ImageDataModule(
            released,
            image_size=config.data.image_size,
            batch_size=config.data.batch_size,
            augment=config.data.augment,
            num_workers=config.data.num_workers,
            seed=config.seed,
            train_batch_sampler=mechanism.train_batches(),
        )
        with self._wandb() as wandb:
            if wandb:
                wandb.log_hyperparams(config.model_dump(mode="json"))
                log_samples(wandb, config, data, released)
            self._train_and_evaluate(model, module, mechanism, wandb)
            if wandb:
                wandb.summarise({"guarantee": mechanism.guarantee().to_dict(), **self._metrics})

    def _train_and_evaluate(
        self,
        model: ImageClassifier,
        module: ImageDataModule,
        mechanism: Mechanism,
        wandb: OptionalWandbLogger | None,
    ) -> None:
        step_time = StepTime()
        # The bar last: it shows what the others log.
        callbacks: list[L.Callback] = [step_time]
        if isinstance(mechanism, DPSGD):
            callbacks.append(PrivacyCallback(mechanism))
        if self.config.trainer.test_every_epoch:
            callbacks.append(EvaluateTestImages(module.test_dataloader()))
        self._curves = curves = EpochCurves(mechanism.guarantee)
        callbacks += [curves, progress_callback(self.console)]
        trainer = L.Trainer(
            default_root_dir=self.folder,
            accelerator=self.config.trainer.accelerator,
            devices=1,
            max_epochs=self.config.trainer.max_epochs,
            logger=[csv_logger(self.folder), *([wandb] if wandb else [])],
            callbacks=callbacks,
            log_every_n_steps=1,
            num_sanity_val_steps=0,
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=self.console.is_terminal,
            use_distributed_sampler=False,  # it would replace the plan's sampler
            deterministic="warn",
        )
        self._device = _device_name(trainer)
        self._memory.training_starts(trainer.strategy.root_device)
        with self._timed("train"):
            trainer.fit(model, datamodule=module)
        with self._timed("evaluate"):
            loaders = [module.test_dataloader(), module.train_eval_dataloader()]
            trainer.test(model, dataloaders=loaders, verbose=False)
        self._metrics = {k: float(v) for k, v in trainer.callback_metrics.items()}
        self._metrics |= selected_on_test(curves.values)
        self._timings["steps"] = step_time.seconds
        with self._timed("save"):
            torch.save(model.net.state_dict(), self.folder / "model.pth")

    def _first_weights(self) -> dict[str, Tensor] | None:
        weights = self.config.model.weights
        if weights is None:
            return None
        if weights == "imagenet":
            return imagenet_state_dict(self.cache_dir)
        if weights == "phantom":
            return read_state_dict(phantom_weights(self.cache_dir, self.console))
        return read_state_dict(Path(weights).expanduser())

    @contextlib.contextmanager
    def _wandb(self) -> Iterator[OptionalWandbLogger | None]:
        settings = self.config.logger
        if not isinstance(settings, WandbConfig):
            yield None
            return
        logger = OptionalWandbLogger(
            settings,
            run=cell_name(self.config),
            group=self.folder.parent.name,
            folder=self.folder,
            cache_dir=self.cache_dir,
            console=self.console,
        )
        exit_code = 1
        try:
            yield logger
            exit_code = 0
        finally:
            logger.finish(exit_code)

    @contextlib.contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self._timings[name] = time.perf_counter() - started

    def _record(self, status: Any, reason: str | None, started: float) -> RunRecord:
        """Write down what is known, whatever happened."""
        self._timings["total"] = time.perf_counter() - started
        record = RunRecord(
            run=cell_name(self.config),
            config_digest=config_digest(self.config),
            status=status,
            reason=reason,
            config=self.config.model_dump(mode="json"),
            data=asdict(self._data.fingerprint) if self._data else None,
            guarantee=self._mechanism.guarantee() if self._mechanism else None,
            mechanism=self._mechanism.describe() if self._mechanism else {},
            metrics=self._metrics,
            curves=self._curves.values if self._curves else {},
            sample=self._sample,
            timings=self._timings,
            peak_memory_mb=self._memory.mb(),
            environment=environment(self._device),
        )
        record.write(self.folder)
        return record


def _device_name(trainer: L.Trainer) -> str:
    device = trainer.strategy.root_device
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
