"""Whose image is this? A release is matched with all training images, by exact likelihood."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from scipy.stats import binomtest

from dpmi.attacking.likelihood import NoisedPixels, Pixels, Values, answered, shifted
from dpmi.attacking.result import LEVEL, Linkage, Measured, Ranked
from dpmi.base.errors import UserError
from dpmi.config.schema import Config
from dpmi.config.sections import LdpMechanism
from dpmi.data.prepare import PreparedData
from dpmi.mechanisms.ldp_release import gray_images
from dpmi.privacy.laplace import PixelNoise, laplace_mechanism, mean_moves, pixel_noise, pooled
from dpmi.privacy.one_bit import RandomizedResponse
from dpmi.privacy.published import scalar_laplace
from dpmi.privacy.randomness import NoiseSource
from dpmi.run.first_weights import load_start
from dpmi.run.parts import features_of, prepared_data

QUERIES = 200  # images that are released and looked for; of one-bit answers, all
INTERVALS = (
    "95 % over the images that were drawn as queries and their noise (Clopper and Pearson 1934)"
)
_KNOWS = (
    "The attacker knows all training images as the mechanism saw them, and the distribution of "
    "its noise, and sees "
)
_SEES = {
    "ldp": "one noised image, once",
    "ldp_published": "one noised image, once",
    "ldp_features": "one answer, of one bit, and its question",
}
_BLOCK = 256  # candidates at once

Progress = Callable[[int, int], None]  # candidates that are compared, of how many


def link(config: Config, queries: int, seed: int, console: Console, progress: Progress) -> Linkage:
    """Release images of a run anew, by its mechanism, and look for them among all of its images.

    Their noise is drawn here, by a key that is thrown away: nothing of a release that training uses
    is read, and nothing leaves.

    Args:
        config: of the run.
        queries: how many images are released.
        seed: by which they are drawn, and ties broken.
        console: shows that features are computed.
        progress: called after each block of candidates.

    Raises:
        UserError: the mechanism releases no image, or has no noise for this β, or the data cannot
            be used.
    """
    started, name = time.monotonic(), config.mechanism.name
    if name not in _SEES:
        raise UserError(
            f"mechanism={name}: releases nothing about single images that could be linked; attack "
            f"it by membership (linkage applies to {', '.join(_SEES)})"
        )
    if isinstance(config.mechanism, LdpMechanism):
        law_of(config.mechanism, config.beta)
    rng, data = np.random.default_rng(seed), prepared_data(config)
    train = data.splits["train"]
    n = len(train.labels)
    if name == "ldp_features":
        own = np.arange(n)
        scores = _of_answers(config, data, console)
    else:
        own = np.sort(rng.permutation(n)[:queries])
        scores = _of_images(config, train.pixels, own, progress)
    contents = data.train_contents or tuple(map(str, range(n)))
    itself, others = ranks(scores, own, train.patients, contents, rng)
    # One number for all pixels is explained by the image alone: no other is likelier than another.
    known = len(others[0]) > 0 and name != "ldp_published"
    return Linkage(
        attacker=_KNOWS + _SEES[name] + ".",
        image=_ranked(itself, np.full(len(itself), 1), n),
        patient=_ranked(*others, n - 1) if known else None,
        intervals=INTERVALS,
        seed=seed,
        seconds=time.monotonic() - started,
    )


def released_images(config: Config, pixels: Pixels, noise: NoiseSource) -> Pixels:
    """What a mechanism lets out of (m, C, R, R) images of one kind, gray or in colour.

    Of local DP these are the noised means of blocks: all that follows is computed from them.

    Returns:
        (m, C', r, r): one channel of gray images.
    """
    stream = noise.stream("laplace_train")
    if isinstance(config.mechanism, LdpMechanism):
        moves = mean_moves(config.mechanism.pool)
        return laplace_mechanism(as_released(config, pixels), config.beta, stream, moves)
    return scalar_laplace(as_released(config, pixels), config.beta, stream)


def law_of(mechanism: LdpMechanism, beta: float) -> PixelNoise:
    """Of the noise on what it releases.

    Raises:
        UserError: no noise of this ``beta`` can be executed.
    """
    try:
        return pixel_noise(beta, mean_moves(mechanism.pool))
    except ValueError as error:
        raise UserError(str(error)) from error


def as_released(config: Config, pixels: Pixels) -> Pixels:
    """The same images as a mechanism has them before its noise, one channel of gray ones."""
    if gray_images(pixels).all():
        pixels = pixels[:, :1]
    if isinstance(config.mechanism, LdpMechanism):
        return pooled(pixels, config.mechanism.pool)
    return np.ascontiguousarray(pixels)


def _of_images(
    config: Config, pixels: Pixels, own: NDArray[np.int64], progress: Progress
) -> Values:
    """(m, n) log likelihoods. Whether an image is gray is public: it is looked for among such."""
    scores = np.full((len(own), len(pixels)), -np.inf)
    gray = gray_images(pixels)
    noise, done = NoiseSource(None), 0
    for kind in (False, True):
        queries, candidates = np.flatnonzero(gray[own] == kind), np.flatnonzero(gray == kind)
        if not len(queries):
            continue
        released = released_images(config, pixels[own[queries]], noise).reshape(len(queries), -1)
        compare = _likelihood(config, released)
        for block in np.array_split(candidates, -(-len(candidates) // _BLOCK)):
            values = as_released(config, pixels[block]).reshape(len(block), -1)
            scores[np.ix_(queries, block)] = compare(values)
            done += len(block)
            progress(done, len(pixels))
    return scores


def _likelihood(config: Config, released: Pixels) -> Callable[[Pixels], Values]:
    if isinstance(config.mechanism, LdpMechanism):
        return NoisedPixels(law_of(config.mechanism, config.beta), released)
    return lambda candidates: shifted(released, candidates, config.beta)


def _of_answers(config: Config, data: PreparedData, console: Console) -> Values:
    cache = Path(config.cache_dir)
    first = load_start(config.model, data.channels, cache, console)
    features = features_of(config, data, first.pretrained, console, "cpu")
    assert features is not None  # ldp_features trains a head
    return answered(
        features.vectors["train"].double().numpy(),
        np.asarray(data.splits["train"].labels, np.int64),
        len(data.classes),
        RandomizedResponse(config.beta),
        NoiseSource(None).stream("answer"),
    )


def ranks(
    scores: Values,
    own: NDArray[np.int64],
    patients: tuple[str, ...],
    contents: tuple[str, ...],
    rng: np.random.Generator,
) -> tuple[NDArray[np.int64], tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Where what is sought stands among all candidates, the likeliest first; ties by lot.

    Copies of an image, byte for byte, are that image: they are no candidates beside it.

    Args:
        scores: (m, n) log likelihoods.
        own: (m,) which candidate the query is.
        patients: of the candidates; "" where unknown.
        contents: of the candidates; the same for copies.
        rng: breaks ties.

    Returns:
        (m,) the rank of the image itself, from 1; and for those queries whose patient has other
        images the best rank of one of these, the image itself left out, and how many there are.
    """
    whose, what = np.asarray(patients), np.asarray(contents)
    itself, nearest, many = [], [], []
    for row, index in zip(scores, own, strict=True):
        order = np.lexsort((rng.random(len(row)), -row))
        others = order[what[order] != what[index]]
        before = order[: int(np.flatnonzero(order == index)[0])]
        itself.append(1 + int((what[before] != what[index]).sum()))
        same = whose[others] == whose[index]
        if whose[index] and same.any():
            nearest.append(1 + int(np.argmax(same)))
            many.append(int(same.sum()))
    return np.array(itself), (np.array(nearest, np.int64), np.array(many, np.int64))


def _ranked(found: NDArray[np.int64], sought: NDArray[np.int64], candidates: int) -> Ranked:
    """Shares of ranks, beside those of a guess.

    Args:
        found: ranks.
        sought: of each, how many of the candidates would do.
        candidates: how many there are.
    """
    return Ranked(
        first=share(int((found <= 1).sum()), len(found)),
        among_five=share(int((found <= 5).sum()), len(found)),
        chance_first=float(np.mean(sought / candidates)),
        chance_five=float(np.mean(_any_of_five(sought, candidates))),
        median=float(np.median(found)),
        queries=len(found),
        candidates=candidates,
    )


def _any_of_five(sought: NDArray[np.int64], candidates: int) -> Values:
    """Probability that five candidates drawn at random have one that is sought."""
    missed = np.ones(len(sought))
    for drawn in range(min(5, candidates)):
        missed *= np.clip((candidates - drawn - sought) / (candidates - drawn), 0, 1)
    return 1 - missed


def share(successes: int, trials: int, level: float = LEVEL) -> Measured:
    """A proportion and its interval by Clopper and Pearson (1934)."""
    interval = binomtest(successes, trials).proportion_ci(level, method="exact")
    return Measured(value=successes / trials, low=float(interval.low), high=float(interval.high))
