"""Metrics of real numbers, of anomaly scores, and of likeness to the float network."""

from __future__ import annotations

import math

import numpy as np

from autocompress.metrics import classes
from autocompress.metrics.reading import (
    Array,
    Reading,
    Samples,
    Shape,
    anomaly_scores,
    predicted_classes,
    rows,
    shape_text,
)

# --- regression -----------------------------------------------------------------------------------


def absolute_error(outputs: Array, y: Array, reading: Reading) -> Samples:
    """Mean over a sample's outputs of |output - y|."""
    difference = rows(outputs).astype(np.float64) - rows(y).astype(np.float64)
    return np.asarray(np.abs(difference).mean(1))


def words(outputs_shape: Shape, reading: Reading) -> str:
    """That real numbers are compared."""
    return "real numbers"


def spread(y: Array) -> float:
    """The mean absolute error of the best constants, the medians: of a network without inputs."""
    values = rows(y).astype(np.float64)
    return float(np.abs(values - np.median(values, axis=0)).mean())


def constant_error(y: Array, outputs_shape: Shape, reading: Reading) -> tuple[float, str] | None:
    """The same, as what a network that has learned nothing reaches."""
    found = spread(y)
    return (found, "the error of the targets' medians") if found > 0 else None


def targets_fault(outputs_shape: Shape, y: Array, inputs_shape: Shape | None, reading: Reading) -> str | None:
    """What is wrong with targets of real numbers."""
    if not (np.issubdtype(y.dtype, np.integer) or np.issubdtype(y.dtype, np.floating)):
        return f"is {y.dtype}; use numbers"
    if _squeezed(y.shape) != _squeezed(outputs_shape):
        return f"has shape {shape_text(y.shape)}, the network's output {shape_text(outputs_shape)}; they must agree"
    if not np.isfinite(y).all():
        return f"holds {int((~np.isfinite(y)).sum())} NaN or infinite values; remove those samples"
    return None


def _squeezed(shape: Shape) -> Shape:
    return tuple(size for size in shape[1:] if size != 1)


# --- ROC AUC --------------------------------------------------------------------------------------


def roc_auc(outputs: Array, y: Array, x: Array, reading: Reading) -> float:
    """Mann-Whitney's U over the number of pairs, ties count half (Hanley, McNeil 1982); one class: NaN."""
    positive = y.astype(bool)
    n_positive, n_negative = int(positive.sum()), int((~positive).sum())
    if n_positive == 0 or n_negative == 0:
        return math.nan
    _, inverse, counts = np.unique(anomaly_scores(outputs, x), return_inverse=True, return_counts=True)
    middle_ranks = np.cumsum(counts) - (counts - 1) / 2
    rank_sum = float(middle_ranks[inverse][positive].sum())
    return (rank_sum - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative)


def half(y: Array, outputs_shape: Shape, reading: Reading) -> tuple[float, str]:
    """What scores that say nothing reach."""
    return 0.5, "what scores without any knowledge give"


def scores_words(outputs_shape: Shape, reading: Reading) -> str:
    """Which value is the score."""
    columns = int(np.prod(outputs_shape[1:]))
    return "scores" if columns == 1 else "the second of two scores" if columns == 2 else "the reconstruction's error"


def binary_labels_fault(outputs_shape: Shape, y: Array, inputs_shape: Shape | None, reading: Reading) -> str | None:
    """What is wrong with labels of two classes."""
    columns = int(np.prod(outputs_shape[1:]))
    if columns > 2 and inputs_shape is not None and tuple(outputs_shape[1:]) != tuple(inputs_shape[1:]):
        return (
            f"cannot be scored by roc-auc: the network's output {shape_text(outputs_shape)} is neither one "
            f"column nor two nor of the input's shape {shape_text(inputs_shape)}"
        )
    if y.ndim != 1:
        return f"has shape {shape_text(y.shape)}; use labels 0 and 1 of shape (n,)"
    if y.dtype != np.bool_ and not np.issubdtype(y.dtype, np.integer):
        return f"is {y.dtype}; use integer labels 0 and 1"
    other = y[~np.isin(y, (0, 1))]
    if len(other):
        return f"holds labels other than 0 and 1, such as {other[0]}; roc-auc is for two classes"
    if len(np.unique(y)) < 2:
        return f"holds only the label {int(y[0])}; roc-auc needs samples of both classes"
    return None


# --- fidelity -------------------------------------------------------------------------------------


def fidelity(outputs: Array, y: Array, reading: Reading) -> Samples:
    """Of whole numbers the share that is equal, of classes the share of positions where they are the same, of real
    numbers how near they are: told by what makes the output."""
    return (closeness if reading.kind == "linear" else agreement)(outputs, y, reading)


def agreement(outputs: Array, y: Array, reading: Reading) -> Samples:
    """Share of a sample's positions where the class is the float network's."""
    same = predicted_classes(outputs, reading) == predicted_classes(y, reading)
    return np.asarray(rows(np.asarray(same)).mean(1), np.float64)


def closeness(outputs: Array, y: Array, reading: Reading) -> Samples:
    """1 less the root mean squared difference of a sample in units of `reading.unit`; 0 where that is more than 1."""
    a, b = (rows(values).astype(np.float64) / reading.unit for values in (outputs, y))
    with np.errstate(over="ignore", invalid="ignore"):
        apart = np.sqrt(np.mean((a - b) ** 2, axis=1))
    return np.asarray(1.0 - np.minimum(np.nan_to_num(apart, nan=1.0), 1.0))


def deviation(reference: Array, reading: Reading) -> float:
    """What the float network's outputs vary by over samples (root mean square around each value's mean); where they
    hardly do, their size."""
    values = rows(reference).astype(np.float64)
    size = float(np.sqrt(np.mean(values**2)))
    varies = float(np.sqrt(np.mean((values - values.mean(axis=0)) ** 2)))
    return varies if varies > 1e-6 * size else size or 1.0


def fidelity_words(outputs_shape: Shape, reading: Reading) -> str:
    """How likeness is told."""
    return (
        closeness_words(outputs_shape, reading) if reading.kind == "linear" else classes.words(outputs_shape, reading)
    )


def is_decided(reading: Reading) -> bool:
    """Whether `fidelity` compares classes."""
    return reading.kind != "linear"


def closeness_words(outputs_shape: Shape, reading: Reading) -> str:
    """That real numbers are compared."""
    return "real numbers, by their relative error"


def float_outputs_fault(outputs_shape: Shape, y: Array, inputs_shape: Shape | None, reading: Reading) -> str | None:
    """What is wrong with the float network's outputs as labels."""
    if tuple(y.shape) != tuple(outputs_shape):
        return f"has shape {shape_text(y.shape)}, the network's output {shape_text(outputs_shape)}; they must agree"
    if np.isnan(y).any():
        return f"holds {int(np.isnan(y).sum())} NaN: the float network itself does not work on these inputs"
    return None
