"""How far chance alone moves a metric of test images: 95 % intervals, where images have patients.

Images of one patient are not independent: each interval is over patients, whose images are drawn
together. An image whose patient is not known counts as a patient of its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit
from scipy.stats import norm, rankdata

from dpmi.models.names import BINS

LEVEL = 0.95
RESAMPLES = 2000
FEWEST_RESAMPLED = 10  # patients: of fewer a bootstrap says nothing

Floats = NDArray[np.float64]
Patients = NDArray[np.int64]  # (n,), of each image the number of its patient, 0, 1, ...
Ends = tuple[float, float]

_Z = float(norm.ppf((1 + LEVEL) / 2))
_AT_ONCE = 4_000_000  # numbers of a bootstrap


def of_share(right: NDArray[np.bool_], patients: Patients) -> Ends:
    """Of the share of images that are right: Wilson's score (1927).

    Its number of images is divided by the design effect, how much more the patients' images vary
    together than apart (Rao and Scott 1992, Biometrics 48). Where all images are right, or none,
    or there is one patient, it is taken to be the largest that there can be.
    """
    n, share = len(right), float(right.mean())
    sizes = np.bincount(patients).astype(float)
    most = float((sizes**2).sum() / n)  # all images of a patient are right, or none
    effect = most
    if 0 < share < 1 and len(sizes) > 1:
        apart = np.bincount(patients, right) - share * sizes
        together = len(sizes) / (len(sizes) - 1) * float((apart**2).sum()) / n**2
        effect = min(max(together / (share * (1 - share) / n), 1.0), most)
    return wilson(share, n / effect)


def wilson(share: float, n: float) -> Ends:
    """Wilson's score interval (1927) of a share of n images; n may be a fraction."""
    middle = (share + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z * math.sqrt(share * (1 - share) / n + (_Z / (2 * n)) ** 2) / (1 + _Z**2 / n)
    return max(0.0, middle - half), min(1.0, middle + half)


def of_mean(values: Sequence[float], ends: Sequence[Ends]) -> Ends:
    """Of the mean of independent values with intervals of their own.

    By the method of variance estimates recovery (Zou and Donner 2008, Stat. Med. 27, equation 7).
    """
    middle, k = float(np.mean(values)), len(values)
    below = math.sqrt(sum((v - low) ** 2 for v, (low, _) in zip(values, ends, strict=True)))
    above = math.sqrt(sum((high - v) ** 2 for v, (_, high) in zip(values, ends, strict=True)))
    return middle - below / k, middle + above / k


def of_difference(one: float, its: Ends, other: float, others: Ends) -> Ends:
    """Of ``one - other``, taken for independent, by the same method.

    Of two networks that saw the same images it is too wide rather than too narrow.
    """
    difference = one - other
    return (
        difference - math.hypot(one - its[0], others[1] - other),
        difference + math.hypot(its[1] - one, other - others[0]),
    )


def of_auroc(probabilities: Floats, labels: NDArray[np.int64], patients: Patients) -> Ends:
    """Of the mean AUROC of the classes that are there, two or more; see :func:`of_areas`.

    Args:
        probabilities: (n, K).
        labels: (n,).
        patients: (n,).
    """
    there = np.unique(labels)
    return of_areas(probabilities[:, there], (labels[:, None] == there).astype(float), patients)


def of_areas(scores: Floats, findings: Floats, patients: Patients) -> Ends:
    """Of the mean, over K findings, of the area under each one's ROC curve.

    Where scores are decisions, 0 or 1, that area is the balanced accuracy.

    By its structural components (DeLong et al. 1988), summed by patient (Obuchowski 1997,
    Biometrics 53), on the logit scale. Where these do not vary, as where all images are in order:
    Wilson's score of as many disjoint pairs as the scarcer side has patients.

    Args:
        scores: (n, K).
        findings: (n, K): 1, 0, NaN where not known; of each some are 1 and some 0.
        patients: (n,).
    """
    areas, parts, scarcest = [], np.zeros(len(scores)), len(scores)
    for score, truth in zip(scores.T, findings.T, strict=True):
        ill, well = truth == 1, truth == 0
        sides = [len(np.unique(patients[side])) for side in (ill, well)]
        scarcest = min(scarcest, *sides)
        ranks = np.zeros(len(scores))
        ranks[ill | well] = rankdata(score[ill | well])
        passed = np.zeros(len(scores))  # share of the other side that an image is ranked right to
        passed[ill] = (ranks[ill] - rankdata(score[ill])) / well.sum()
        passed[well] = 1 - (ranks[well] - rankdata(score[well])) / ill.sum()
        areas.append(float(passed[ill].mean()))
        if min(sides) > 1:
            for side, m in zip((ill, well), sides, strict=True):
                scale = math.sqrt(m / (m - 1)) / side.sum()
                parts[side] += scale * (passed[side] - areas[-1]) / scores.shape[1]
    area = float(np.mean(areas))
    deviation = math.sqrt(float((np.bincount(patients, parts) ** 2).sum()))
    if scarcest < 2 or not 0 < area < 1 or deviation == 0:
        return wilson(area, scarcest)
    half = _Z * deviation / (area * (1 - area))
    return float(expit(logit(area) - half)), float(expit(logit(area) + half))


def of_ece(confidences: Floats, right: NDArray[np.bool_], patients: Patients) -> Ends | None:
    """Of the expected calibration error: a basic bootstrap over patients.

    The error of few images is too high by chance, and that of a resample higher still. Reflected
    at what was measured, as the basic bootstrap does, the interval is of the error without it
    (Davison and Hinkley 1997, section 5.2.1). It begins at 0 where chance alone may make the error
    of a calibrated network as high: where that of the same gaps with random signs, one a patient,
    is as high or higher in more than 2.5 % of the draws.

    Args:
        confidences: (n,), probability of the class chosen.
        right: (n,), whether it is the image's.
        patients: (n,).

    Returns:
        None of fewer than ``FEWEST_RESAMPLED`` patients.
    """
    count = int(patients.max()) + 1
    if count < FEWEST_RESAMPLED:
        return None
    # As torchmetrics sorts them: a bin has its lower edge, and certainty is a bin of its own.
    bins = np.searchsorted(np.linspace(0, 1, BINS + 1), confidences, side="right") - 1
    gaps = np.zeros((count, BINS + 1))
    np.add.at(gaps, (patients, bins), right - confidences)
    sizes = np.bincount(patients).astype(float)
    measured = float(np.abs(gaps.sum(0)).sum() / sizes.sum())
    random = np.random.default_rng(0)  # the same images, the same interval
    found: list[Floats] = []
    calibrated: list[Floats] = []
    at_once = max(1, _AT_ONCE // count)
    for drawn in (min(at_once, RESAMPLES - start) for start in range(0, RESAMPLES, at_once)):
        weights = random.multinomial(count, np.full(count, 1 / count), size=drawn).astype(float)
        found.append(np.abs(weights @ gaps).sum(1) / (weights @ sizes))
        signs = 2.0 * random.integers(0, 2, size=(drawn, count)) - 1
        calibrated.append(np.abs(signs @ gaps).sum(1) / sizes.sum())
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.percentile(np.concatenate(found), [tail, 100 - tail])
    by_chance = measured <= np.percentile(np.concatenate(calibrated), 100 - tail)
    least = 0.0 if by_chance else max(0.0, 2 * measured - float(high))
    return least, min(1.0, 2 * measured - float(low))
