"""The metric of an exported file on one split of the data, with intervals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np

from autocompress import stats
from autocompress.metrics import Metric, Reading, over_outputs, predicted_classes
from autocompress.network.tflite.batching import Batch
from autocompress.network.tflite.interpreter import Runner
from autocompress.network.tflite.isolated import Isolated
from autocompress.network.tflite.outputs import FIRST, Signature
from autocompress.records.measurement import DeviceAccuracy
from autocompress.tasks.signatures import judged_output

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
    """One split of a task, ready to evaluate files, which run in a child process, `batch` samples at once. The
    baseline's outputs are computed once: they are the labels of `fidelity` and the other half of every paired interval.
    With no labels and any other metric: ValueError."""

    def __init__(
        self,
        x: Mapping[str, Array],
        y: Array | None,
        metric: Metric,
        baseline: bytes,
        *,
        threads: int,
        seed: int,
        batch: Batch = Batch(),  # noqa: B008 - frozen
        signature: Signature = FIRST,
    ) -> None:
        """`signature`: which outputs there are, and which of them the metric judges."""
        self._seed, self.signature = seed, signature
        self._first = next(iter(x.values()))
        self._run = Isolated(partial(_outputs, x, threads, batch, signature))
        self._baseline = self.outputs(baseline)
        self._metric = metric_of(metric, signature, signature.chosen(self._baseline))
        if y is None and metric.needs_labels:
            raise ValueError(f"metric {metric.name} needs labels")
        self._y: Array = signature.chosen(self._baseline) if y is None else y

    def outputs(self, model: bytes, at: Array | None = None) -> Array:
        """The outputs of `model`, packed, for all samples, or those `at` these indices; CandidateError where the
        runtime refuses it, or is ended by it."""
        return self._run(model, at)

    @property
    def baseline_outputs(self) -> Array:
        """The baseline's outputs, packed, (n, ...)."""
        return self._baseline

    @property
    def scored(self) -> bool:
        """Whether the metric is a mean over samples."""
        return self._metric.samples is not None

    def scores(self, outputs: Array, at: Array | None = None) -> Array | None:
        """The metric of each sample (`at` these indices, whose `outputs` they are); None where it has none."""
        if self._metric.samples is None:
            return None
        here = slice(None) if at is None else at
        return self._metric.per_sample(self.signature.chosen(outputs), self._y[here], self._first[here])

    def baseline(self) -> Quality:
        """The quality of the baseline."""
        value, interval, _ = self._baseline_value
        return Quality(value=value, interval=interval, delta_interval=None)

    def quality(self, model: bytes) -> Quality:
        """The quality of `model` against the labels and against the baseline."""
        return self.quality_of(self.outputs(model))

    def quality_of(self, outputs: Array) -> Quality:
        """The quality that a model's outputs for all samples have."""
        value, interval, parts = self._value_of(outputs)
        return Quality(value=value, interval=interval, delta_interval=self._delta(outputs, parts))

    @cached_property
    def _baseline_value(self) -> tuple[float, Interval, Array]:
        return self._value_of(self._baseline)

    def _value_of(self, outputs: Array) -> tuple[float, Interval, Array]:
        return metric_interval(self._metric, self.signature.chosen(outputs), self._y, self._first, self._seed)

    def _delta(self, outputs: Array, parts: Array) -> Interval:
        base = self._baseline_value[2]
        if self._metric.samples is not None:
            return stats.paired_interval(base, parts, self._seed)
        differences = iter(parts - base)
        return stats.bootstrap_metric_interval(lambda _: float(next(differences)), len(outputs), self._seed)


def _outputs(
    x: Mapping[str, Array], threads: int, batch: Batch, signature: Signature, model: bytes, at: Array | None
) -> Array:
    """The packed outputs of `model` for the samples of `x`, or those `at` these indices."""
    runner = Runner(model, threads, signature)
    x = x if at is None else {name: values[at] for name, values in x.items()}
    named = {spec.name: values for spec, values in zip(runner.inputs, x.values(), strict=True)}
    if set(named) <= set(x):
        named = {name: x[name] for name in named}
    return runner.run(named, batch.size)


def metric_of(metric: Metric, signature: Signature, reference: Array | None = None) -> Metric:
    """The metric of what a signature judges: one output, or all of them packed, each read as what it is. `reference`:
    the same of the float network's outputs, where they are known."""
    if signature.judged is not None:
        return metric.read_as(signature.outputs[signature.judged].kind, reference)
    references = [None] * len(signature.outputs) if reference is None else signature.parts(reference)
    pairs = zip(signature.outputs, references, strict=True)
    return over_outputs(metric, [metric.read_as(output.kind, own) for output, own in pairs], signature.parts)


def metric_interval(metric: Metric, outputs: Array, y: Array, x: Array, seed: int) -> tuple[float, Interval, Array]:
    """The metric's value of outputs (n, ...) for labels `y` and the first input `x`, its 95 % interval, and what it is
    made of: scores a sample or, where the metric has none, its values on the bootstrap's resamples (the same samples
    for the same seed)."""
    value = metric.value(outputs, y, x)
    scores = metric.per_sample(outputs, y, x)
    if scores is None:
        return value, *_resampled(metric, outputs, y, x, seed)
    if np.isin(scores, (0.0, 1.0)).all():
        return value, stats.wilson_interval(float(scores.sum()), len(scores)), scores
    return value, stats.bootstrap_interval(scores, "mean", seed), scores


def _resampled(metric: Metric, outputs: Array, y: Array, x: Array, seed: int) -> tuple[Interval, Array]:
    values, resampled = list[float](), metric.resampled(outputs, y, x)

    def value_at(at: Array) -> float:
        values.append(resampled(at))
        return values[-1]

    return stats.bootstrap_metric_interval(value_at, len(outputs), seed), np.array(values)


def device_accuracy(
    metric: Metric,
    outputs: Array,
    y: Array,
    x: Array,
    *,
    kernels: str,
    here: Array | None,
    seed: int = 0,
    signature: Signature = FIRST,
) -> DeviceAccuracy:
    """What a file is worth by the outputs that the kernels of a device gave, beside those of this machine: `here`, None
    where they are the same. All packed as `signature` says, of shape (n, ...)."""
    metric = metric_of(metric, signature, None if metric.needs_labels else y)
    value, interval, _ = metric_interval(metric, signature.chosen(outputs), y, x, seed)
    found = DeviceAccuracy(
        metric=metric.name,
        value=value,
        interval=interval,
        samples=len(outputs),
        kernels=kernels,
        output=None if signature is FIRST else judged_output(signature, metric),
    )
    if here is None:
        return found
    rows, rows_here = (_predictions(each, signature, metric) for each in (outputs, here))
    return replace(
        found,
        value_here=metric.value(signature.chosen(here), y, x),
        predictions_differ=None if rows is None or rows_here is None else int((rows != rows_here).any(axis=1).sum()),
        largest_difference=float(np.abs(outputs.astype(np.float64) - here).max()),
    )


def _predictions(outputs: Array, signature: Signature, metric: Metric) -> Array | None:
    """The classes (n, k) of what is judged of packed outputs; None where none of it is read as classes."""
    judged = range(len(signature.outputs)) if signature.judged is None else [signature.judged]
    readings = [(n, Reading(kind=signature.outputs[n].kind)) for n in judged]
    parts = signature.parts(outputs)
    found = [predicted_classes(parts[n], reading) for n, reading in readings if metric.decides(reading)]
    return np.concatenate([each.reshape(len(each), -1) for each in found], axis=1) if found else None
