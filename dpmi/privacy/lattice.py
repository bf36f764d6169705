"""Gaussian noise on the integers, drawn by tables of integers.

Floating-point Gaussians end too early and leak low bits (Mironov 2012; Haney et al. 2022,
arXiv 2207.10635). A Gaussian rounded to a lattice does neither: added to a sum on the same lattice
it is the Gaussian mechanism on that sum, rounded, which is post-processing.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from dpmi.privacy.randomness import SecretStream

REACH = 11  # standard deviations; what is beyond, BEYOND_REACH of all, is never drawn
BEYOND_REACH = 2.0 * float(ndtr(-REACH))
FINEST, COARSEST = 2.0**44, 2.0**12  # steps of the lattice in a standard deviation, at most, least
# Values worked on at once: what is made of them stays in a core's cache, and threads are not held
# up by one another, as they are by many short calls.
BLOCK = 1 << 17
_BUCKETS = 1 << 16
_OPEN = np.iinfo(np.int16).min  # in the guide of the rest: a bucket of several cells


class LatticeGaussian:
    """The law P(n) = ∫ from n-1/2 to n+1/2 of N(0, s²), on the integers.

    The integers are cut into cells of W, a power of two, 64 to 128 cells in a standard deviation.
    P is split in two. Of each cell the largest whole number of 2^-16 that lies wholly under P is
    drawn by integers alone: 16 bits choose the cell by a table, further bits a place in it. The
    rest, some percent, is drawn by rejection: a cell by its largest rest, a place in it, and it
    is kept with probability rest / largest rest.

    Contract: within ten standard deviations the probability of each integer is P(n) to within a
    factor of 1 ± 2^-44 (what double precision does to the rest), up to REACH 1 ± 2^-38 (where the
    rest's uniform numbers, of 128 bits, are coarser than that), and beyond it is 0.

    Args:
        std: s, in steps of the lattice, from COARSEST to FINEST.

    Attributes:
        dtype: of the integers, wide enough.

    Raises:
        ValueError: ``std`` is too small or too large.
    """

    def __init__(self, std: float) -> None:
        if not COARSEST <= std <= FINEST:
            raise ValueError(
                f"a standard deviation of {std:.3g} steps of the lattice; allowed is "
                f"{COARSEST:.0f} to {FINEST:.3g}"
            )
        self.std = std
        self._width = width = 2 ** math.floor(math.log2(std / 64))
        reach = math.ceil(REACH * std / width)
        self.dtype = np.dtype(np.int32 if (reach + 1) * width < 2**31 else np.int64)
        cells = np.arange(-reach, reach)
        ends = np.stack([cells * width, cells * width + (width - 1)])
        masses = self._mass(ends)
        least, most = masses.min(0), masses.max(0)
        # A little less than there is: never more than P, whatever was rounded.
        counts = np.floor(_BUCKETS * width * least * (1 - 2.0**-40)).astype(np.int64)
        self._rest_from = int(counts.sum())
        self._starts = np.zeros(_BUCKETS, self.dtype)  # of the buckets' cells
        self._starts[: self._rest_from] = np.repeat(cells * width, counts)
        # Cells of the rest, the rarest first: small numbers add up without losing digits.
        under = counts / (_BUCKETS * width)
        bounds = most - under
        order = np.argsort(bounds, kind="stable")
        self._cells, self._under, self._bounds = cells[order], under[order], bounds[order]
        self._cumulated = np.cumsum(self._bounds)
        edges = np.arange(_BUCKETS + 1) * (self._cumulated[-1] / _BUCKETS)
        found = self._search(edges)
        self._guide_of_rest = np.where(found[:-1] == found[1:], found[:-1], _OPEN).astype(np.int16)
        rest = 1 - self._rest_from / _BUCKETS
        self._kept = rest / (width * self._cumulated[-1])  # share of trials

    def _search(self, uniform: NDArray[np.float64]) -> NDArray[np.int64]:
        """Cells of the rest, by number, at places on the scale of what is cumulated."""
        found = np.searchsorted(self._cumulated, uniform, side="right")
        return np.minimum(found, len(self._cells) - 1)  # a place may be rounded up to the end

    def _mass(self, n: NDArray[np.int64]) -> NDArray[np.float64]:
        """P(n), by the midpoint rule and its first correction: off by x⁴/(1920 s⁴) and less."""
        square = np.square(n / self.std)
        density = np.exp(-square / 2) / (self.std * math.sqrt(2 * math.pi))
        return density * (1 + (square - 1) / (24 * self.std**2))

    def draw(self, stream: SecretStream, drawn: NDArray[np.signedinteger[Any]]) -> None:
        """Overwrite a (P,) array of type ``dtype`` by independent integers of the law."""
        rest = [np.empty(0, np.intp)]
        buckets, places = np.empty(BLOCK, np.uint16), np.empty(BLOCK, self.dtype)
        indices = np.empty(BLOCK, np.intp)
        for start in range(0, len(drawn), BLOCK):
            block = drawn[start : start + BLOCK]
            own, place, index = (made[: len(block)] for made in (buckets, places, indices))
            stream.fill(own)
            stream.fill(place)
            index[:] = own
            np.take(self._starts, index, mode="wrap", out=block)  # all are in range
            place &= self._width - 1
            block += place
            rest.append(np.flatnonzero(own >= self._rest_from) + start)
        places_of_rest = np.concatenate(rest)
        drawn[places_of_rest] = self._draw_rest(stream, len(places_of_rest))

    def _draw_rest(self, stream: SecretStream, size: int) -> NDArray[np.int64]:
        kept: list[NDArray[np.int64]] = []
        missing = size
        while missing > 0:
            trials = math.ceil(missing / self._kept) + 4 * math.isqrt(missing) + 8
            high, low, places, chances = stream.words(4, trials)
            found = np.take(self._guide_of_rest, high >> np.uint64(48), mode="clip")
            open_ = np.flatnonzero(found == _OPEN)
            uniform = (high[open_] + (low[open_] + 0.5) * 2.0**-64) * 2.0**-64
            found[open_] = self._search(uniform * self._cumulated[-1])
            n = self._cells[found] * self._width
            n += (places & np.uint64(self._width - 1)).astype(np.int64)
            rest = self._mass(n) - self._under[found]
            kept.append(n[chances * 2.0**-64 * self._bounds[found] < rest][:missing])
            missing -= len(kept[-1])
        return np.concatenate([*kept, np.empty(0, np.int64)])


@lru_cache(maxsize=16)
def lattice_gaussian(std: float) -> LatticeGaussian:
    """Return the law of this ``std``, made once; see :class:`LatticeGaussian`."""
    return LatticeGaussian(std)
