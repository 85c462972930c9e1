"""How the values of an output are read: as classes, as decisions, as whole numbers, or as the real numbers they are.

What they are is told by the operator that makes them (`network/tflite/output_kind.py`); what a metric takes them for
follows from that and from the labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Samples = npt.NDArray[np.float64]
Shape = tuple[int, ...]
KINDS = ("integer", "softmax", "logistic", "linear")
VOID = 255  # in a label map: a position that does not count, as in PASCAL VOC


@dataclass(frozen=True, kw_only=True)
class Reading:
    """One output. `kind`: "integer" (numbers of classes, say), "softmax" (a distribution over classes), "logistic" (a
    probability each), "linear" (anything else: logits or real numbers); None: not known, as in studies that say
    nothing of it: then classes or, of one column, a probability. `unit`: what real numbers are measured in."""

    kind: str | None = None
    unit: float = 1.0

    @property
    def decision(self) -> float:
        """A single column, or each one of a row of several labels, is class 1 above this: a probability above one
        half, a logit above 0."""
        return 0.0 if self.kind == "linear" else 0.5

    def classes(self, outputs: Array, labels: Shape) -> Array:
        """The class at each position of labels of this shape (n, ...): whole numbers as they are, where there is one
        value a position the side of `decision` that it lies on, else the first largest along the axis of classes."""
        size = math.prod(labels)
        if outputs.size == size:
            values = outputs.reshape(labels)
            return values if self.kind == "integer" else np.asarray(values > self.decision).astype(np.intp)
        if channels_first(outputs.shape, labels):
            return np.asarray(outputs.argmax(1)).reshape(labels)
        return np.asarray(outputs.reshape(*labels, -1).argmax(-1))


AS_BEFORE = Reading()


def channels_first(outputs: Shape, labels: Shape) -> bool:
    """Whether the classes of a label map stand in front of its positions, as PyTorch has them."""
    return len(labels) > 1 and outputs[2:] == labels[1:] and outputs[1:-1] != labels[1:]


def predicted_classes(outputs: Array, reading: Reading = AS_BEFORE) -> Array:
    """The class of each row of outputs (..., classes), the first of equal ones; of one column the side that it is
    on."""
    if reading.kind == "integer":
        return outputs
    if outputs.ndim == 1 or outputs.shape[-1] == 1:
        column = outputs if outputs.ndim == 1 else outputs[..., 0]
        return (column > reading.decision).astype(np.intp)
    return np.asarray(outputs.argmax(-1))


def rows(outputs: Array) -> Array:
    """(n, 1, ..., classes) as (n, classes)."""
    return outputs.reshape(len(outputs), -1)


def anomaly_scores(outputs: Array, x: Array) -> Samples:
    """The score (n,) of the positive class: the only column, the second of two, or, where the output has the
    input's shape (an autoencoder), the sample's mean squared reconstruction error."""
    values = rows(outputs).astype(np.float64)
    if values.shape[1] <= 2:
        return values[:, -1]
    return np.asarray(((values - rows(x)) ** 2).mean(1))


def shape_text(shape: Sequence[int]) -> str:
    """A shape with its samples as n: (n, 8, 8, 1)."""
    return f"({', '.join(['n', *map(str, shape[1:])])}{',' if len(shape) == 1 else ''})"
