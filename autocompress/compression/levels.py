"""Allowed integer levels and scales of a layer.

A table of levels is a sorted float64 array of integers in [-limit, limit] with zero among them; an integer weight is
scale x level, one scale an output channel (symmetric, as TFLite stores weights)."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
_SHRINK = np.linspace(1.0, 0.4, 16)
_KMEANS_STEPS = 20
_MOST_REFITTED = 16  # levels; more of them lie so close that fitting them again gains nothing for what it costs
_MOST_WORK = 2.5e7  # multiplications a level; in larger layers some output channels tell the levels of all
_FEWEST_ROWS = 16
_RIDGE = 1e-9


def all_levels(limit: int) -> Array:
    """Every level of a bit-width b, limit = 2^(b-1) - 1."""
    return np.arange(-limit, limit + 1, dtype=np.float64)


def nearest(values: Array, table: Array) -> Array:
    """The level of `table` nearest to each value (ties: the larger)."""
    if len(table) == int(table[-1] - table[0]) + 1:
        rounded: Array = np.clip(np.floor(values + 0.5), table[0], table[-1])
        return rounded
    middles = (table[1:] + table[:-1]) / 2
    chosen: Array = table[np.searchsorted(middles, values, side="right")]
    return chosen


def initial_scale(
    weight: Array, importance: Array, kept: Array, limit: int, clusters: int | None, shared: bool
) -> Array:
    """A scale per output channel, (G, R, 1) or (1, R, 1) where `shared`: the clipping that loses least, weights
    counted by `importance` (G, 1, n), out of a grid of shrunken absolute maxima. Clusters keep the whole range, and
    channels are brought to like spreads, because all of them share the levels. Not yet short."""
    axes = (0, 2) if shared else (2,)
    used = np.where(kept, np.abs(weight), 0.0)
    largest: Array = np.maximum(used.max(axis=axes, keepdims=True), 1e-12)
    if clusters is not None:
        count = np.maximum(kept.sum(axis=axes, keepdims=True), 1)
        spread = np.sqrt((used * used).sum(axis=axes, keepdims=True) / count) + 1e-12
        common = np.sqrt(largest * spread)  # between equal maxima and equal deviations
        evened: Array = common * (float((used / common).max()) or 1.0) / limit
        return evened
    best: Array = largest / limit
    if limit > 63:
        return best
    table, error = all_levels(limit), np.full(largest.shape, np.inf)
    for shrink in _SHRINK:
        scale = shrink * largest / limit
        gap = np.where(kept, weight - nearest(weight / scale, table) * scale, 0.0)
        now = (gap * gap * importance).sum(axis=axes, keepdims=True)
        best, error = np.where(now < error, scale, best), np.minimum(now, error)
    return best


def initial_levels(ratios: Array, importance: Array, kept: Array, limit: int, clusters: int | None) -> Array:
    """All levels, or `clusters` of them (zero included): the rounded centres of the kept weights in units of their
    scales."""
    if clusters is None:
        return all_levels(limit)
    return rounded_levels(centres(ratios, importance, kept, clusters), limit)


def rounded_levels(centres: Array, limit: int) -> Array:
    """The levels nearest to these centres, and zero."""
    levels: Array = np.unique(np.append(np.clip(np.rint(centres), -limit, limit), 0.0))
    return levels


def centres(ratios: Array, importance: Array, kept: Array, clusters: int, steps: int = _KMEANS_STEPS) -> Array:
    """`clusters` centres (zero among them) of the kept ratios by weighted one-dimensional k-means (Lloyd, from
    quantiles, at most so many steps)."""
    values, weights = ratios[kept], np.broadcast_to(importance, ratios.shape)[kept]
    if not len(values):
        return np.zeros(1)
    order = np.argsort(values, kind="stable")
    return _kmeans_with_zero(values[order], weights[order], clusters, steps)


def _kmeans_with_zero(values: Array, weights: Array, clusters: int, steps: int = _KMEANS_STEPS) -> Array:
    """Lloyd's iteration on sorted values with one centre held at zero; prefix sums make a step O(K log n)."""
    mass = np.concatenate([[0.0], np.cumsum(weights)])
    moment = np.concatenate([[0.0], np.cumsum(weights * values)])
    centres: Array = np.unique(np.quantile(values, np.linspace(0, 1, clusters)))
    centres[np.abs(centres).argmin()] = 0.0
    for _ in range(steps):
        edges = np.searchsorted(values, (centres[1:] + centres[:-1]) / 2)
        borders = np.concatenate([[0], edges, [len(values)]])
        total, first = np.diff(mass[borders]), np.diff(moment[borders])
        moved = np.where(total > 0, first / np.where(total > 0, total, 1.0), centres)
        moved[centres == 0.0] = 0.0
        if np.array_equal(moved, centres):
            break
        centres = np.sort(moved)
    return centres


def refit_scale(weight: Array, moment: Array, levels: Array, scale: Array, shared: bool) -> Array:
    """The least-squares scale for given levels q, not yet short: (q H w) / (q H q) for each output channel."""
    axes = (0, 2) if shared else (2,)
    pulled = levels @ moment
    above = (pulled * weight).sum(axis=axes, keepdims=True)
    below = (pulled * levels).sum(axis=axes, keepdims=True)
    fitted = np.divide(above, below, out=scale.copy(), where=below > 0)
    return np.where(fitted > 0, fitted, scale)


def refit_levels(
    weight: Array, moment: Array, levels: Array, scale: Array, table: Array, limit: int, clusters: int | None
) -> tuple[Array, Array]:
    """For clusters: the levels that are least squares for the given assignment, rounded; and the weights moved to them.

    With one-hot assignments B_k the normal equations are A_kl = sum (s B_k) H (s B_l)^T, b_k = sum (s B_k) H w^T,
    sums over output channels: over evenly spaced ones where there are more than a few numbers need."""
    if clusters is None or not 2 <= len(table) <= _MOST_REFITTED:
        return table, levels
    position = np.searchsorted(table, levels)
    moving = np.flatnonzero(table != 0.0)
    rows = _rows_looked_at(weight.shape)
    hot = np.stack([np.where(position[:, rows] == k, scale[:, rows], 0.0) for k in moving])  # (K, G, R, n)
    if rows != slice(None):  # as many as they are, single precision is enough for whole numbers
        hot, moment = hot.astype(np.float32), moment.astype(np.float32)
    pulled = hot @ moment
    A = np.einsum("kgrn,lgrn->kl", pulled, hot, optimize=True)
    b = np.einsum("kgrn,grn->k", pulled, weight[:, rows], optimize=True)
    A[np.diag_indices(len(moving))] += _RIDGE * max(float(np.trace(A)), 1e-30) / len(moving)
    used = np.isin(np.arange(len(table)), position[:, rows])[moving]
    centres = table.copy()
    centres[moving] = np.where(used, np.clip(np.rint(np.linalg.solve(A, b)), -limit, limit), table[moving])
    return np.unique(centres), centres[position]


def _rows_looked_at(shape: tuple[int, ...]) -> slice:
    """Which output channels of weights (G, R, n) the levels are fitted on: all, unless that is much work."""
    groups, rows, columns = shape
    most = max(_FEWEST_ROWS, int(_MOST_WORK / (groups * columns**2)))
    return slice(None) if rows <= most else slice(None, None, rows // most)
