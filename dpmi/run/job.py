"""One run, from a config to a record."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytorch_lightning as L
import torch
from omegaconf import OmegaConf
from rich.console import Console

from dpmi.base.errors import UserError
from dpmi.base.ranks import ALONE, Ranks
from dpmi.base.redaction import redacted
from dpmi.config.identity import cell_name, config_digest
from dpmi.config.schema import Config, plain_values
from dpmi.config.sections import WandbConfig
from dpmi.data.patients import one_image_of_each
from dpmi.data.prepare import PreparedData
from dpmi.mechanisms import (
    LocalDP,
    LocalDPOfFeatures,
    Mechanism,
    PlannedMechanism,
    build_mechanism,
    epochs,
)
from dpmi.mechanisms.risks import risks_of
from dpmi.models.by_group import by_group
from dpmi.models.classifier import ImageClassifier
from dpmi.models.groups import Subgroup, flat, worst_groups
from dpmi.models.weights import write_state_dict
from dpmi.privacy.journal import reserved_entries
from dpmi.run.average import IterateAverage
from dpmi.run.durability.checkpoint import FOLDER as CHECKPOINTS
from dpmi.run.durability.checkpoint import Clock, RunCheckpoint, VerifiedFiles
from dpmi.run.durability.resume import Resumption
from dpmi.run.durability.stopping import StoppedByRequest, StopRequest
from dpmi.run.finite import FiniteWeights
from dpmi.run.first_weights import Start, drawn, load_start
from dpmi.run.given import Given
from dpmi.run.logs.curves import EpochCurves, EvaluateTestImages, selected_on_test
from dpmi.run.logs.loggers import CsvLog, OptionalWandbLogger
from dpmi.run.logs.names_callback import NamedForWhatCoversIt
from dpmi.run.logs.samples import image_sample, log_samples
from dpmi.run.matching import find_threshold
from dpmi.run.memory import PeakMemory, keep_freed_memory
from dpmi.run.parts import (
    TrainingBatches,
    batches,
    classifier,
    features_of,
    network,
    prepared_data,
    protected_patients,
    training_set,
)
from dpmi.run.privacy_callback import PrivacyCallback
from dpmi.run.processes.strategy import GradientsReduceThemselves
from dpmi.run.records.entry import RunEntry
from dpmi.run.records.entry_file import account_left
from dpmi.run.records.environment import environment
from dpmi.run.records.house_key import keyed_digest
from dpmi.run.records.leaving import everything_may_leave, is_own, public_groups
from dpmi.run.records.record import ImageSample, RunAccount, RunRecord
from dpmi.run.screen.progress import StepTime, progress_callback
from dpmi.run.screen.status_file import StatusFile

CONFIG_FILE = "config.yaml"
_log = logging.getLogger(__name__)


class Run:
    """A run in the making: what is known so far is what its record will say.

    Args:
        config: the checked config.
        folder: the job's folder, existing.
        console: what the user sees.
        ranks: who trains, each in a process with a run like this one; the first writes files.
        given: images and network in place of the config's.
    """

    def __init__(
        self,
        config: Config,
        folder: Path,
        console: Console,
        ranks: Ranks = ALONE,
        given: Given | None = None,
    ) -> None:
        self.config, self.folder, self.console, self._ranks = config, folder, console, ranks
        self._given = given
        self.cache_dir = Path(config.cache_dir).expanduser()
        self._data: PreparedData | None = None
        self._mechanism: Mechanism | None = None
        self._metrics: dict[str, float] = {}
        self._reliability: list[tuple[float, float, int]] = []
        self._groups: list[Subgroup] = []
        self._curves: EpochCurves | None = None
        self._sample: ImageSample | None = None
        self._keyed: dict[str, str] = {}  # digests that may leave the house
        self._memory = PeakMemory()
        self._clock = Clock()
        self._stop = StopRequest()
        self._resumption: Resumption | None = None
        self._start: Start | None = None
        self._privacy: PrivacyCallback | None = None
        self._entry: RunEntry | None = None
        self._trainer: L.Trainer | None = None
        self._status = StatusFile(folder) if ranks.is_first else None

    def execute(self) -> RunRecord:
        """Prepare, train, evaluate, and leave the record; go on where a killed process was.

        Returns:
            The record, already written; a failure is a record with ``status="failed"``.

        Raises:
            KeyboardInterrupt: interrupted; the record says so and is written.
            StoppedByRequest: SIGTERM came; a checkpoint and the record are written.
            UserError: the record cannot be written.
        """
        logging.captureWarnings(True)  # libraries' advice goes to the job's log, not to the screen
        try:
            with self._stop:
                if self._ranks.is_first:
                    OmegaConf.save(plain_values(self.config), self.folder / CONFIG_FILE)
                self._work()
        except UserError as error:
            return self._record("failed", str(error))
        except StoppedByRequest:
            self._record("interrupted", "stopped by SIGTERM; the same command goes on with it")
            raise
        except (
            KeyboardInterrupt,
            SystemExit,
        ) as error:  # Lightning turns the first into the second
            self._record("interrupted", "interrupted by the user")
            raise KeyboardInterrupt from error
        except OSError as error:  # a full disk, mostly
            place = error.filename or self.folder
            reason = f"{place}: {error.strerror or error}; the same command goes on where it was"
            return self._record("failed", reason)
        except Exception as error:
            _log.exception("the run failed")
            return self._record("failed", f"{type(error).__name__}: {error}")
        record = self._record("completed", None)
        assert self._resumption is not None
        if self._ranks.is_first:
            self._resumption.complete()
        return record

    def _work(self) -> None:
        config = self.config
        keep_freed_memory()
        self._keyed["config"] = keyed_digest(self.cache_dir, "config", config_digest(config))
        L.seed_everything(config.seed, verbose=False)
        with self._timed("prepare"):
            self._data = data = self._given.data if self._given else prepared_data(config)
        ranks, fingerprint = self._ranks, data.fingerprint.sha256
        self._keyed["data"] = keyed_digest(self.cache_dir, "data", fingerprint)
        patients = protected_patients(config, data)
        unit, together = "image", data.fingerprint.together
        if patients:
            unit, together = "patient", {"copies": together["copies"]}
        if patients and config.mechanism.name == "ldp":
            data, patients = one_image_of_each(data, patients), None
        given = self._given.net if self._given else None
        start = (
            drawn(config.model)
            if given
            else load_start(config.model, data.channels, self.cache_dir, self.console)
        )
        self._start = None if given else start
        with self._timed("features"):
            asked = (start.pretrained, self.console, _device(config))
            features = features_of(config, data, *asked)
            train = training_set(config, data, features, patients, *asked)
        weights = f"{start.digest} {train.digest}"  # releases depend on their last bits
        self._resumption = begun = ranks.from_first(
            lambda: Resumption(
                *(self.folder, config, fingerprint, _device(config), weights, self.console),
                processes=ranks.size,
            )
        )
        # By all images of each patient, also where a release has one: another has another of them.
        self._entry = entry = RunEntry(self.folder, config, self._data)
        first = start.first_weights(entry.accounts(), config.mechanism.name, unit)
        entry.before = first.taken
        self._mechanism = mechanism = build_mechanism(
            config,
            train.n,
            begun.noise,
            begun.journal if ranks.is_first else None,
            begun.piece,
            ranks,
            together,
            entry.reserve_release if ranks.is_first else None,
            first,
            train,
            unit,
        )
        ranks.from_first(lambda: entry.reserve(mechanism, begun.lost))
        with self._timed("release"):
            released = mechanism.release_data(data)
        if isinstance(mechanism, LocalDP | LocalDPOfFeatures) and ranks.is_first:
            begun.keep_release(mechanism.release_id)
        self._sample = image_sample(config, data, released)
        net = given or network(config, len(data.classes), start.pretrained, features)
        model = classifier(config, net, data, mechanism, ranks)
        module = batches(config, released, features, patients, mechanism, begun.step, ranks)
        with self._wandb(begun.state.wandb_id) as wandb:
            if wandb:
                wandb.log_hyperparams(plain_values(config))
                log_samples(wandb, config, data, released)
            self._train_and_evaluate(model, module, mechanism, begun, wandb)
            if ranks.is_first:
                with self._timed("save"):
                    told = start.provenance(mechanism.guarantee(), *entry.taken(mechanism))
                    kept = model.exported()
                    write_state_dict(kept, self.folder / "model.safetensors", told)
            if wandb:
                of_groups = flat(public_groups(self._groups, plain_values(config)))
                metrics = self._metrics | of_groups
                wandb.summarise(mechanism.guarantee(), risks_of(mechanism), metrics)

    def _train_and_evaluate(
        self,
        model: ImageClassifier,
        module: TrainingBatches,
        mechanism: Mechanism,
        begun: Resumption,
        wandb: OptionalWandbLogger | None,
    ) -> None:
        step_time = StepTime()
        # The bar last: it shows what the others log.
        callbacks: list[L.Callback] = [*(self._given.watch if self._given else ()), step_time]
        if isinstance(mechanism, PlannedMechanism):
            budget = self.config.privacy.max_epsilon
            self._privacy = PrivacyCallback(
                mechanism, begun.state.reserved, budget, begun.reservations
            )
            callbacks.append(self._privacy)
        if self.config.trainer.test_every_epoch:
            callbacks.append(EvaluateTestImages(module.test_dataloader()))
        self._curves = curves = EpochCurves(mechanism.spent)
        csv_log = CsvLog(self.folder)
        checkpoint = RunCheckpoint(
            self.folder / CHECKPOINTS,
            self.config.trainer.checkpoint_seconds,
            self._stop,
            self.console,
            self._clock,
            csv_log,
            self._ranks,
        )
        average = IterateAverage() if self.config.model.average == "last_half" else None
        callbacks += [FiniteWeights(), curves, NamedForWhatCoversIt()]
        callbacks += [average] if average else []
        if self._status:
            self._status.watch(mechanism.spent)
            callbacks.append(self._status)
        callbacks += [progress_callback(self.console), checkpoint]
        trainer = L.Trainer(
            default_root_dir=self.folder,
            accelerator=self.config.trainer.accelerator,
            devices=self._ranks.size,
            strategy=GradientsReduceThemselves(self._ranks) if self._ranks.size > 1 else "auto",
            precision=self.config.trainer.precision,
            max_epochs=epochs(self.config),
            logger=[csv_log, *([wandb] if wandb else [])],
            callbacks=callbacks,
            plugins=[VerifiedFiles()],
            log_every_n_steps=1,
            num_sanity_val_steps=0,
            enable_model_summary=False,
            enable_progress_bar=self.console.is_terminal,
            use_distributed_sampler=False,  # it would replace the plan's sampler
            deterministic="warn",
        )
        self._trainer = trainer
        self._memory.training_starts(trainer.strategy.root_device)
        # The loader begins at the checkpoint's step, in a way that Lightning does not know.
        warnings.filterwarnings("ignore", message=".*your dataloader is not resumable")
        # Each process has evaluated all images.
        warnings.filterwarnings("ignore", message=".*It is recommended to use `self.log.*sync_dist")
        with self._timed("train"):
            trainer.fit(model, datamodule=module, ckpt_path=begun.checkpoint, weights_only=True)
        if average:
            average.apply(model)
        with self._timed("evaluate"):
            assert self._data is not None
            find_threshold(
                model,
                mechanism,
                module.train_eval_dataloader(),
                self._data,
                self.config.data.image_size,
            )
            loaders: list[Any] = [module.test_dataloader(), module.train_eval_dataloader()]
            loaders += [val] if (val := module.val_dataloader()) else []
            trainer.test(model, dataloaders=loaders, verbose=False)
        self._metrics = {k: float(v) for k, v in trainer.callback_metrics.items()}
        self._metrics |= selected_on_test(curves.values)
        self._reliability = model.reliability
        if model.tested and (groups := self._data.splits["test"].groups):
            patients = self._data.splits["test"].patients
            self._groups = by_group(model.tested, groups, patients, self._data.classes)
        self._clock.add_earlier({"steps": step_time.seconds})

    @contextlib.contextmanager
    def _wandb(self, run_id: str) -> Iterator[OptionalWandbLogger | None]:
        settings = self.config.logger
        if not isinstance(settings, WandbConfig) or not self._ranks.is_first:
            yield None
            return
        told, group = plain_values(self.config), self.folder.parent.name
        if is_own(told):  # it may be a path of the user's, or be found by trying batch sizes
            group = keyed_digest(self.cache_dir, "group", group)[:8]
        logger = OptionalWandbLogger(
            settings,
            run=cell_name(self.config),
            run_id=run_id,
            everything=everything_may_leave(told),
            hides_command=is_own(told) or self.config.noise_seed is not None,
            group=group,
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
        self._clock.start(name)
        try:
            yield
        finally:
            self._clock.stop(name)

    def _record(self, status: Any, reason: str | None) -> RunRecord:
        """Write down what is known, whatever happened."""
        begun = self._resumption
        if status != "completed":
            self._count_what_was_not_repeated()
        record = RunRecord(
            run=cell_name(self.config),
            config_digest=config_digest(self.config),
            keyed_config=self._keyed.get("config"),
            keyed_data=self._keyed.get("data"),
            status=status,
            reason=redacted(reason) if reason else None,
            stopped=self._privacy.stopped if self._privacy else None,
            restarts=begun.state.restarts if begun else 0,
            config=plain_values(self.config),
            data=asdict(self._data.fingerprint) if self._data else None,
            guarantee=self._mechanism.guarantee() if self._mechanism else None,
            risk=risks_of(self._mechanism) if self._mechanism else (),
            mechanism=self._mechanism.describe() if self._mechanism else {},
            network=self._start.network() if self._start else None,
            account=self._settled(status),
            metrics=self._metrics,
            reliability=self._reliability,
            groups=self._groups,
            worst_groups=worst_groups(self._groups),
            curves=self._curves.values if self._curves else {},
            sample=self._sample,
            timings=self._clock.so_far(),
            peak_memory_mb=self._memory.mb(),
            environment=environment(_device(self.config)),
        )
        if not self._ranks.is_first:
            return record
        try:
            record.write(self.folder)
        except OSError as error:
            ended = f"{status}: {reason}" if reason else status
            raise UserError(
                f"{self.folder}: the record cannot be written ({error.strerror}); make room, the "
                f"same command goes on where it was; the run {ended}"
            ) from error
        if self._status:
            self._status.remove()
        return record

    def _count_what_was_not_repeated(self) -> None:
        """Releases of processes before this one, up to which a run that ended early did not come.

        Resumed, it would have made them again, to the bit, and counted them then.
        """
        begun = self._resumption
        if isinstance(self._mechanism, PlannedMechanism) and begun:
            ledger = self._mechanism.ledger
            for entry in reserved_entries(begun.reservations, ledger.steps, begun.released):
                ledger.record_lost(entry)

    def _settled(self, status: Any) -> RunAccount | None:
        """Tell the account what was spent, and return what the record says of it."""
        if not self._ranks.is_first:
            return None
        if self._entry is None or self._mechanism is None:
            return account_left(self.folder)
        begun, trainer = self._resumption, self._trainer
        trained = bool(begun and begun.state.restarts) or bool(trainer and trainer.global_step)
        self._entry.settle(self._mechanism, status, trained)
        return self._entry.told() or account_left(self.folder)


def _device(config: Config) -> str:
    """What will train: "cpu", or the name of a GPU."""
    on_cpu = config.trainer.accelerator == "cpu" or not torch.cuda.is_available()
    return "cpu" if on_cpu else torch.cuda.get_device_name()
