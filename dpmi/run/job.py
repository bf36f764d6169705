"""One run, from a config to a record: its stages in order, and how it ends."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytorch_lightning as L
from omegaconf import OmegaConf
from rich.console import Console

from dpmi.base.errors import UserError
from dpmi.base.ranks import ALONE, Ranks
from dpmi.config.identity import config_digest
from dpmi.config.schema import Config, plain_values
from dpmi.mechanisms.risks import risks_of
from dpmi.models.groups import flat
from dpmi.run.durability.resume import Resumption
from dpmi.run.durability.stopping import StoppedByRequest
from dpmi.run.given import Given
from dpmi.run.logs.door import Door
from dpmi.run.logs.samples import image_sample, log_samples
from dpmi.run.logs.trackers import tracked
from dpmi.run.memory import keep_freed_memory
from dpmi.run.recording import Known, Status, record
from dpmi.run.records.entry import RunEntry
from dpmi.run.records.house_key import keyed_digest
from dpmi.run.records.leaving import public_groups
from dpmi.run.records.record import RunRecord
from dpmi.run.screen.status_file import StatusFile
from dpmi.run.stages import images, mechanism, picking, training
from dpmi.run.stages.context import Context
from dpmi.run.stages.evaluating import evaluate
from dpmi.run.stages.saving import save

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
        self._context = Context(config, folder, console, ranks, given)
        self._digest = config_digest(config)
        self._known = Known()
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
        context = self._context
        try:
            with context.stop:
                if context.ranks.is_first:
                    OmegaConf.save(plain_values(context.config), context.folder / CONFIG_FILE)
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
            place = error.filename or context.folder
            reason = f"{place}: {error.strerror or error}; the same command continues"
            return self._record("failed", reason)
        except Exception as error:
            _log.exception("the run failed")
            return self._record("failed", f"{type(error).__name__}: {error}")
        left = self._record("completed", None)
        assert self._known.begun is not None
        if context.ranks.is_first:
            self._known.begun.complete()
        return left

    def _work(self) -> None:
        """The stages, each of which knows one thing; what they give is known to the record."""
        context, known = self._context, self._known
        config = context.config
        keep_freed_memory()
        known.keyed["config"] = keyed_digest(context.cache_dir, "config", self._digest)
        L.seed_everything(config.seed, verbose=False)
        data = known.data = images.prepare(context)
        for note in data.notes if context.ranks.is_first else ():
            context.console.print(note, style="yellow", markup=False)
        known.keyed["data"] = keyed_digest(context.cache_dir, "data", data.fingerprint.sha256)
        protected = images.protect(context, data)
        inputs = images.take_features(context, protected)
        known.network = None if context.given else inputs.start.network()
        begun = known.begun = mechanism.begin(context, data, inputs)
        context = self._context = picking.settle(context, data, inputs, begun)
        # By all images of each patient, also where a release has one: another has another of them.
        entry = known.entry = RunEntry(context.folder, config, data)
        first = mechanism.taken_before(context, entry, protected, inputs)
        planned = known.mechanism = mechanism.build(context, protected, inputs, first, begun, entry)
        mechanism.reserve(context, entry, planned, begun)
        released = mechanism.release(context, planned, protected, begun)
        known.sample = image_sample(config, protected.data, released)
        learner = training.assemble(context, protected, inputs, planned, released, begun)
        with self._tracked(begun) as doors:
            for door in doors:
                door.log_hyperparams(plain_values(config))
                log_samples(door, config, protected.data, released)
            known.training = training.set_up(context, learner, planned, begun, doors, self._status)
            training.train(context, learner, known.training, begun)
            known.measured = evaluate(context, learner, known.training, planned, data)
            save(context, learner, inputs, planned, entry)
            of_groups = flat(public_groups(known.measured.groups, plain_values(config)))
            for door in doors:
                metrics = known.measured.metrics | of_groups
                door.summarise(planned.guarantee(), risks_of(planned), metrics)

    def _tracked(self, begun: Resumption) -> AbstractContextManager[list[Door]]:
        """The doors to what tracks the run, of the first process."""
        context, run_id = self._context, begun.state.tracker_id
        if not context.ranks.is_first:
            return nullcontext([])
        return tracked(context.config, context.folder, context.console, run_id, begun.step)

    def _record(self, status: Status, reason: str | None) -> RunRecord:
        left = record(self._context, self._known, self._digest, status, reason)
        if self._status:
            self._status.remove()
        return left
