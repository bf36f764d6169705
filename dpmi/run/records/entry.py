"""A run's entry in the account of its images: reserved before it spends, settled after."""

from __future__ import annotations

import dataclasses
import logging
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from dpmi.base.errors import UserError
from dpmi.config.identity import cell_name
from dpmi.config.schema import Config
from dpmi.data.prepare import PreparedData
from dpmi.mechanisms import LocalDP, LocalDPOfFeatures, Mechanism, PlannedMechanism
from dpmi.privacy.account import Accounts
from dpmi.privacy.accounting import planned_entries, steps_within
from dpmi.privacy.guarantee import REPEATABLE, printed_epsilon
from dpmi.privacy.spending import RESERVED, LedgerEntry, Spending
from dpmi.privacy.total import total
from dpmi.run.records.entry_file import ENTRY_FILE, EntryFile, read_entry, superseded_spendings
from dpmi.run.records.record import RunAccount

_log = logging.getLogger(__name__)


class RunEntry:
    """Tells the account what a run is going to take, before it does, and then what it took.

    Args:
        folder: the job's folder.
        config: of the run.
        data: its images.

    Attributes:
        before: taken from the same images by those whose weights the run starts from.
    """

    def __init__(self, folder: Path, config: Config, data: PreparedData) -> None:
        self._folder, self._config, self._data = folder, config, data
        self._accounts = Accounts(Path(config.cache_dir))
        self._spending: Spending | None = None
        self._account: str | None = None
        self.before: tuple[Spending, ...] = ()

    def accounts(self) -> set[str]:
        """Names of the accounts that have images of the run, or may have."""
        return {account.id for account in self._accounts.overlapping(self._data.train_contents)}

    def reserve(self, mechanism: Mechanism, lost: Sequence[LedgerEntry]) -> None:
        """Return only when all that the run may take is entered, on the disk.

        Releases of noised images, which runs share, go through :meth:`reserve_release`.

        Args:
            mechanism: which has released nothing in this process yet.
            lost: releases that earlier attempts may have made and that are not repeated.

        Raises:
            UserError: ``privacy.max_total_epsilon`` would be passed; nothing may be released then.
            OSError: it cannot be written; nothing may be released then.
        """
        before = read_entry(self._folder)
        name = before.spending.entry if before else secrets.token_hex(8)
        if planned := _planned(name, self._config, mechanism, lost):
            self._reserve(planned)

    def reserve_release(
        self, name: str, value_epsilon: float, image_epsilon: float, unit: str
    ) -> None:
        """Return only when a release of noised images is entered, once for all runs that use it.

        Args:
            name: of the release.
            value_epsilon: ε of a channel value.
            image_epsilon: ε of an image; the same where the release hides images whole.
            unit: "image", or "patient" where each patient has one image in it, or one answer.

        Raises:
            UserError, OSError: as :meth:`reserve`; or ``privacy.max_epsilon`` would be passed,
                with other releases that the weights before training were trained on.
        """
        budget = self._config.privacy.max_epsilon
        before = total(took for took in self.before if took.entry != name)
        run = cell_name(self._config)
        own = Spending(
            name, run, value_epsilon=value_epsilon, image_epsilon=image_epsilon, unit=unit
        )
        if own.hides_images:
            spent = image_epsilon + before.releases_image_epsilon
        else:
            unit, spent = "channel value", value_epsilon + before.releases_epsilon
        if budget is not None and spent > budget:
            raise UserError(
                f"privacy.max_epsilon={budget:g}: with what model.weights was trained on, this "
                f"run would spend ε = {printed_epsilon(spent)} per {unit}; allow more, or "
                "start from other weights"
            )
        self._reserve(own)

    def _reserve(self, planned: Spending) -> None:
        before = read_entry(self._folder)
        file = EntryFile(status=RESERVED, spending=planned)
        if before is None:  # the name first: the account must know nothing that nobody can settle
            file.write(self._folder)
        budget = self._config.privacy.max_total_epsilon
        try:
            self._account = self._accounts.reserve(self._data.train_contents, planned, budget)
        except UserError:
            if before is None:
                (self._folder / ENTRY_FILE).unlink()
            raise
        file.write(self._folder)
        self._spending = planned

    def settle(
        self,
        mechanism: Mechanism,
        status: Literal["completed", "interrupted", "failed"],
        trained: bool,
    ) -> None:
        """Enter what the run took; what was reserved remains where it cannot be written.

        Args:
            mechanism: as the run leaves it.
            status: how the run ended.
            trained: whether it, or an attempt before it, took a step.
        """
        if self._spending is None:
            return
        self._spending = _spent(self._spending, mechanism, trained)
        try:
            EntryFile(status=status, spending=self._spending).write(self._folder)
            self._accounts.settle(self._spending, status)
        except OSError as error:
            _log.warning(
                "%s: what was spent cannot be entered in the account (%s), which keeps what was "
                "reserved",
                error.filename or self._folder,
                error.strerror,
            )

    def taken(self, mechanism: Mechanism) -> tuple[str, Spending]:
        """Name of the account, and what a run that is at its end took from it.

        Raises:
            ValueError: nothing was reserved.
        """
        if self._account is None or self._spending is None:
            raise ValueError("nothing was entered in the account")
        return self._account, _spent(self._spending, mechanism, trained=True)

    def run_account(self) -> RunAccount | None:
        """What the record says of it; None where nothing was reserved, and so nothing released."""
        if self._spending is None or self._account is None:
            return None
        earlier = superseded_spendings(self._folder)  # a release of noised images may be the same
        return RunAccount(
            id=self._account,
            overlaps=tuple(sorted(self.accounts() - {self._account})),
            spending=self._spending,
            superseded=tuple(took for took in earlier if took.entry != self._spending.entry),
            before=self.before,
        )


def _planned(
    name: str, config: Config, mechanism: Mechanism, lost: Sequence[LedgerEntry]
) -> Spending | None:
    run = cell_name(config)
    if config.noise_seed is not None and config.mechanism.name != "none":
        return Spending(name, run, reason=REPEATABLE)
    if isinstance(mechanism, LocalDP | LocalDPOfFeatures):
        return None  # it enters its release itself
    if isinstance(mechanism, PlannedMechanism):
        plan, steps = mechanism.plan, mechanism.plan.steps
        if config.privacy.max_epsilon is not None:
            most = config.privacy.max_epsilon
            steps = steps_within(most, plan, [*mechanism.before, *lost])
            if not steps:  # refused before anything is released
                return Spending(name, run, tuple(lost), plan.delta, unit=plan.unit)
        ledger = tuple(planned_entries(plan, steps, lost))
        return Spending(name, run, ledger, plan.delta, unit=plan.unit)
    return Spending(name, run, reason=mechanism.guarantee().reason)


def _spent(planned: Spending, mechanism: Mechanism, trained: bool) -> Spending:
    if planned.reason is not None:
        return planned if trained else Spending(planned.entry, planned.run)
    if isinstance(mechanism, PlannedMechanism):
        ledger = mechanism.ledger.entries
        return dataclasses.replace(planned, ledger=ledger)
    return planned
