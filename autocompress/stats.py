"""Intervals and robust statistics of measured samples; NumPy only. Every interval is a two-sided 95 % one."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Interval = tuple[float, float]

_Z95 = 1.959963984540054  # 97.5 % point of the standard normal
_T95 = (12.706204736432095, 4.302652729911275, 3.182446305284263, 2.7764451051977987)  # Student's t, 1 to 4 degrees
_FEW = 5
_TAILS = (0.025, 0.975)
_RESAMPLES = 2000
_TAIL_CELLS = 16  # values at each end of a sample that are resampled one by one
_MOST_CELLS = 48  # distinct values up to which all are


def wilson_interval(successes: float, n: int) -> Interval:
    """Wilson's score interval of a proportion of `n` trials (Wilson 1927; Newcombe 1998, method 3).

    Raises ValueError unless n > 0 and 0 <= successes <= n.
    """
    if n <= 0 or not 0 <= successes <= n:
        raise ValueError(f"successes must lie in [0, n] with n > 0, got {successes} of {n}")
    p, z2 = successes / n, _Z95**2
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z95 * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    # The ends are exact; rounding would leave 1e-17 there.
    low = 0.0 if successes == 0 else centre - half
    return low, 1.0 if successes == n else centre + half


def binomial_tail(successes: int, n: int, p: float) -> float:
    """P(X >= successes) of X binomial with `n` trials of probability `p`, exactly, summed in the logarithm."""
    if successes <= 0:
        return 1.0
    if successes > n or p <= 0:
        return 0.0
    if p >= 1:
        return 1.0
    k = np.arange(successes, n + 1)
    choose = math.lgamma(n + 1) - np.array([math.lgamma(i + 1) + math.lgamma(n - i + 1) for i in k.tolist()])
    logs = choose + k * math.log(p) + (n - k) * math.log1p(-p)
    top = float(logs.max())
    return min(1.0, math.exp(top) * float(np.exp(logs - top).sum()))


def bootstrap_interval(
    values: npt.ArrayLike,
    statistic: Literal["mean", "median"] = "mean",
    seed: int = 0,
    n: int = _RESAMPLES,
) -> Interval:
    """Percentile bootstrap interval (Efron 1979) of the mean or the median of `values`, from `n` resamples.

    Values that are all equal give (value, value) exactly. Raises ValueError on no or non-finite values.
    """
    x = _sample(values)
    if x.min() == x.max():
        return float(x[0]), float(x[0])
    rng = np.random.default_rng(seed)
    resampled = _resampled_medians(x, rng, n) if statistic == "median" else _resampled_means(x, rng, n)
    return _percentile_interval(resampled)


def paired_interval(a: npt.ArrayLike, b: npt.ArrayLike, seed: int = 0) -> Interval:
    """Bootstrap interval of mean(b - a), where `a` and `b` (shape (n,)) score the same n samples."""
    first, second = _sample(a), _sample(b)
    if first.shape != second.shape:
        raise ValueError(f"paired samples must be equally many, got {first.size} and {second.size}")
    return bootstrap_interval(second - first, "mean", seed)


def bootstrap_metric_interval(
    value_of_indices: Callable[[npt.NDArray[np.int64]], float], n: int, seed: int = 0, resamples: int = 200
) -> Interval:
    """Bootstrap interval of a metric that is no mean over samples (macro F1, ROC AUC).

    `value_of_indices` gets n sample indices (shape (n,), drawn with replacement) and returns the metric on
    them; NaN where it is not defined (ROC AUC with one class): those resamples do not count. Raises
    ValueError if none does.
    """
    rng = np.random.default_rng(seed)
    drawn = [value_of_indices(rng.integers(0, n, size=n)) for _ in range(resamples)]
    values = np.asarray(drawn, dtype=np.float64)
    values = values[~np.isnan(values)]
    if values.size == 0:
        raise ValueError(f"the metric is defined on none of {resamples} resamples of {n} samples")
    return _percentile_interval(values)


def quartiles(samples: npt.ArrayLike) -> tuple[float, float, float]:
    """First quartile, median and third quartile, linearly interpolated."""
    q1, q2, q3 = np.quantile(_sample(samples), (0.25, 0.5, 0.75))
    return float(q1), float(q2), float(q3)


def iqr(samples: npt.ArrayLike) -> float:
    """Interquartile range, in the unit of the samples."""
    q1, _, q3 = quartiles(samples)
    return q3 - q1


def tukey_outliers(samples: npt.ArrayLike) -> int:
    """How many samples lie more than 1.5 interquartile ranges outside the quartiles (Tukey 1977)."""
    x = _sample(samples)
    q1, _, q3 = quartiles(x)
    fence = 1.5 * (q3 - q1)
    return int(np.count_nonzero((x < q1 - fence) | (x > q3 + fence)))


def process_interval(values: npt.ArrayLike, seed: int = 0) -> Interval | None:
    """Interval of what processes typically give (a median latency each, or a ratio of two), all > 0; None for one.

    From 6 on, the bootstrap of their median. The bootstrap of fewer is their range at best, which misses the true
    median with probability 2^(1-n): every fourth time for 3. So Student's t (1908) on their logarithms: it takes
    processes to spread log-normally, and always holds their median. Raises ValueError for values <= 0.
    """
    x = _sample(values)
    if x.min() <= 0:
        raise ValueError(f"needs values above 0, got {x.min()}")
    if x.size > _FEW:
        return bootstrap_interval(x, "median", seed)
    if x.size == 1:
        return None
    logs = np.log(x)
    half = _T95[x.size - 2] * float(logs.std(ddof=1)) / math.sqrt(x.size)
    # Rounding in log and exp must not leave a value outside that all processes gave.
    low, high = math.exp(float(logs.mean()) - half), math.exp(float(logs.mean()) + half)
    middle = float(np.median(x))
    return min(low, middle), max(high, middle)


def _sample(values: npt.ArrayLike) -> Floats:
    x = np.asarray(values, dtype=np.float64).ravel()
    bad = np.count_nonzero(~np.isfinite(x))
    if x.size == 0 or bad:
        raise ValueError(f"needs one or more finite values, got {x.size}, {bad} of them not finite")
    return x


def _percentile_interval(resampled: Floats) -> Interval:
    # Resampled means of few samples take few values: an end is one of them, not a point between two.
    low, high = np.quantile(resampled, _TAILS, method="inverted_cdf")
    return float(low), float(high)


def _resampled_means(x: Floats, rng: np.random.Generator, resamples: int) -> Floats:
    """A resample needs only how often each cell was drawn: few numbers instead of n. A cell of one value is
    exact; the sum of the draws within a wider one is normal, with the cell's mean and variance."""
    x = np.sort(x)
    starts = _cell_starts(x)
    sizes = np.diff(starts, append=x.size)
    means = np.add.reduceat(x, starts) / sizes
    variances = np.add.reduceat((x - np.repeat(means, sizes)) ** 2, starts) / sizes
    counts = rng.multinomial(x.size, sizes / x.size, size=resamples)
    spread = np.sqrt(counts @ variances) * rng.standard_normal(resamples)
    resampled: Floats = (counts @ means + spread) / x.size
    return resampled


def _cell_starts(x: Floats) -> npt.NDArray[np.int64]:
    """Where the cells of the sorted `x` begin: at its distinct values if few; else at each value of the two
    ends and at equal parts of the middle, where values are close."""
    distinct = np.flatnonzero(np.diff(x, prepend=-np.inf)).astype(np.int64)
    if distinct.size <= _MOST_CELLS:
        return distinct
    ends = np.arange(_TAIL_CELLS)
    middle = np.linspace(_TAIL_CELLS, x.size - _TAIL_CELLS, _MOST_CELLS - 2 * _TAIL_CELLS, endpoint=False)
    return np.concatenate([ends, middle.astype(np.int64), x.size - _TAIL_CELLS + ends])


def _resampled_medians(x: Floats, rng: np.random.Generator, resamples: int) -> Floats:
    """A resample of sorted values is x[floor(n U)] of n uniform numbers U. Its middle ones need no
    others: the m-th smallest of n uniforms is Beta(m, n + 1 - m), the next is the smallest of n - m uniforms
    above it."""
    n, m = x.size, (x.size + 1) // 2
    x = np.sort(x)
    lower = rng.beta(m, n + 1 - m, size=resamples)
    upper = lower if n % 2 else lower + (1 - lower) * rng.beta(1, n - m, size=resamples)
    ends = [x[np.minimum((u * n).astype(np.int64), n - 1)] for u in (lower, upper)]
    medians: Floats = (ends[0] + ends[1]) / 2
    return medians
