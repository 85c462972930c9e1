"""Steps in a figure over many nights: what stays changed is one event, not one a night."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
_LEAST = 3  # nights on each side of a step
_PERMUTATIONS = 999


@dataclass(frozen=True, kw_only=True)
class Step:
    """A change of level before the value at `index`: medians of what was before and after it."""

    index: int
    before: float
    after: float
    p: float


def steps(values: npt.ArrayLike, *, alpha: float = 0.01, least: float = 0.0, seed: int = 0) -> tuple[Step, ...]:
    """All steps of a series, by index, that are sure (`alpha`) and by at least `least`: circular binary segmentation
    (Olshen, Venkatraman, Lucito and Wigler 2004, Biostatistics 5) on ranks. It looks for a stretch that differs from
    the rest, so a slow week in the middle is found as surely as a change that stays; then again within the parts."""
    x = np.asarray(values, np.float64)
    rng = np.random.default_rng(seed)
    cuts = sorted(_cuts(x, 0, alpha, least, rng))
    bounds = [0, *(index for index, _ in cuts), len(x)]
    levels = [float(np.median(x[a:b])) for a, b in itertools.pairwise(bounds)]
    return tuple(
        Step(index=index, before=levels[n], after=levels[n + 1], p=p)
        for n, (index, p) in enumerate(cuts)
        if abs(levels[n + 1] - levels[n]) >= least
    )


def _cuts(x: Floats, start: int, alpha: float, least: float, rng: np.random.Generator) -> list[tuple[int, float]]:
    if len(x) < 2 * _LEAST:
        return []
    (first, last), p = stretch(x, rng)
    outside = np.r_[x[:first], x[last:]]
    if p > alpha or abs(np.median(x[first:last]) - np.median(outside)) < least:
        return []
    found = [(start + at, p) for at in (first, last) if 0 < at < len(x)]
    for a, b in ((0, first), (first, last), (last, len(x))):
        found += _cuts(x[a:b], start + a, alpha, least, rng)
    return found


def stretch(x: npt.ArrayLike, rng: np.random.Generator) -> tuple[tuple[int, int], float]:
    """The stretch [first, last) of a series that differs most from the rest, and the p-value of a series in which none
    does, by permutation. Stretch and rest have _LEAST values or more each."""
    ranks = _mean_ranks(np.asarray(x, np.float64))
    found = _statistics(ranks[np.newaxis])[0]
    at = int(np.argmax(found))
    others = _statistics(rng.permuted(np.tile(ranks, (_PERMUTATIONS, 1)), axis=1)).max(axis=1)
    p = (1 + int((others >= found[at] - 1e-9).sum())) / (_PERMUTATIONS + 1)
    first, last = _stretches(len(ranks))
    return (int(first[at]), int(last[at])), p


def _stretches(n: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    first, last = np.triu_indices(n + 1, k=_LEAST)
    kept = (last - first <= n - _LEAST) & ((first == 0) | (first >= _LEAST)) & ((last == n) | (n - last >= _LEAST))
    return first[kept], last[kept]


def _statistics(ranks: Floats) -> Floats:
    """For each row and stretch the mean inside minus the mean outside, in its standard error up to a constant."""
    n = ranks.shape[1]
    first, last = _stretches(n)
    sums = np.cumsum(np.pad(ranks, ((0, 0), (1, 0))), axis=1)
    inside, width = sums[:, last] - sums[:, first], last - first
    apart = inside / width - (sums[:, -1:] - inside) / (n - width)
    found: Floats = np.abs(apart) / np.sqrt(1 / width + 1 / (n - width))
    return found


def _mean_ranks(x: Floats) -> Floats:
    _, inverse, counts = np.unique(x, return_inverse=True, return_counts=True)
    ranks: Floats = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    return ranks
