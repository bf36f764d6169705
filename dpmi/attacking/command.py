"""The work of ``python -m dpmi.attack``, and its output."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from dpmi.attacking.linkage import QUERIES, link
from dpmi.attacking.membership import attack_membership
from dpmi.attacking.reconstruction import IMAGES, reconstruct
from dpmi.attacking.result import Attacks, Linkage, Membership, Reconstruction, read_attacks
from dpmi.base.errors import UserError
from dpmi.config.composing import composed
from dpmi.config.identity import cell_name, config_digest
from dpmi.config.schema import Config
from dpmi.config.sections import CsvLogger, LdpMechanism
from dpmi.run.before import refuse_on_this_machine
from dpmi.run.records.reading import config_of, read_record
from dpmi.run.records.record import RECORD_FILE, SUPERSEDED

# What can be attacked how, and what to do with the others.
REACHES = {
    "membership": ("none", "dpsgd", "class_means", "ldp_published", "dpsgd_published"),
    "linkage": ("ldp", "ldp_published", "ldp_features"),
    "reconstruction": ("ldp",),
}
Found = Membership | Linkage | Reconstruction
Advance = Callable[[int, int], None]


@dataclass(frozen=True)
class Target:
    """A run to be attacked.

    Attributes:
        config: of it, alone and with noise of its own.
        folder: where what is found is written.
        digest: of its config, as its record has it.
    """

    config: Config
    folder: Path
    digest: str

    @property
    def name(self) -> str:
        """Of the cell."""
        return cell_name(self.config)


def attack(
    kind: str,
    words: list[str],
    count: int | None,
    seed: int,
    save_figures: Callable[[Attacks, Path], None],
) -> int:
    """Attack every run that is named, and write what was found beside it.

    Args:
        kind: "membership", "linkage" or "reconstruction".
        words: folders with runs below them, or KEY=VALUE of one run.
        count: shadow models, or images; None for the attack's own number.
        seed: of the attacker's coins and draws.
        save_figures: draws them into a folder.

    Returns:
        How many attacks failed.

    Raises:
        UserError: no run can be attacked so, or a config or file is bad.
    """
    console, failed, attacked = Console(), 0, 0
    warnings.simplefilter("ignore")  # what libraries advise is no matter of the attacker's
    logging.disable(logging.WARNING)
    for target in targets(words):
        mechanism = target.config.mechanism.name
        if mechanism not in REACHES[kind]:
            others = [other for other, reached in REACHES.items() if mechanism in reached]
            console.print(
                f"{target.name}: {kind} is no attack on {mechanism}; try {' or '.join(others)}",
                markup=False,
            )
            continue
        before = read_attacks(target.folder) or _nothing_yet(target)
        attacked += 1
        try:
            found = _attacked(kind, target, count, seed, console)
        except UserError as error:
            console.print(f"{target.name}: {error}", style="red", markup=False)
            failed += 1
            continue
        except SystemExit as error:  # Lightning makes it of Ctrl-C
            raise KeyboardInterrupt from error
        attacks = before.model_copy(update={kind: found})
        path = attacks.write(target.folder)
        save_figures(attacks, target.folder)
        _print(target, found, path, console)
    if not attacked:
        raise UserError(
            f"{', '.join(words)}: no run here that {kind} can attack; it applies to "
            f"{', '.join(REACHES[kind])}"
        )
    return failed


def targets(words: list[str]) -> list[Target]:
    """The runs that a command line names.

    Raises:
        UserError: folders and KEY=VALUE together, or either is bad.
    """
    keys = [word for word in words if "=" in word and not Path(word).is_dir()]
    if keys and len(keys) < len(words):
        raise UserError(f"{' '.join(words)}: give folders, or KEY=VALUE of one run, not both")
    if keys:
        config = composed(keys)
        digest = config_digest(config)
        name = f"{cell_name(config)}-{digest[:6]}"  # as dpmi.train has it
        return [Target(_alone(config), Path(config.output_dir) / name, digest)]
    found = []
    for folder in map(Path, words):
        paths = [p for p in sorted(folder.rglob(RECORD_FILE)) if SUPERSEDED not in p.parts]
        if not paths:
            raise UserError(
                f"{folder}: no run record below it; give a folder of runs, or KEY=VALUE of one"
            )
        for path in paths:
            record = read_record(path)
            config = _alone(config_of(record, path))
            found.append(Target(config, path.parent, record.config_digest))
    return found


def _alone(config: Config) -> Config:
    """The run on one device, with noise of its own, that logs nothing.

    Raises:
        UserError: the config leaves it to the run how it is trained, or cannot run here.
    """
    if config.trainer.open:
        raise UserError(
            f"trainer.{config.trainer.open[0]}=auto: what is attacked is trained as the run was, "
            "and what that picked is in its record; give the folder of the run"
        )
    alone = config.model_copy(
        update={
            "noise_seed": None,
            "logger": CsvLogger(name="csv", sample_images="none", nonprivate=False),
            "trainer": config.trainer.model_copy(update={"devices": 1}),
        }
    )
    refuse_on_this_machine(alone)
    return alone


def _nothing_yet(target: Target) -> Attacks:
    config, mechanism = target.config, target.config.mechanism
    detail = [f"{config.data.image_size} px"]
    detail += ["head"] if config.model.train == "head" else []
    detail += [f"pool {mechanism.pool}"] if isinstance(mechanism, LdpMechanism) else []
    return Attacks(
        run=cell_name(config),
        config_digest=target.digest,
        dataset=config.data.name,
        mechanism=mechanism.name,
        beta=0.0 if mechanism.name == "none" else config.beta,
        detail=", ".join(detail),
    )


def _attacked(kind: str, target: Target, count: int | None, seed: int, console: Console) -> Found:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    bar = Progress(*columns, TimeRemainingColumn(), console=console, transient=True)
    with bar:
        task = bar.add_task(f"{kind}: {target.name}", total=None)

        def advance(done: int, of: int) -> None:
            bar.update(task, completed=done, total=of)

        if kind == "membership":
            return attack_membership(target.config, count, seed, console, advance)
        if kind == "linkage":
            return link(target.config, count or QUERIES, seed, console, advance)
        return reconstruct(target.config, count or IMAGES, seed)


def _print(target: Target, found: Found, path: Path, console: Console) -> None:
    console.print(f"[bold]{target.name}[/]", highlight=False)
    console.print(found.attacker, markup=False)
    table = Table(box=None, pad_edge=False)
    for heading, *cells in _rows(found):
        if not table.columns:
            for name in (heading, *cells):
                table.add_column(name)
        else:
            table.add_row(heading, *cells)
    console.print(table)
    console.print(f"{found.seconds:.0f} s; {path}, which is private", markup=False, soft_wrap=True)


def _rows(found: Found) -> list[tuple[str, ...]]:
    """Of a small table, its heading first."""
    if isinstance(found, Membership):
        promised = dict(found.promised or [])
        ends = ("at most, by the guarantee",) if promised else ()
        rows: list[tuple[str, ...]] = [("", *(roc.score for roc in found.rocs), *ends)]
        rows.append(("AUC", *(str(roc.auc) for roc in found.rocs)))
        rows.append(("advantage", *(str(roc.advantage) for roc in found.rocs)))
        for rate in found.rocs[0].true_positive:
            most = (f"{promised[float(rate)]:.2%}",) if promised else ()
            rates = (roc.true_positive[rate].percent for roc in found.rocs)
            rows.append((f"TPR at FPR {float(rate):.1%}", *rates, *most))
        return rows
    if isinstance(found, Linkage):
        rows = [("", "ranked first", "by guess", "among five", "by guess", "median")]
        sought = {"itself": found.image, "same patient": found.patient}
        rows += [
            (name, its.first.percent, f"{its.chance_first:.2%}", its.among_five.percent,
             f"{its.chance_five:.2%}", f"{its.median:g}")
            for name, its in sought.items()
            if its is not None
        ]  # fmt: skip
        return rows
    return [
        ("", "SSIM", "PSNR (dB)"),
        ("released", f"{found.ssim_released:.3f}", f"{found.psnr_released:.1f}"),
        ("denoised", f"{found.ssim:.3f}", f"{found.psnr:.1f}"),
    ]
