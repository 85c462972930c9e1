"""The metric of an exported file on one split of the data, with intervals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from autocompress import stats
from autocompress.metrics import Metric
from autocompress.network.run import Runner

Array = np.ndarray[Any, Any]
Interval = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Quality:
    """The metric's value of one file; `interval` its 95 % interval, `delta_interval` the paired 95 % interval of the
    difference to the baseline (file - baseline), None for the baseline itself."""

    value: float
    interval: Interval
    delta_interval: Interval | None


class Split:
    """One split of a task, ready to judge files. The baseline's outputs are computed once: they are the labels of
    `fidelity` and the other half of every paired interval. With no labels and any other metric: ValueError."""

    def __init__(
        self,
        x: Mapping[str, Array],
        y: Array | None,
        metric: Metric,
        baseline: bytes,
        *,
        threads: int,
        seed: int,
    ) -> None:
        self._x, self._metric, self._threads, self._seed = x, metric, threads, seed
        self._first = next(iter(x.values()))
        self._baseline = self.outputs(baseline)
        if y is None and metric.needs_labels:
            raise ValueError(f"metric {metric.name} needs labels")
        self._y = self._baseline if y is None else y

    def outputs(self, model: bytes) -> Array:
        """The first output of `model` for all samples; CandidateError where the runtime refuses it."""
        runner = Runner(model, self._threads)
        named = {spec.name: values for spec, values in zip(runner.inputs, self._x.values(), strict=True)}
        if set(named) <= set(self._x):
            named = {name: self._x[name] for name in named}
        return runner.run(named)

    def baseline(self) -> Quality:
        """The quality of the baseline."""
        return Quality(value=self._value(self._baseline), interval=self._interval(self._baseline), delta_interval=None)

    def quality(self, model: bytes) -> Quality:
        """The quality of `model` against the labels and against the baseline."""
        outputs = self.outputs(model)
        return Quality(
            value=self._value(outputs), interval=self._interval(outputs), delta_interval=self._delta(outputs)
        )

    def _value(self, outputs: Array) -> float:
        return self._metric.value(outputs, self._y, self._first)

    def _interval(self, outputs: Array) -> Interval:
        scores = self._metric.per_sample(outputs, self._y, self._first)
        if scores is None:
            return stats.bootstrap_metric_interval(lambda at: self._value_at(outputs, at), len(outputs), self._seed)
        if np.isin(scores, (0.0, 1.0)).all():
            return stats.wilson_interval(float(scores.sum()), len(scores))
        return stats.bootstrap_interval(scores, "mean", self._seed)

    def _delta(self, outputs: Array) -> Interval:
        scores = self._metric.per_sample(outputs, self._y, self._first)
        base = self._metric.per_sample(self._baseline, self._y, self._first)
        if scores is not None and base is not None:
            return stats.paired_interval(base, scores, self._seed)
        return stats.bootstrap_metric_interval(
            lambda at: self._value_at(outputs, at) - self._value_at(self._baseline, at),
            len(outputs),
            self._seed,
        )

    def _value_at(self, outputs: Array, at: Array) -> float:
        return self._metric.value(outputs[at], self._y[at], self._first[at])
