"""Pareto fronts of points whose every objective is minimised: membership, hypervolume, knee. NumPy only."""

from __future__ import annotations

import bisect

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

ACCURACY_SCALE = 0.10  # the loss of a metric in [0, 1] that counts as much as a factor of RATIO_SCALE in the others
# Eight times the float network's latency and the plain int8 download lie beyond both networks: a float file is four to
# five times the int8 one, and no kernel is offered that takes more than three times the float kernel's time.
RATIO_SCALE = 8.0
_SMALLEST = 1e-12  # of what a value is compared with: a ratio of zero has no logarithm


def non_dominated(points: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Mask, shape (n,), of the points (n, objectives) that no other point dominates: is nowhere worse and
    somewhere better. Of equal points the first is kept. Raises ValueError on NaN."""
    p = _as_points(points)
    mask = np.zeros(len(p), dtype=np.bool_)
    if len(p) == 0:
        return mask
    # Sorted, no later point dominates an earlier one: the first that remains is always on the front.
    unique, first_index = np.unique(p, axis=0, return_index=True)
    while len(unique):
        mask[first_index[0]] = True
        better_somewhere = (unique < unique[0]).any(axis=1)
        unique, first_index = unique[better_somewhere], first_index[better_somewhere]
    return mask


def hypervolume(points: npt.ArrayLike, reference: npt.ArrayLike) -> float:
    """Volume that `points` (n, objectives) dominate up to `reference` (objectives,), exact in any dimension.

    Zitzler and Thiele 1998, "Multiobjective optimization using evolutionary algorithms". Points not better
    than the reference in every objective add nothing. Raises ValueError on NaN, -inf or a reference of
    another dimension.
    """
    p, r = _as_points(points), np.asarray(reference, dtype=np.float64)
    if len(p) == 0:
        return 0.0
    if r.shape != p.shape[1:] or not np.isfinite(r).all() or np.isneginf(p).any():
        raise ValueError(f"needs a finite reference of {p.shape[1]} objectives and no -inf, got {r}")
    inside = p[(p < r).all(axis=1)]
    return _volume(inside[non_dominated(inside)], r)


def knee(points: npt.ArrayLike) -> int:
    """Index of the knee of a front (n, objectives): the first of `knees`."""
    return int(knees(points)[0])


def knees(points: npt.ArrayLike) -> npt.NDArray[np.intp]:
    """Indices of the points of a front (n, objectives) that are farthest from the chord between its extremes, equally.

    Farthest towards the ideal, with each objective scaled to [0, 1] over the front (Das 1999, "On
    characterizing the 'knee' of the Pareto curve based on normal-boundary intersection"). With more than two
    objectives the chord becomes the plane sum(x) = objectives - 1, through the points that are best in one
    and worst in all others; farthest from it is the smallest sum. Raises ValueError on no or non-finite points.
    """
    p = _as_points(points)
    if len(p) == 0 or not np.isfinite(p).all():
        raise ValueError("the knee needs one or more finite points")
    low, width = p.min(axis=0), np.ptp(p, axis=0)
    scaled = (p - low) / np.where(width > 0, width, 1.0)
    # Sums that differ by rounding only are equal: the choice must not hang on the unit of an objective.
    sums = np.round(scaled.sum(axis=1), 12)
    return np.flatnonzero(sums == sums.min())


def log_ratio(values: npt.ArrayLike, to: float) -> Floats:
    """Latencies, sizes and the like on the scale of the hypervolume: 0 at `to`, 1 at RATIO_SCALE times that. Raises
    ValueError unless `to` is positive."""
    if not to > 0:
        raise ValueError(f"scales must be positive, got {to}")
    ratios = np.maximum(np.asarray(values, dtype=np.float64) / to, _SMALLEST)
    found: Floats = np.log(ratios) / np.log(RATIO_SCALE)
    return found


def study_hypervolume(
    accuracy: npt.ArrayLike,
    latency_ms: npt.ArrayLike,
    download_bytes: npt.ArrayLike,
    *,
    baseline_accuracy: float,
    baseline_latency_ms: float,
    int8_download_bytes: float,
    higher_is_better: bool = True,
    metric_scale: float = 1.0,
) -> float:
    """Hypervolume of candidates (arrays of shape (n,)) in metric, latency and download, comparable between studies of
    one network, data and device.

    Minimises loss of the metric / (0.10 `metric_scale`, which is 1 for one in 0..1), log_8 of latency / baseline
    latency and log_8 of download / download of the plain static int8 file, with the reference (1, 1, 1). So 1 is a
    candidate that loses nothing, is as fast as the float network and as small as the plain int8 file. The loss is
    baseline - value, or value - baseline where lower is better, and negative where a candidate is better than the
    baseline.
    """
    scaled = study_points(
        accuracy,
        latency_ms,
        download_bytes,
        baseline_accuracy=baseline_accuracy,
        baseline_latency_ms=baseline_latency_ms,
        int8_download_bytes=int8_download_bytes,
        higher_is_better=higher_is_better,
        metric_scale=metric_scale,
    )
    return hypervolume(scaled, np.ones(3))


def study_points(
    accuracy: npt.ArrayLike,
    latency_ms: npt.ArrayLike,
    download_bytes: npt.ArrayLike,
    *,
    baseline_accuracy: float,
    baseline_latency_ms: float,
    int8_download_bytes: float,
    higher_is_better: bool = True,
    metric_scale: float = 1.0,
) -> Floats:
    """The points (n, 3) whose hypervolume `study_hypervolume` is, each column in its scale and to be minimised."""
    if not metric_scale > 0:
        raise ValueError(f"scales must be positive, got {metric_scale}")
    gain = np.asarray(accuracy, dtype=np.float64) - baseline_accuracy
    loss = (-gain if higher_is_better else gain) / (ACCURACY_SCALE * metric_scale)
    latency = log_ratio(latency_ms, baseline_latency_ms)
    return np.column_stack([loss, latency, log_ratio(download_bytes, int8_download_bytes)])


def _as_points(points: npt.ArrayLike) -> Floats:
    p = np.asarray(points, dtype=np.float64)
    if p.size == 0:
        return p.reshape(0, p.shape[1] if p.ndim == 2 else 1)
    if p.ndim != 2 or np.isnan(p).any():
        raise ValueError(f"points must have shape (n, objectives) and no NaN, got shape {p.shape}")
    return p


def _volume(p: Floats, r: Floats) -> float:
    """The points are taken from the worst in the last objective to the best. What one adds to all later ones
    is a prism along that objective, over what it adds in the others (While, Bradstreet and Barone 2012,
    WFG)."""
    if p.shape[1] <= 2:
        return _area(p, r)
    if p.shape[1] == 3:
        return _stairs_volume(p, r)
    p = p[np.argsort(-p[:, -1], kind="stable")]
    heights, base, corner = r[-1] - p[:, -1], p[:, :-1], r[:-1]
    total = 0.0
    for i, point in enumerate(base):
        limited = np.maximum(base[i + 1 :], point)
        limited = limited[non_dominated(limited)]
        total += heights[i] * (np.prod(corner - point) - _volume(limited, corner))
    return float(total)


def _stairs_volume(p: Floats, r: Floats) -> float:
    """Three objectives, non-dominated points: swept along the last one from the best to the worst, the area under the
    stairs of the points passed times the way to the next one (Fonseca, Paquete and Lopez-Ibanez 2006, "An improved
    dimension-sweep algorithm for the hypervolume indicator", algorithm 3). Python's own numbers: NumPy costs more for
    a few dozen points than the sum."""
    stairs = [(-np.inf, float(r[1])), (float(r[0]), -np.inf)]  # by x; y falls
    area, below, total = 0.0, 0.0, 0.0
    for x, y, z in p[np.argsort(p[:, 2], kind="stable")].tolist():
        total += area * (z - below)
        below = z
        area += _step(stairs, x, y)
    return total + area * (float(r[2]) - below)


def _step(stairs: list[tuple[float, float]], x: float, y: float) -> float:
    """Put a step into the stairs, take out those it covers; the area that it adds."""
    first = bisect.bisect_left(stairs, (x, -np.inf))
    height = stairs[first - 1][1]
    if height <= y:
        return 0.0
    added, left, last = 0.0, x, first
    while stairs[last][1] >= y:
        added += (stairs[last][0] - left) * (height - y)
        left, height = stairs[last]
        last += 1
    added += (stairs[last][0] - left) * (height - y)
    stairs[first:last] = [(x, y)]
    return added


def _area(p: Floats, r: Floats) -> float:
    """One or two objectives, any points: the steps under the lowest second objective so far."""
    if len(p) == 0:
        return 0.0
    if p.shape[1] == 1:
        return float(r[0] - p.min())
    p = p[np.argsort(p[:, 0])]
    widths = np.diff(p[:, 0], append=r[0])
    return float(widths @ (r[1] - np.minimum.accumulate(p[:, 1])))
