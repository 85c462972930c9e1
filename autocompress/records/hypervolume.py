"""The scales of a study's hypervolume: one definition for search, report, pages, leaderboard and sweep. Pure.

Each objective is compared with the float network and put on a scale on which 0 is what plain compression gives and 1 is
out of the question:

- **metric**: its loss against the float network, in tenths of the study's `metric_scale` (.10 of an accuracy);
- **latency, memory, energy**: log_8 of the ratio to the float network's;
- **download**: log_8 of the ratio to the plain static int8 file's, or to a quarter of the float network's where there
  is none; **file**, **flash**: to a quarter of the float network's.

The reference is 1 in each. It lies beyond the float network and beyond the plain int8 file in latency and size, so a
study in which nothing is faster than float still tells its candidates apart; and halving a latency counts the same
wherever one starts, so neither the objectives' units nor the first factor of two drown the rest. The volume is 1 where
a candidate loses nothing at the float network's speed and the plain int8 file's size, 0 where no candidate works."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autocompress import pareto
from autocompress.records.study import Evaluation, StudyRecord, value_name

_INT8_SHARE = 4.0  # float values take four times the bytes of 8-bit ones


@dataclass(frozen=True, kw_only=True)
class Reference:
    """What values are compared with: the baseline's, the plain int8 file's download, which way the metric goes, and
    what difference of it counts as all of one in 0..1. Values go by their names in an evaluation."""

    baseline: Evaluation
    int8_download_bytes: int | None
    higher_is_better: bool
    metric_scale: float = 1.0

    def unit(self, name: str) -> float:
        """What one of the values called `name` is divided by; 1 where it is missing."""
        if name == "accuracy":
            return self.metric_scale
        if name == "download_bytes":
            return float(self.int8_download_bytes or self.baseline.download_bytes / _INT8_SHARE)
        return float(self.baseline.value(name) or 1.0)

    def share(self, evaluation: Evaluation, name: str) -> float:
        """The value of an evaluation in these units, NaN where missing; of the metric, what it lost."""
        value = evaluation.value(name)
        if value is None or not math.isfinite(value):
            return math.nan
        return self.loss(value) if name == "accuracy" else value / self.unit(name)

    def loss(self, accuracy: float) -> float:
        """How much worse than the baseline a value of the metric is, in its scale."""
        lost = (self.baseline.accuracy - accuracy) / self.metric_scale
        return lost if self.higher_is_better else -lost

    def scaled(self, name: str, shares: pareto.Floats) -> pareto.Floats:
        """Values as `share` gives them, on the scale of the hypervolume."""
        if name == "accuracy":
            return shares / pareto.ACCURACY_SCALE
        return pareto.log_ratio(shares, self.zero(name))

    def zero(self, name: str) -> float:
        """The share that is 0 on the scale of the hypervolume, of a value that has a logarithmic one."""
        return 1 / _INT8_SHARE if name in ("file_bytes", "flash_bytes") else 1.0

    def points(self, evaluations: Sequence[Evaluation], names: Sequence[str]) -> pareto.Floats:
        """These evaluations on the scales of the hypervolume, (n, names), to be minimised; NaN where one is missing."""
        shares = np.array([[self.share(e, name) for name in names] for e in evaluations], dtype=np.float64)
        shares = shares.reshape(len(evaluations), len(names))
        return np.column_stack([self.scaled(name, shares[:, k]) for k, name in enumerate(names)])


def reference_of(record: StudyRecord) -> Reference:
    """What a study's values are compared with."""
    return Reference(
        baseline=record.baseline,
        int8_download_bytes=record.int8_download_bytes,
        higher_is_better=record.higher_is_better,
        metric_scale=record.metric_scale,
    )


def scaled(record: StudyRecord, evaluations: Sequence[Evaluation]) -> pareto.Floats:
    """These evaluations of the study over its objectives, (n, objectives), on the scales of the hypervolume."""
    names = [value_name(objective, record.size) for objective in record.objectives]
    return reference_of(record).points(evaluations, names)


def volume_of(points: pareto.Floats) -> float:
    """The hypervolume of points on these scales, up to the reference; those that lack a value add nothing."""
    whole = points[~np.isnan(points).any(axis=1)]
    return pareto.hypervolume(whole, np.ones(points.shape[1]))


def volume(record: StudyRecord, evaluations: Sequence[Evaluation]) -> float:
    """The hypervolume of these evaluations of the study, over its objectives."""
    return volume_of(scaled(record, evaluations))
