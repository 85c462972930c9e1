"""Measurement noise of the objectives: which values of two candidates cannot be told apart.

A value beats another where their difference is more than their noise, by what a study stores of each alone:

- **metric**: the paired 95 % interval of its difference to the baseline, on the same validation samples. Those of two
  candidates are combined as if what they get wrong were independent. Networks made of one network mostly err on the
  same samples, so their true difference is known better: what counts here does count.
- **measured latency**: the ratio to the baseline interleaved in the same measurement and its 95 % interval, on a
  logarithmic scale; where there is none the latency's own interval. Energy is latency times a power: as the latency.
- **modelled latency**: the model's relative error, once. Two predictions of one model share most of what is wrong with
  them, so their errors are not added.
- **sizes** are exact: SIZE_SHARE of them is what nobody would choose by. Peak memory, which a process reaches in whole
  pages of an allocator: MEMORY_SHARE.

Two intervals are combined by MOVER (Zou and Donner 2008, "Construction of confidence limits about effect measures",
equation 3; Newcombe 1998, method 10): b - a is more than noise where it exceeds sqrt(up(a)^2 + down(b)^2), with up and
down the distances from a value to the ends of its interval, and the larger of both least differences. So beating is
transitive in each objective. Not being told apart is not: what follows for a front stands in `records/thinning.py`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from autocompress.records.measurement import Measurement
from autocompress.records.study import Evaluation, value_name

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]
Bools = npt.NDArray[np.bool_]

Z95 = 1.959963984540054  # 97.5 % point of the standard normal
SIZE_SHARE = 0.005  # of bytes, and of latencies whose intervals are narrower: nobody would choose by less
MEMORY_SHARE = 0.05
# Of a latency whose error nobody knows: a single process, or a network unlike those that the model was fitted to.
UNKNOWN_ERROR = 0.10
# What decides between points that are level, one after the other: what is certain comes first.
CERTAIN = ("size", "metric", "latency")


@dataclass(frozen=True, kw_only=True)
class Column:
    """One objective of n evaluations, to be minimised, all of shape (n,): `values` on the scale on which noise is even
    (the logarithm of what has a relative one), NaN where missing; `up` and `down` to the ends of their 95 % intervals;
    `least`, the difference that counts at all."""

    values: Floats
    up: Floats
    down: Floats
    least: Floats
    logarithmic: bool

    def beats(self, first: Indices, second: Indices) -> Bools:
        """Whether the evaluations `first` are better beyond noise than the evaluations `second`, (first, second)."""
        margin = np.hypot(self.up[first][:, None], self.down[second])
        margin = np.maximum(margin, np.maximum(self.least[first][:, None], self.least[second]))
        found: Bools = self.values[second] - self.values[first][:, None] > margin
        return found

    def level_with_best(self, among: Indices) -> Indices:
        """Those of `among` that its best does not beat."""
        best = among[[int(np.argmin(_or_inf(self.values[among])))]]
        left: Indices = among[~self.beats(best, among)[0]]
        return left

    def steps(self, among: Indices) -> Floats:
        """The values of `among` in their own unit, those that cannot be told apart made equal: from the best on, each
        that the last step does not beat is level with it."""
        order = among[np.argsort(self.values[among], kind="stable")]
        leader, led = order[0], {}
        for each in order:
            if self.beats(np.array([leader]), np.array([each]))[0, 0]:
                leader = each
            led[int(each)] = self.values[leader]
        found = np.array([led[int(each)] for each in among])
        return np.exp(found) if self.logarithmic else found


class Figures:
    """Evaluations of one device, network and data as columns of objectives. `baselines` holds the float network's
    evaluation beside each (one a study: studies of one leaderboard have several)."""

    def __init__(
        self, evaluations: Sequence[Evaluation], baselines: Sequence[Evaluation], *, higher_is_better: bool, size: str
    ) -> None:
        self._pairs = tuple(zip(evaluations, baselines, strict=True))
        self._higher, self._size = higher_is_better, size
        self._columns: dict[str, Column] = {}

    def column(self, objective: str) -> Column:
        """The column of one of OBJECTIVES."""
        if objective not in self._columns:
            self._columns[objective] = self._metric() if objective == "metric" else self._relative(objective)
        return self._columns[objective]

    def columns(self, objectives: Sequence[str]) -> tuple[Column, ...]:
        """The columns of these objectives."""
        return tuple(self.column(objective) for objective in objectives)

    def chosen(self, among: Indices, by: Sequence[str], numbers: Sequence[int]) -> int:
        """The one of `among` that is best: level with the best in each of the objectives `by`, one after the other,
        then one that runs float kernels, the same on every processor; then by the values as they are, in that order,
        and the lowest of `numbers`."""
        left = among
        for objective in by:
            left = self.column(objective).level_with_best(left)
        safe = np.array([runs_float_kernels(self._pairs[k][0]) for k in left])
        left = left[safe] if safe.any() else left
        keys = [_or_inf(self.column(objective).values[left]) for objective in by]
        order = np.lexsort([np.array([numbers[k] for k in left]), *reversed(keys)])
        return int(left[order[0]])

    def _metric(self) -> Column:
        sign = -1.0 if self._higher else 1.0
        rows = []
        for evaluation, baseline in self._pairs:
            delta = evaluation.accuracy - baseline.accuracy
            ends = evaluation.accuracy_delta_ci or (delta, delta)  # None: the baseline itself
            below, above = delta - ends[0], ends[1] - delta
            up, down = (below, above) if self._higher else (above, below)
            rows.append((sign * evaluation.accuracy, up, down, 0.0))
        return _column(rows, logarithmic=False)

    def _relative(self, objective: str) -> Column:
        name = value_name(objective, self._size)
        rows = []
        for evaluation, baseline in self._pairs:
            value, (up, down, least) = evaluation.value(name), _margins(evaluation.measurement, objective)
            if objective == "latency":
                value = _ratio(evaluation.measurement, baseline.measurement)
            known = value is not None and math.isfinite(value) and value >= 0
            rows.append((math.log(max(float(value or 0.0), 1e-300)) if known else math.nan, up, down, least))
        return _column(rows, logarithmic=True)


def interval_of_difference(column: Column, first: int, second: int) -> tuple[float, float]:
    """The 95 % interval of first - second on the column's scale (Zou and Donner 2008, equations 1 and 2)."""
    difference = float(column.values[first] - column.values[second])
    below = math.hypot(float(column.down[first]), float(column.up[second]))
    return difference - below, difference + math.hypot(float(column.up[first]), float(column.down[second]))


def runs_float_kernels(evaluation: Evaluation) -> bool:
    """Whether all of its layers compute in float: none is integer, or their weights are unpacked when it is loaded."""
    configuration = evaluation.configuration
    integer = any(choice.is_integer for choice in configuration.layers.values())
    return configuration.activations == "weight_only" or not integer


def _ratio(measurement: Measurement, baseline: Measurement) -> float | None:
    """A latency as a share of the float network's: interleaved with it where that was measured; None where there is
    none."""
    if measurement.ratio_to_baseline is not None and measurement.ratio_to_baseline > 0:
        return measurement.ratio_to_baseline
    if measurement.latency_ms is None:
        return None
    return measurement.latency_ms / (baseline.latency_ms or 1.0)


def _margins(measurement: Measurement, objective: str) -> tuple[float, float, float]:
    """How far the logarithm of a value may lie above and below it, and its least difference that counts."""
    if objective == "size":
        return 0.0, 0.0, math.log1p(SIZE_SHARE)
    if objective == "memory":
        return 0.0, 0.0, math.log1p(MEMORY_SHARE)
    if measurement.latency_source == "modelled":
        return 0.0, 0.0, math.log1p(max(modelled_error(measurement), SIZE_SHARE))
    paired = measurement.ratio_to_baseline is not None and measurement.ratio_ci is not None
    value = measurement.ratio_to_baseline if paired else measurement.latency_ms
    ends = measurement.ratio_ci if paired else measurement.latency_ci_ms
    if value is None or ends is None or min(value, *ends) <= 0:
        return 0.0, 0.0, math.log1p(UNKNOWN_ERROR)
    return math.log(ends[1] / value), math.log(value / ends[0]), math.log1p(SIZE_SHARE)


def modelled_error(measurement: Measurement) -> float:
    """The relative error of a modelled latency: the model's own; of one that is extrapolated, or whose error is not
    known, UNKNOWN_ERROR at least."""
    known = measurement.latency_error
    if known is None or measurement.extrapolated:
        return max(known or 0.0, UNKNOWN_ERROR)
    return known


def _column(rows: Sequence[tuple[float, float, float, float]], *, logarithmic: bool) -> Column:
    values, up, down, least = np.array(rows, dtype=np.float64).reshape(-1, 4).T
    values = np.where(np.isfinite(values), values, np.nan)
    # An end that is on the wrong side of its value, or is none, says nothing.
    up, down = np.fmax(up, 0.0), np.fmax(down, 0.0)
    return Column(values=values, up=up, down=down, least=least, logarithmic=logarithmic)


def _or_inf(values: Floats) -> Floats:
    return np.where(np.isnan(values), np.inf, values)
