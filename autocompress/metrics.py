"""The metrics of a task, as functions of the exported file's outputs: the registry is `METRICS`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from autocompress.errors import AutocompressError, CandidateError, unknown_name

Array = npt.NDArray[Any]
Samples = npt.NDArray[np.float64]
Shape = tuple[int, ...]
LabelCheck = Callable[[Shape, Array, Shape | None], str | None]  # outputs, labels, inputs -> fault or None
SampleScores = Callable[[Array, Array], Samples]  # outputs, labels
WholeScore = Callable[[Array, Array, Array], float]  # outputs, labels, first input

DECISION = 0.5  # a single output column is a probability: above it is class 1 (as in Keras's binary accuracy)


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One metric. `bounds` is the closed range of its values. `samples` gives the scores whose mean
    is the value; metrics without such scores (macro F1, recall, ROC AUC) have `whole` instead."""

    name: str
    higher_is_better: bool
    needs_labels: bool
    bounds: tuple[float, float]
    labels: LabelCheck
    samples: SampleScores | None = None
    whole: WholeScore | None = None

    def value(self, outputs: Array, y: Array, x: Array) -> float:
        """The metric of `outputs` (n, ...) against `y`: labels, or for fidelity the float network's outputs.
        `x` is the first input (n, ...). NaN only for a ROC AUC of one class (in a bootstrap sample, say).
        Raises CandidateError for outputs with NaN, and for a mean absolute error that overflows."""
        _refuse_nan(outputs)
        if self.samples is not None:
            value = float(self.samples(outputs, y).mean())
        else:
            assert self.whole is not None
            value = self.whole(outputs, y, x)
        if math.isinf(value):
            raise CandidateError(f"{self.name} of the outputs is not finite: they overflow")
        return value

    def per_sample(self, outputs: Array, y: Array, x: Array) -> Samples | None:
        """Scores (n,) whose mean is `value`; None where the metric is no mean over samples."""
        if self.samples is None:
            return None
        _refuse_nan(outputs)
        return self.samples(outputs, y)

    def check_labels(self, outputs_shape: Shape, y: Array, where: str, inputs_shape: Shape | None = None) -> None:
        """Raises AutocompressError, one line that starts with `where`, when `y` cannot be the labels of
        outputs of `outputs_shape` (n, ...). `inputs_shape`, the first input's, tells an autoencoder."""
        y = np.asarray(y)
        fault = _length_fault(outputs_shape[0], y) or self.labels(outputs_shape, y, inputs_shape)
        if fault is not None:
            raise AutocompressError(f"{where} {fault}")


def _length_fault(n: int, y: Array) -> str | None:
    if n == 0:
        return "holds no samples; give at least one"
    if y.ndim == 0:
        return "is a single value; use an array with one label a sample"
    return None if len(y) == n else f"holds {len(y)} labels for {n} samples; give one a sample"


def get_metric(name: str) -> Metric:
    """The metric called `name`; raises AutocompressError with the nearest name."""
    if name not in METRICS:
        raise unknown_name("metric", name, METRICS)
    return METRICS[name]


def predicted_classes(outputs: Array) -> npt.NDArray[np.intp]:
    """The class of each row of outputs (..., classes), the first of equal ones; one column: 1 above 0.5."""
    if outputs.ndim == 1 or outputs.shape[-1] == 1:
        column = outputs if outputs.ndim == 1 else outputs[..., 0]
        return (column > DECISION).astype(np.intp)
    return np.asarray(outputs.argmax(-1))


def _refuse_nan(outputs: Array) -> None:
    count = int(np.isnan(outputs).sum()) if np.issubdtype(outputs.dtype, np.floating) else 0
    if count:
        raise CandidateError(f"the outputs hold {count} NaN of {outputs.size} values")


# --- classification -------------------------------------------------------------------------------


def _rows(outputs: Array) -> Array:
    """(n, 1, ..., classes) as (n, classes)."""
    return outputs.reshape(len(outputs), -1)


def _correct(outputs: Array, y: Array) -> Samples:
    return np.asarray(predicted_classes(_rows(outputs)) == y, np.float64)


def _in_top(outputs: Array, y: Array, k: int) -> Samples:
    """1 where fewer than k classes come before the label's: larger scores, and equal ones of a lower
    index, so that a network that says the same of all classes gains nothing and top-1 is accuracy."""
    rows = _rows(outputs)
    own = np.take_along_axis(rows, y.astype(np.intp)[:, None], axis=1)
    earlier = np.arange(rows.shape[1])[None, :] < y[:, None]
    before = (rows > own) | ((rows == own) & earlier)
    return np.asarray(before.sum(1) < k, np.float64)


def _class_counts(outputs: Array, y: Array) -> tuple[Samples, Samples, Samples]:
    """Hits, predictions and labels of each class that occurs in `y`. Only those: the set of averaged classes
    must not change with what a candidate predicts."""
    predicted = predicted_classes(_rows(outputs))
    classes = np.unique(y)
    hits = np.array([np.sum((predicted == c) & (y == c)) for c in classes], np.float64)
    predictions = np.array([np.sum(predicted == c) for c in classes], np.float64)
    labels = np.array([np.sum(y == c) for c in classes], np.float64)
    return hits, predictions, labels


def _macro_f1(outputs: Array, y: Array, x: Array) -> float:
    """Mean over classes of 2·TP / (2·TP + FP + FN)."""
    hits, predictions, labels = _class_counts(outputs, y)
    return float(np.mean(2 * hits / (predictions + labels)))


def _macro_recall(outputs: Array, y: Array, x: Array) -> float:
    """Mean over classes of TP / (TP + FN), also called balanced accuracy."""
    hits, _, labels = _class_counts(outputs, y)
    return float(np.mean(hits / labels))


def _class_labels_fault(outputs_shape: Shape, y: Array, inputs_shape: Shape | None, k: int = 1) -> str | None:
    if any(size != 1 for size in outputs_shape[1:-1]):
        return f"are class labels, but the network's output is {_shape(outputs_shape)}; it must be (n, classes)"
    columns = outputs_shape[-1] if len(outputs_shape) > 1 else 1
    classes = max(columns, 2)
    if k > 1 and k >= columns:
        return f"cannot be scored by top-{k}: the network has {columns} outputs; use a smaller k, or accuracy"
    if y.ndim == 2 and y.shape[1] == columns > 1:
        return f"has shape {_shape(y.shape)}, one-hot labels; use integer labels: y.argmax(1)"
    if y.ndim != 1:
        return f"has shape {_shape(y.shape)}; use integer labels of shape (n,)"
    if y.dtype != np.bool_ and not np.issubdtype(y.dtype, np.integer):
        return f"is {y.dtype}; use integer labels in 0..{classes - 1}"
    outside = (y < 0) | (y >= classes) if y.dtype != np.bool_ else np.zeros(len(y), bool)
    if outside.any():
        return (
            f"holds {int(outside.sum())} labels outside 0..{classes - 1}, such as {y[outside][0]}; "
            f"the network has {classes} classes, numbered from 0"
        )
    return None


# --- regression -----------------------------------------------------------------------------------


def _absolute_error(outputs: Array, y: Array) -> Samples:
    """Mean over a sample's outputs of |output - y|."""
    difference = _rows(outputs).astype(np.float64) - _rows(y).astype(np.float64)
    return np.asarray(np.abs(difference).mean(1))


def _targets_fault(outputs_shape: Shape, y: Array, inputs_shape: Shape | None) -> str | None:
    if not (np.issubdtype(y.dtype, np.integer) or np.issubdtype(y.dtype, np.floating)):
        return f"is {y.dtype}; use numbers"
    if _squeezed(y.shape) != _squeezed(outputs_shape):
        return f"has shape {_shape(y.shape)}, the network's output {_shape(outputs_shape)}; they must agree"
    if not np.isfinite(y).all():
        return f"holds {int((~np.isfinite(y)).sum())} NaN or infinite values; remove those samples"
    return None


def _squeezed(shape: Shape) -> Shape:
    return tuple(size for size in shape[1:] if size != 1)


# --- ROC AUC --------------------------------------------------------------------------------------


def anomaly_scores(outputs: Array, x: Array) -> Samples:
    """The score (n,) of the positive class: the only column, the second of two, or, where the output has the
    input's shape (an autoencoder), the sample's mean squared reconstruction error."""
    rows = _rows(outputs).astype(np.float64)
    if rows.shape[1] <= 2:
        return rows[:, -1]
    return np.asarray(((rows - _rows(x)) ** 2).mean(1))


def _roc_auc(outputs: Array, y: Array, x: Array) -> float:
    """Mann-Whitney's U over the number of pairs, ties count half (Hanley, McNeil 1982); one class: NaN."""
    positive = y.astype(bool)
    n_positive, n_negative = int(positive.sum()), int((~positive).sum())
    if n_positive == 0 or n_negative == 0:
        return math.nan
    _, inverse, counts = np.unique(anomaly_scores(outputs, x), return_inverse=True, return_counts=True)
    middle_ranks = np.cumsum(counts) - (counts - 1) / 2
    rank_sum = float(middle_ranks[inverse][positive].sum())
    return (rank_sum - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative)


def _binary_labels_fault(outputs_shape: Shape, y: Array, inputs_shape: Shape | None) -> str | None:
    columns = int(np.prod(outputs_shape[1:]))
    if columns > 2 and inputs_shape is not None and tuple(outputs_shape[1:]) != tuple(inputs_shape[1:]):
        return (
            f"cannot be scored by roc-auc: the network's output {_shape(outputs_shape)} is neither one "
            f"column nor two nor of the input's shape {_shape(inputs_shape)}"
        )
    if y.ndim != 1:
        return f"has shape {_shape(y.shape)}; use labels 0 and 1 of shape (n,)"
    if y.dtype != np.bool_ and not np.issubdtype(y.dtype, np.integer):
        return f"is {y.dtype}; use integer labels 0 and 1"
    other = y[~np.isin(y, (0, 1))]
    if len(other):
        return f"holds labels other than 0 and 1, such as {other[0]}; roc-auc is for two classes"
    if len(np.unique(y)) < 2:
        return f"holds only the label {int(y[0])}; roc-auc needs samples of both classes"
    return None


# --- fidelity -------------------------------------------------------------------------------------


def _agreement(outputs: Array, y: Array) -> Samples:
    """Share of a sample's positions where the class is the float network's."""
    same = predicted_classes(outputs) == predicted_classes(y)
    return np.asarray(_rows(np.asarray(same)).mean(1), np.float64)


def over_outputs(metric: Metric, parts: Callable[[Array], Sequence[Array]]) -> Metric:
    """`metric`, a mean over samples, of several outputs at once: of a sample the mean over them. `parts` takes outputs
    that are packed into one array, and the float network's, apart."""
    own = metric.samples
    assert own is not None

    def samples(outputs: Array, y: Array) -> Samples:
        return np.asarray(np.mean([own(*pair) for pair in zip(parts(outputs), parts(y), strict=True)], axis=0))

    return replace(metric, samples=samples)


def _float_outputs_fault(outputs_shape: Shape, y: Array, inputs_shape: Shape | None) -> str | None:
    if tuple(y.shape) != tuple(outputs_shape):
        return f"has shape {_shape(y.shape)}, the network's output {_shape(outputs_shape)}; they must agree"
    if np.isnan(y).any():
        return f"holds {int(np.isnan(y).sum())} NaN: the float network itself does not work on these inputs"
    return None


def _shape(shape: Shape) -> str:
    return f"({', '.join(['n', *map(str, shape[1:])])}{',' if len(shape) == 1 else ''})"


# --- registry -------------------------------------------------------------------------------------


def _labelled(
    name: str, labels: LabelCheck, *, samples: SampleScores | None = None, whole: WholeScore | None = None
) -> Metric:
    """A metric in 0..1 that compares with labels; more is better."""
    bounds = (0.0, 1.0)
    return Metric(
        name=name,
        higher_is_better=True,
        needs_labels=True,
        bounds=bounds,
        labels=labels,
        samples=samples,
        whole=whole,
    )


_TOP = [_labelled(f"top-{k}", partial(_class_labels_fault, k=k), samples=partial(_in_top, k=k)) for k in range(2, 11)]
_ALL = [
    _labelled("accuracy", _class_labels_fault, samples=_correct),
    *_TOP,
    _labelled("macro-f1", _class_labels_fault, whole=_macro_f1),
    _labelled("recall", _class_labels_fault, whole=_macro_recall),
    _labelled("roc-auc", _binary_labels_fault, whole=_roc_auc),
    Metric(
        name="mae",
        higher_is_better=False,
        needs_labels=True,
        bounds=(0.0, math.inf),
        labels=_targets_fault,
        samples=_absolute_error,
    ),
    Metric(
        name="fidelity",
        higher_is_better=True,
        needs_labels=False,
        bounds=(0.0, 1.0),
        labels=_float_outputs_fault,
        samples=_agreement,
    ),
]
METRICS: dict[str, Metric] = {metric.name: metric for metric in _ALL}


def is_built_in(name: str) -> bool:
    """Whether every process knows the metric of this name."""
    return any(metric.name == name for metric in _ALL)


def register_metric(
    name: str,
    function: Callable[[Array, Array], Any],
    *,
    higher_is_better: bool,
    bounds: tuple[float, float] = (-math.inf, math.inf),
    needs_labels: bool = True,
) -> Metric:
    """Make a function of outputs (n, ...) and labels (n, ...) a metric of this process, under `name`.

    It gives a score a sample, (n,), whose mean is the metric. AutocompressError for a name that a built-in metric has,
    and at the first use for scores of another shape."""
    if is_built_in(name):
        raise AutocompressError(f"'{name}' is a metric of autocompress; give yours another name")

    def fault(outputs_shape: Shape, y: Array, inputs_shape: Shape | None) -> str | None:
        return None

    def scores(outputs: Array, y: Array) -> Samples:
        found = np.asarray(function(outputs, y), np.float64)
        if found.shape != (len(outputs),):
            raise AutocompressError(
                f"metric '{name}' gives shape {found.shape}; give a score a sample, ({len(outputs)},)"
            )
        return found

    METRICS[name] = Metric(
        name=name,
        higher_is_better=higher_is_better,
        needs_labels=needs_labels,
        bounds=bounds,
        labels=fault,
        samples=scores,
    )
    return METRICS[name]
