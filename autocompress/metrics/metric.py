"""What a metric is: how it takes labels, what they must be, and its value of outputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from autocompress.errors import AutocompressError, CandidateError
from autocompress.metrics.reading import AS_BEFORE, Array, Reading, Samples, Shape

LabelCheck = Callable[[Shape, Array, Shape | None, Reading], str | None]  # outputs, labels, inputs -> fault or None
TakeLabels = Callable[[Array, Shape, Reading], Array]  # labels as given, the outputs' shape -> as they are compared
SampleScores = Callable[[Array, Array, Reading], Samples]  # outputs, labels
WholeScore = Callable[[Array, Array, Array, Reading], float]  # outputs, labels, first input
Tallies = Callable[[Array, Array, Reading], Array]  # outputs, labels -> counts (n, k)
Chance = Callable[[Array, Shape, Reading], tuple[float, str] | None]  # what a network that knows nothing has, in words


def as_given(y: Array, outputs_shape: Shape, reading: Reading) -> Array:
    """Labels that are compared as they are."""
    return y


def always(reading: Reading) -> bool:
    """Outputs are compared as classes however they are read."""
    return True


def never(reading: Reading) -> bool:
    """Outputs are compared as the numbers they are."""
    return False


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One metric. `bounds` is the closed range of its values. `samples` gives the scores whose mean is the value;
    metrics without such scores have `tallies`, counts a sample, and the `total` of their sum, or else `whole`.

    `take` brings labels into the form that is compared, `labels` says what is wrong with them. `spread`: of labels,
    the value that a network without any inputs reaches, which errors without an upper end are measured in. `chance`:
    what a network reaches that has learned nothing. `words`: what is done with an output, for people."""

    name: str
    higher_is_better: bool
    needs_labels: bool
    bounds: tuple[float, float]
    labels: LabelCheck
    words: Callable[[Shape, Reading], str]
    take: TakeLabels = as_given
    samples: SampleScores | None = None
    tallies: Tallies | None = None
    total: Callable[[Array], float] | None = None
    whole: WholeScore | None = None
    spread: Callable[[Array], float] | None = None
    chance: Chance | None = None
    unit: Callable[[Array, Reading], float] | None = None  # of the float network's outputs: what real numbers are in
    decides: Callable[[Reading], bool] = always  # whether outputs are compared as classes
    reading: Reading = AS_BEFORE

    def value(self, outputs: Array, y: Array, x: Array) -> float:
        """The metric of `outputs` (n, ...) against `y`: labels, or for fidelity the float network's outputs.
        `x` is the first input (n, ...). NaN only for a ROC AUC of one class (in a bootstrap sample, say).
        Raises CandidateError for outputs with NaN, and for a mean absolute error that overflows."""
        _refuse_nan(outputs)
        if self.samples is not None:
            value = float(self.samples(outputs, y, self.reading).mean())
        elif self.tallies is not None and self.total is not None:
            value = self.total(self.tallies(outputs, y, self.reading).sum(0))
        else:
            assert self.whole is not None
            value = self.whole(outputs, y, x, self.reading)
        if math.isinf(value):
            raise CandidateError(f"{self.name} of the outputs is not finite: they overflow")
        return value

    def per_sample(self, outputs: Array, y: Array, x: Array) -> Samples | None:
        """Scores (n,) whose mean is `value`; None where the metric is no mean over samples."""
        if self.samples is None:
            return None
        _refuse_nan(outputs)
        return self.samples(outputs, y, self.reading)

    def resampled(self, outputs: Array, y: Array, x: Array) -> Callable[[Array], float]:
        """The value of the samples at given indices, drawn with repetition."""
        if self.tallies is None or self.total is None:
            return lambda at: self.value(outputs[at], y[at], x[at])
        counts, total = self.tallies(outputs, y, self.reading), self.total
        return lambda at: total(np.bincount(at, minlength=len(counts)) @ counts)

    def check_labels(self, outputs_shape: Shape, y: Array, where: str, inputs_shape: Shape | None = None) -> None:
        """Raises AutocompressError, one line that starts with `where`, when `y` cannot be the labels of
        outputs of `outputs_shape` (n, ...). `inputs_shape`, the first input's, tells an autoencoder."""
        y = np.asarray(y)
        fault = _length_fault(outputs_shape[0], y) or self.labels(outputs_shape, y, inputs_shape, self.reading)
        if fault is not None:
            raise AutocompressError(f"{where} {fault}")

    def taken(self, y: Array, outputs_shape: Shape) -> Array:
        """The labels as they are compared: class numbers (n,) of (n, 1), of one-hot rows and of whole float numbers."""
        return self.take(y, outputs_shape, self.reading) if y.ndim else y

    def read_as(self, kind: str | None, reference: Array | None = None) -> Metric:
        """The metric of an output of this kind; `reference`: the float network's, for what is measured in a unit of
        it."""
        reading = Reading(kind=kind)
        if self.unit is not None and reference is not None:
            reading = replace(reading, unit=self.unit(reference, reading))
        return replace(self, reading=reading)

    def scale(self, y: Array | None, baseline: float) -> float:
        """The difference of the metric that counts as much as all of a metric in 0..1: the width of its range or, where
        that has no end, what the labels spread by, else the float network's own value. So no unit of the labels
        matters."""
        low, high = self.bounds
        if math.isfinite(low) and math.isfinite(high):
            return high - low
        spread = 0.0 if self.spread is None or y is None else self.spread(y)
        return next((size for size in (spread, abs(baseline)) if math.isfinite(size) and size > 0), 1.0)

    def remark(self, baseline: float, y: Array, outputs_shape: Shape) -> str | None:
        """One line where the float network is no better than one that has learned nothing; None where it is."""
        found = None if self.chance is None else self.chance(y, outputs_shape, self.reading)
        if found is None or (baseline > found[0] if self.higher_is_better else baseline < found[0]):
            return None
        return (
            f"the float network's {self.name}, {baseline:.4g}, is no better than {found[0]:.4g}, {found[1]}: look at "
            "the labels' numbers, at how the inputs were prepared, and at which output is judged"
        )


def _length_fault(n: int, y: Array) -> str | None:
    if n == 0:
        return "holds no samples; give at least one"
    if y.ndim == 0:
        return "is a single value; use an array with one label a sample"
    return None if len(y) == n else f"holds {len(y)} labels for {n} samples; give one a sample"


def _refuse_nan(outputs: Array) -> None:
    count = int(np.isnan(outputs).sum()) if np.issubdtype(outputs.dtype, np.floating) else 0
    if count:
        raise CandidateError(f"the outputs hold {count} NaN of {outputs.size} values")


def over_outputs(metric: Metric, each: Sequence[Metric], parts: Callable[[Array], Sequence[Array]]) -> Metric:
    """`metric`, a mean over samples, of several outputs at once: of a sample the mean over them. `parts` takes outputs
    that are packed into one array, and the float network's, apart; `each` is the metric as it reads each of them."""
    own = [one.samples for one in each]

    def samples(outputs: Array, y: Array, _: Reading) -> Samples:
        found = []
        for score, one, *pair in zip(own, each, parts(outputs), parts(y), strict=True):
            assert score is not None
            found.append(score(pair[0], pair[1], one.reading))
        return np.asarray(np.mean(found, axis=0), np.float64)

    return replace(metric, samples=samples)
