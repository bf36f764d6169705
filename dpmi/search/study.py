"""The study in a sweep's folder: which trials there are, and which come next.

A trial is in the file before its run begins, and has a value when the run's record has one. One
without a value is still to be run, or to be gone on with: its run was killed, or failed.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, TrialState, create_trial

from dpmi.base.errors import UserError
from dpmi.run.records.record import SUPERSEDED

STUDY_FILE, LOCK_FILE = "study.log", ".lock"
_NAME, _TERMS, _CODE = "search", "terms", "code"
FOLDER = "folder"  # attribute of a trial: its job's folder within the sweep's


def open_study(
    folder: Path, terms: Sequence[str], code: str, *, anew: bool = False
) -> optuna.Study:
    """Open the study of a folder, or begin one; the caller keeps other processes away.

    Args:
        folder: of the sweep, existing.
        terms: what makes it this search and no other.
        code: digest of the code that computes: runs of another are not compared with this one's.
        anew: put a study that is there aside.

    Raises:
        UserError: the folder holds another search.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    path = folder / STUDY_FILE
    if anew:
        _set_aside(path)
    study = _open(path)
    if study.user_attrs.get(_CODE, code) != code:
        print(f"the code has changed since the search in {folder} began: starting over")
        _set_aside(path)
        study = _open(path)
    found = study.user_attrs.get(_TERMS, list(terms))
    if found != list(terms):
        differing = ", ".join(term for term in found if term not in terms) or "with fewer keys"
        raise UserError(
            f"{folder}: holds another search ({differing}); give this one another "
            "hydra.sweep.dir, or none, and it has a folder of its own"
        )
    if len(study.user_attrs) < 2:
        study.set_user_attr(_TERMS, found)
        study.set_user_attr(_CODE, code)
    return study


def _open(path: Path) -> optuna.Study:
    _mend(path)
    backend = JournalFileBackend(str(path), lock_obj=JournalFileOpenLock(str(path)))
    storage = JournalStorage(backend)
    if _NAME in optuna.get_all_study_names(storage):
        return optuna.load_study(study_name=_NAME, storage=storage)
    return optuna.create_study(study_name=_NAME, storage=storage, direction="maximize")


def _set_aside(path: Path) -> None:
    """Move a study to where runs that are superseded go."""
    if path.is_file():
        shelf = path.parent / SUPERSEDED
        shelf.mkdir(exist_ok=True)
        path.rename(shelf / f"{path.stem}-{1 + sum(1 for _ in shelf.iterdir())}{path.suffix}")


def _mend(path: Path) -> None:
    """Cut off the line in whose middle a process was killed, and take its lock away."""
    path.with_name(f"{path.name}.lock").unlink(missing_ok=True)
    if path.is_file():
        whole = path.read_bytes()
        end = whole.rfind(b"\n") + 1
        if end < len(whole):
            with path.open("r+b") as file:
                file.truncate(end)


def unfinished(study: optuna.Study) -> list[FrozenTrial]:
    """Trials without a value, in order."""
    return study.get_trials(states=(TrialState.RUNNING,))


def choose(
    study: optuna.Study, varied: Mapping[str, BaseDistribution], seed: int
) -> dict[str, Any]:
    """Choose the values of the next trial, by TPE (Bergstra et al. 2011).

    A function of the seed and of the study alone: a search that was killed chooses what it would
    have chosen. Trials without a value count as bad ones, so that those of one batch differ.

    Args:
        study: not changed.
        varied: what values are drawn from, by key.
        seed: of the search.
    """
    own = np.random.SeedSequence([seed, len(study.trials)]).generate_state(1)
    # Choices are drawn in memory: a kill between two of them would leave half a trial in the file.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.TPESampler(seed=int(own[0]), constant_liar=True)
    draft = optuna.create_study(sampler=sampler, direction="maximize")
    draft.add_trials(study.trials)
    return draft.ask(dict(varied)).params


def add(
    study: optuna.Study, values: Mapping[str, Any], varied: Mapping[str, Any], folder: str
) -> FrozenTrial:
    """Write a trial down, in one line of the file: its run may begin."""
    trial = create_trial(
        state=TrialState.RUNNING,
        params=dict(values),
        distributions=dict(varied),
        user_attrs={FOLDER: folder},
    )
    study.add_trial(trial)
    return study.trials[-1]
