"""What attacks on a run found, in a private file of their own beside its record."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from dpmi.base.errors import UserError
from dpmi.run.records.record import SUPERSEDED

ATTACKS_FILE = "attacks.json"
SCHEMA, VERSION = "dpmi.attacks", 1
LEVEL = 0.95  # of intervals


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="strings")


class Measured(_Frozen):
    """A figure and the ends of its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"

    @property
    def percent(self) -> str:
        """The same of a rate, in per cent."""
        value, low, high = (_percent(rate) for rate in (self.value, self.low, self.high))
        return f"{value} % [{low}, {high}]"


def _percent(rate: float) -> str:
    percent = 100 * rate
    return f"{percent:.3f}" if abs(percent) < 1 else f"{percent:.1f}"


class Roc(_Frozen):
    """How often an attack is right about members, against how often it is wrong about others.

    Attributes:
        score: name of the score.
        auc: area under the curve.
        advantage: true less false positive rate at the score's own threshold, 0, fixed beforehand.
        true_positive: at false positive rates of 0.1 % and 1 %, by these.
        curve: false positive rate, true positive rate and the ends of its interval, at each point.
    """

    score: str
    auc: Measured
    advantage: Measured
    true_positive: dict[str, Measured]
    curve: list[tuple[float, float, float, float]]


class Membership(_Frozen):
    """Whether an image, or a patient, was in the training set.

    Attributes:
        attacker: what is known and seen, in a sentence.
        absent: what a training set without the candidate is.
        intervals: what they are over.
        models: shadow models, each of them attacked by means of the others.
        unit: what a candidate is: an image, or a patient with all their images.
        candidates: that coins were tossed for.
        coins: seed of the coins.
        rocs: of each score; the first is the likelihood ratio.
        promised: the highest true positive rate that the run's ledger allows, at each false
            positive rate (``privacy.tradeoff``); None without a guarantee.
        epsilon, delta: of the guarantee.
        seconds: that the attack took.
    """

    attacker: str
    absent: str
    intervals: str
    models: int
    unit: Literal["image", "patient"]
    candidates: int
    coins: int
    rocs: list[Roc]
    promised: list[tuple[float, float]] | None
    epsilon: float | None
    delta: float | None
    seconds: float


class Ranked(_Frozen):
    """How often what was sought is the likeliest candidate, or one of the likeliest five.

    Attributes:
        first, among_five: shares of the queries; intervals by Clopper and Pearson (1934).
        chance_first, chance_five: what guessing would have.
        median: rank.
        queries: how many.
        candidates: among whom.
    """

    first: Measured
    among_five: Measured
    chance_first: float
    chance_five: float
    median: float
    queries: int
    candidates: int


class Linkage(_Frozen):
    """Whose image a release is, among all training images.

    Attributes:
        attacker: what he knows and sees, in a sentence.
        image: the rank of the image itself.
        patient: the rank of the nearest other image of the same patient, among all but the image
            itself; None where no patient is known to have two.
        intervals: what they are over.
        seed: by which queries were drawn and ties broken.
        seconds: that the attack took.
    """

    attacker: str
    image: Ranked
    patient: Ranked | None
    intervals: str
    seed: int
    seconds: float


class Reconstruction(_Frozen):
    """What is left of an image after its noise, and how much of it comes back.

    Attributes:
        attacker: what he knows and sees, in a sentence.
        images: how many were released and denoised.
        ssim_released, psnr_released, ssim, psnr: medians over them, to the original: structural
            similarity in [-1, 1], peak signal-to-noise ratio in dB.
        shown: of the first image, as PNG in base64: original, released, denoised.
        of_shown: SSIM and PSNR of the last two.
        seed: by which the images were drawn.
        seconds: that the attack took.
    """

    attacker: str
    images: int
    ssim_released: float
    psnr_released: float
    ssim: float
    psnr: float
    shown: tuple[str, str, str]
    of_shown: tuple[tuple[float, float], tuple[float, float]]
    seed: int
    seconds: float


class Attacks(_Frozen):
    """All attacks on a run; private, in ``attacks.json`` in its job folder.

    Attributes:
        private: that it is, for who opens the file.
        schema_name, version: what this file is; a reader refuses any other.
        run: name of the cell.
        config_digest: as in the run's record.
        dataset, mechanism, beta: of the run; β 0 where there is none.
        detail: what else distinguishes runs in a table.
    """

    private: Literal[
        "computed on the training images, and no ε covers it: keep this file where the images are"
    ] = "computed on the training images, and no ε covers it: keep this file where the images are"
    schema_name: Literal["dpmi.attacks"] = "dpmi.attacks"
    version: Literal[1] = 1
    run: str
    config_digest: str
    dataset: str
    mechanism: str
    beta: float
    detail: str
    membership: Membership | None = None
    linkage: Linkage | None = None
    reconstruction: Reconstruction | None = None

    def write(self, folder: Path) -> Path:
        """Write it whole or not at all; readable by its owner alone."""
        folder.mkdir(parents=True, exist_ok=True)
        path, part = folder / ATTACKS_FILE, folder / f"{ATTACKS_FILE}.part"
        try:
            with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
                file.write(self.model_dump_json(indent=1))
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)
        return path


def read_attacks(folder: Path) -> Attacks | None:
    """What was found of the run in ``folder``; None where nothing was tried.

    Raises:
        UserError: the file is not readable, or of another version.
    """
    path = folder / ATTACKS_FILE
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if (content["schema_name"], content["version"]) != (SCHEMA, VERSION):
            raise ValueError(f"this dpmi reads {SCHEMA} version {VERSION}")
        return Attacks.model_validate(content)
    except (OSError, ValueError, KeyError, TypeError, ValidationError) as error:
        first = str(error).splitlines()[0]
        raise UserError(
            f"{path}: no readable file of attacks ({first}); remove it, and attack again"
        ) from error


def all_attacks(folder: Path) -> list[Attacks]:
    """Of every run below a folder, by name of its folder.

    Raises:
        UserError: one is not readable.
    """
    paths = [p for p in sorted(folder.rglob(ATTACKS_FILE)) if SUPERSEDED not in p.parts]
    return [found for path in paths if (found := read_attacks(path.parent))]
