"""Metrics of classes: one label a sample, a label a position (label maps), or several a sample (multi-label rows)."""

from __future__ import annotations

from functools import partial

import numpy as np

from autocompress.metrics.reading import VOID, Array, Reading, Samples, Shape, channels_first, rows, shape_text

# --- labels ---------------------------------------------------------------------------------------


def take_classes(y: Array, outputs_shape: Shape, reading: Reading, keeps_rows: bool = False) -> Array:
    """Class numbers: of (n, 1) as (n,), of whole float numbers as integers, of one-hot rows the class. `keeps_rows`:
    rows of independent probabilities stay rows, whatever they hold."""
    if y.ndim > 1 and y.shape[-1] == 1:
        return take_classes(y[..., 0], outputs_shape, reading, keeps_rows)
    if np.issubdtype(y.dtype, np.floating) and np.isfinite(y).all() and (y == np.rint(y)).all():
        y = y.astype(np.int64)
    rowwise = keeps_rows and reading.kind == "logistic"
    return np.asarray(y.argmax(-1)) if is_one_hot(y, outputs_shape) and not rowwise else y


def is_one_hot(y: Array, outputs_shape: Shape) -> bool:
    """Whether each row of labels of the outputs' own shape names exactly one class."""
    same = y.ndim in (2, 4) and y.shape[1:] == _without_ones(outputs_shape, y.ndim) and y.shape[-1] > 1
    return bool(same and np.isin(y, (0, 1)).all() and (y.sum(-1) == 1).all())


def is_multi_label(y: Array, outputs_shape: Shape) -> bool:
    """Whether rows of labels say yes or no to each class."""
    return y.ndim == 2 and y.shape[1:] == _without_ones(outputs_shape, 2) and bool(np.isin(y, (0, 1)).all())


def _without_ones(outputs_shape: Shape, rank: int) -> Shape:
    """The outputs' shape a sample; that of (n, 1, 1, classes) where rows are asked for."""
    if rank == 2 and len(outputs_shape) > 1 and all(size == 1 for size in outputs_shape[1:-1]):
        return outputs_shape[-1:]
    return outputs_shape[1:]


def labels_fault(
    outputs_shape: Shape, y: Array, inputs_shape: Shape | None, reading: Reading, metric: str, k: int = 1
) -> str | None:
    """What is wrong with class numbers for `metric`: a row of the labels is one class, or a map of them."""
    if is_multi_label(y, outputs_shape) and y.shape[1] > 1:
        mean = f"{y.sum() / len(y):.3g} of {y.shape[1]}"
        return f"holds rows of several labels, {mean} in the mean; {metric} is for one a sample: use the metric f1"
    columns = _columns(outputs_shape, y.shape)
    if k > 1 and (k >= columns or y.ndim > 1):
        return f"cannot be scored by top-{k}: the network has {columns} outputs; use a smaller k, or accuracy"
    return _shape_fault(outputs_shape, y, reading) or _values_fault(y, columns, reading)


def rows_fault(outputs_shape: Shape, y: Array, inputs_shape: Shape | None, reading: Reading, metric: str) -> str | None:
    """As `labels_fault`, where rows of several labels are welcome too."""
    if is_multi_label(y, outputs_shape):
        return None
    columns = _columns(outputs_shape, y.shape)
    if metric == "f1" and columns > 2:
        return f"holds one label of {columns} a sample; f1 is for two classes or rows of several labels: use macro-f1"
    return labels_fault(outputs_shape, y, inputs_shape, reading, metric)


def _columns(outputs_shape: Shape, labels: Shape) -> int:
    """How many classes the outputs tell apart at a position; 1: by one value."""
    if len(outputs_shape) == 1 or int(np.prod(outputs_shape[1:])) == int(np.prod(labels[1:])):
        return 1
    return outputs_shape[1] if channels_first(outputs_shape, labels) else outputs_shape[-1]


def _shape_fault(outputs_shape: Shape, y: Array, reading: Reading) -> str | None:
    rows_of_values = y.ndim == 2 and y.shape[1:] == outputs_shape[1:] and reading.kind != "integer"
    if _positions_fit(outputs_shape, y.shape) and not rows_of_values:
        return None
    if y.ndim == 1:
        return (
            f"are class labels, but the network's output is {shape_text(outputs_shape)}; it must be (n, classes), or "
            "the labels a map (n, height, width)"
        )
    if np.issubdtype(y.dtype, np.floating) and y.shape[1:] == outputs_shape[1:]:
        return "holds shares of the classes; use the number of each sample's class"
    return f"has shape {shape_text(y.shape)}; use integer labels of shape (n,)" + (
        f", or a map that fits the output {shape_text(outputs_shape)}" if len(outputs_shape) > 2 else ""
    )


def _positions_fit(outputs_shape: Shape, labels: Shape) -> bool:
    """Whether the outputs have a value, or a row of classes, at each position of the labels."""
    if len(labels) == 1:
        return all(size == 1 for size in outputs_shape[1:-1])
    same = (outputs_shape[1:], outputs_shape[1:-1], outputs_shape[2:])
    return labels[1:] in same[:2] or channels_first(outputs_shape, labels)


def _values_fault(y: Array, columns: int, reading: Reading) -> str | None:
    if y.dtype != np.bool_ and not np.issubdtype(y.dtype, np.integer):
        wanted = "" if reading.kind == "integer" else f" in 0..{max(columns, 2) - 1}"
        numbers = "; real numbers are for the metric mae" if np.issubdtype(y.dtype, np.floating) else ""
        return f"is {y.dtype}; use integer labels{wanted}{numbers}"
    if reading.kind == "integer" or y.dtype == np.bool_:
        return None
    classes = max(columns, 2)
    outside = ((y < 0) | (y >= classes)) & ((y != VOID) if y.ndim > 1 else True)
    if outside.any():
        return (
            f"holds {int(outside.sum())} labels outside 0..{classes - 1}, such as {y[outside][0]}; "
            f"the network has {classes} classes, numbered from 0"
        )
    if y.ndim > 1 and len(empty := np.flatnonzero((rows(y) == VOID).all(1) & (classes <= VOID))):
        return f"names no class in sample {empty[0]}, whose label map is all {VOID} (void); leave it out"
    return None


def _counted(y: Array) -> Array:
    """The positions of labels that count: all of one label a sample, of a map those that are not void."""
    return np.ones(y.shape, bool) if y.ndim == 1 or y.max(initial=0) < VOID else np.asarray(y != VOID)


# --- scores ---------------------------------------------------------------------------------------


def correct(outputs: Array, y: Array, reading: Reading) -> Samples:
    """1 where the class is the label's; of a label map the share of its positions."""
    right = reading.classes(outputs, y.shape) == y
    if y.ndim == 1:
        return np.asarray(right, np.float64)
    counted = rows(_counted(y))
    return np.asarray((rows(right) & counted).sum(1) / counted.sum(1), np.float64)


def in_top(outputs: Array, y: Array, reading: Reading, k: int) -> Samples:
    """1 where fewer than k classes come before the label's: larger scores, and equal ones of a lower
    index, so that a network that says the same of all classes gains nothing and top-1 is accuracy."""
    values = rows(outputs)
    own = np.take_along_axis(values, y.astype(np.intp)[:, None], axis=1)
    earlier = np.arange(values.shape[1])[None, :] < y[:, None]
    before = (values > own) | ((values == own) & earlier)
    return np.asarray(before.sum(1) < k, np.float64)


def tallies(outputs: Array, y: Array, reading: Reading, only: int | None = None) -> Array:
    """Hits, predictions and labels of each sample: (n, 3 c), of the c classes that occur in `y`. Only those: the set of
    averaged classes must not change with what a candidate predicts. `only`: of this class alone. Of rows of several
    labels the columns are the classes."""
    predicted, counted = reading.classes(outputs, y.shape), _counted(y)
    if y.ndim == 2 and y.shape == rows(outputs).shape and y.shape[1] > 1:
        told, real = predicted.astype(bool), y.astype(bool)
        found = [told & real, told, real]
        return np.concatenate([each.astype(np.int64) for each in found], axis=1)
    classes = np.unique(y[counted]) if only is None else np.array([only])
    columns = [[], [], []]  # type: list[list[Array]]
    for each in classes:
        told, real = rows(np.asarray((predicted == each) & counted)), rows(np.asarray((y == each) & counted))
        for column, where in zip(columns, (told & real, told, real), strict=True):
            column.append(where.sum(1))
    return np.stack([count for column in columns for count in column], axis=1).astype(np.int64)


def _parts(counts: Array) -> tuple[Samples, Samples, Samples]:
    """Hits, predictions and labels of the classes that have labels."""
    hits, told, real = np.split(np.asarray(counts, np.float64), 3)
    has = real > 0
    return hits[has], told[has], real[has]


def macro_f1(counts: Array) -> float:
    """Mean over classes of 2·TP / (2·TP + FP + FN)."""
    hits, told, real = _parts(counts)
    return float(np.mean(2 * hits / (told + real))) if len(real) else 0.0


def macro_recall(counts: Array) -> float:
    """Mean over classes of TP / (TP + FN), also called balanced accuracy."""
    hits, _, real = _parts(counts)
    return float(np.mean(hits / real)) if len(real) else 0.0


def micro_f1(counts: Array) -> float:
    """2·TP / (2·TP + FP + FN) over all decisions; 0 without any."""
    hits, told, real = (float(part.sum()) for part in np.split(np.asarray(counts, np.float64), 3))
    return 2 * hits / (told + real) if told + real else 0.0


def mean_iou(counts: Array) -> float:
    """Mean over classes of TP / (TP + FP + FN), the intersection over the union (Everingham et al. 2010, "The PASCAL
    visual object classes challenge", sec. 4.1)."""
    hits, told, real = _parts(counts)
    return float(np.mean(hits / (told + real - hits))) if len(real) else 0.0


# --- what is said of them -------------------------------------------------------------------------


def words(outputs_shape: Shape, reading: Reading, one: str = "the largest of {}") -> str:
    """How a class is told from outputs of this shape."""
    if reading.kind == "integer":
        return "whole numbers, by equality"
    columns = outputs_shape[-1] if len(outputs_shape) > 1 else 1
    place = " at each position" if len(outputs_shape) > 2 and any(size > 1 for size in outputs_shape[1:-1]) else ""
    if columns > 1:
        return one.format(columns) + place
    kind = "a logit" if reading.kind == "linear" else "a probability"
    return f"{kind}, class 1 above {reading.decision:g}{place}"


def decisions(outputs_shape: Shape, reading: Reading) -> str:
    """The same where each column may be a decision of its own."""
    return words(
        outputs_shape, reading, f"rows of labels: each of {{}} above {reading.decision:g}; one label: the largest"
    )


def commonest(y: Array, outputs_shape: Shape, reading: Reading, k: int = 1) -> tuple[float, str] | None:
    """What saying the same of every sample is worth; None where all labels are the same."""
    values, counts = np.unique(y[_counted(y)], return_counts=True)
    if len(values) <= k:
        return None
    share = float(np.sort(counts)[-k:].sum() / counts.sum())
    return share, f"what the {'most frequent class' if k == 1 else f'{k} most frequent classes'} of the labels give"


def even(y: Array, outputs_shape: Shape, reading: Reading) -> tuple[float, str] | None:
    """What saying the same of every sample is worth where each class counts alike."""
    found = len(np.unique(y[_counted(y)]))
    return (1 / found, f"what saying one of {found} classes of every sample gives") if found > 1 else None


take_rows = partial(take_classes, keeps_rows=True)
