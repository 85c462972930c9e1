"""How sure a difference is: exact rank tests, repeated looks and many comparisons at once; NumPy only.

Latencies of processes have outliers and no known distribution, so ranks are compared: their null distributions are
exact for any continuous one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from autocompress import stats

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Shift:
    """A location shift: its estimate, and two-sided p-value and interval of one look. In the unit of the values."""

    estimate: float
    p: float
    interval: tuple[float, float]


def rank_sum(x: npt.ArrayLike, y: npt.ArrayLike, level: float = 0.05) -> Shift:
    """By how much `y` lies above `x`, two independent samples: Mann and Whitney's test (1947), exactly, with Hodges and
    Lehmann's estimate (1963) and the interval of 1 - `level` that inverts the test. Ties count against a difference."""
    differences = np.sort(np.subtract.outer(np.asarray(y, np.float64), np.asarray(x, np.float64)).ravel())
    return _shift(differences, _rank_sum_tail(np.size(x), np.size(y)), level)


def signed_rank(differences: npt.ArrayLike, level: float = 0.05) -> Shift:
    """By how much paired differences lie above 0: Wilcoxon's signed-rank test (1945), exactly, by the Walsh averages
    (Tukey 1949), with Hodges and Lehmann's estimate and the interval that inverts the test. Ties as in `rank_sum`."""
    d = np.asarray(differences, np.float64)
    first, second = np.triu_indices(d.size)
    walsh = np.sort((d[first] + d[second]) / 2)
    return _shift(walsh, _signed_rank_tail(d.size), level)


def _shift(pieces: Floats, tail: Floats, level: float) -> Shift:
    """From the sorted pairwise differences, of which under no shift P(at most k lie below 0) is `tail[k]`."""
    # Pieces that are 0 count on the side that has fewer: that is the larger p.
    below, above = int((pieces <= 0).sum()), int((pieces >= 0).sum())
    p = min(1.0, 2 * float(tail[min(below, above, len(pieces) - 1)]))
    cut = int(np.searchsorted(tail, level / 2, side="right"))  # how many pieces each end gives up
    interval = (float(pieces[cut - 1]), float(pieces[-cut])) if cut else (-math.inf, math.inf)
    return Shift(estimate=float(np.median(pieces)), p=p, interval=interval)


@lru_cache(maxsize=256)
def _rank_sum_tail(m: int, n: int) -> Floats:
    """P(U <= u) for u = 0 ... m n, by N(u; m, n) = N(u - n; m - 1, n) + N(u; m, n - 1) (Mann and Whitney), as
    probabilities, so only sums of positive numbers."""
    row: list[Floats] = [_one(m * n) for _ in range(n + 1)]  # of m = 0
    for i in range(1, m + 1):
        new = [_one(m * n)]
        for j in range(1, n + 1):
            moved = np.zeros(m * n + 1)
            moved[j:] = row[j][: m * n + 1 - j]
            new.append((i * moved + j * new[j - 1]) / (i + j))
        row = new
    return np.cumsum(row[n])


@lru_cache(maxsize=256)
def _signed_rank_tail(n: int) -> Floats:
    """P(W <= w) for w = 0 ... n (n + 1) / 2: each rank is in the sum or not, with equal probability."""
    most = n * (n + 1) // 2
    found = _one(most)
    for rank in range(1, n + 1):
        moved = np.zeros(most + 1)
        moved[rank:] = found[: most + 1 - rank]
        found = (found + moved) / 2
    return np.cumsum(found)


def _one(most: int) -> Floats:
    found = np.zeros(most + 1)
    found[0] = 1.0
    return found


def mcnemar_p(gained: int, lost: int) -> float:
    """Two-sided p-value of McNemar's test (1947), exactly: of the samples that only one of two classifiers has right,
    each is the one's or the other's by a fair coin."""
    return min(1.0, 2 * stats.binomial_tail(max(gained, lost), gained + lost, 0.5))


def mean_p(differences: npt.ArrayLike) -> float:
    """Two-sided p-value of many paired differences having mean 0, by the central limit theorem; 1 where all are 0."""
    d = np.asarray(differences, np.float64)
    if d.size < 2 or not d.any():
        return 1.0
    spread = float(d.std(ddof=1))
    return 0.0 if spread == 0 else normal_p(float(d.mean()) / (spread / math.sqrt(d.size)))


def normal_p(z: float) -> float:
    """Two-sided p-value of a standard normal z."""
    return math.erfc(abs(z) / math.sqrt(2))


def looks(least: int, most: int) -> tuple[int, ...]:
    """After how many pairs one looks: doubling from `least` up to `most`."""
    found = [least]
    while found[-1] < most:
        found.append(min(2 * found[-1], most))
    return tuple(found)


def spending(counts: Sequence[int]) -> tuple[float, ...]:
    """The share of the error that each look may spend, by Kim and DeMets's power family (1987, Biometrika 74, rho = 2)
    of Lan and DeMets's spending functions (1983, Biometrika 70): t^2 up to the part t of the pairs. They sum to 1.

    Each look is tested at its share (Bonferroni), not at the bound of the joint distribution: that holds however the
    looks depend on each other, and costs little because the last one has most of it."""
    reached = np.square(np.asarray(counts, np.float64) / counts[-1])
    return tuple(float(part) for part in np.diff(reached, prepend=0.0))


def sequential_p(ps: Sequence[float], shares: Sequence[float]) -> float:
    """The p-value over all looks so far, valid wherever one stops: min over looks of p / share (the repeated p-value of
    Jennison and Turnbull 2000, section 9.2, under the union bound)."""
    return min(1.0, *(p / share for p, share in zip(ps, shares, strict=False)))


def holm(ps: Sequence[float]) -> list[float]:
    """Adjusted p-values of all comparisons together (Holm 1979): at most `alpha` for those that may be rejected while
    the chance of any false rejection stays below `alpha`, however they depend on each other."""
    adjusted, largest = [1.0] * len(ps), 0.0
    for place, index in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        largest = max(largest, min(1.0, (len(ps) - place) * ps[index]))
        adjusted[index] = largest
    return adjusted
