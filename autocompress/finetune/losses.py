"""What training makes small, and on which tensor of the network.

Softmax and sigmoid outputs are compared through the logits in front of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from autocompress.finetune.recipe import Recipe
from autocompress.metrics import Metric
from autocompress.metrics.reading import VOID
from autocompress.network.tflite.graph import Graph

_CLASSES = ("accuracy", "top-5", "macro-f1", "recall", "mean-iou")  # metrics whose linear outputs are logits


@dataclass(frozen=True, kw_only=True)
class Head:
    """`tensor`: where the network that is trained ends. `kind`: "classes" (logits of one class of many), "sigmoid"
    (logits of independent decisions) or "values"."""

    tensor: int
    kind: str


def head_of(graph: Graph, metric: Metric, position: int = 0, *, judged: bool = True) -> Head:
    """The head of a network, by what makes its output at this position; `judged`: whether the metric is of it."""
    output = graph.outputs[position]
    maker = graph.makers[output]
    if maker.op == "SOFTMAX" and maker.options.beta == 1:
        return Head(tensor=maker.inputs[0], kind="classes")
    if maker.op == "LOGISTIC":
        return Head(tensor=maker.inputs[0], kind="sigmoid")
    columns = (graph.tensors[output].shape or (1,))[-1]
    if not judged or maker.op == "SOFTMAX" or metric.name not in _CLASSES:
        return Head(tensor=output, kind="values")
    return Head(tensor=output, kind="classes" if columns > 1 else "sigmoid")


def loss_of(head: Head, recipe: Recipe, metric: Metric) -> Any:
    """A function (outputs, teacher's outputs, labels) -> loss of each sample (n,)."""

    def by_teacher(outputs: Any, teacher: Any, _: Any) -> Any:
        return _DISTILLED[head.kind](outputs, teacher, recipe.temperature)

    def by_labels(outputs: Any, _: Any, labels: Any) -> Any:
        return _LABELLED[head.kind](outputs, labels, metric.name == "mae")

    if recipe.loss == "both":
        return lambda o, t, y: 0.5 * (by_teacher(o, t, y) + by_labels(o, t, y))
    return by_teacher if recipe.loss == "distillation" else by_labels


def _per_sample(values: Any) -> Any:
    import tensorflow as tf

    return tf.reduce_mean(tf.reshape(values, (tf.shape(values)[0], -1)), -1)


def _softened_classes(outputs: Any, teacher: Any, temperature: float) -> Any:
    """T^2 KL(teacher || student) of the softened classes (arXiv 1503.02531, sec. 2 and 2.1: T^2 keeps the gradients'
    size)."""
    import tensorflow as tf

    wanted = tf.nn.log_softmax(teacher / temperature)
    gap = wanted - tf.nn.log_softmax(outputs / temperature)
    return _per_sample(tf.reduce_sum(tf.exp(wanted) * gap, -1) * temperature**2)


def _softened_decisions(outputs: Any, teacher: Any, temperature: float) -> Any:
    """The same for independent decisions, the teacher's entropy left out."""
    import tensorflow as tf

    wanted = tf.sigmoid(teacher / temperature)
    own = tf.nn.sigmoid_cross_entropy_with_logits(labels=wanted, logits=outputs / temperature)
    least = tf.nn.sigmoid_cross_entropy_with_logits(labels=wanted, logits=teacher / temperature)
    return _per_sample((own - least) * temperature**2)


def _squared(outputs: Any, teacher: Any, _: float) -> Any:
    import tensorflow as tf

    return _per_sample(tf.square(outputs - teacher))


def _classes(outputs: Any, labels: Any, _: bool) -> Any:
    """Cross entropy; of a label map the mean over its positions, of which void ones cost nothing."""
    import tensorflow as tf

    if len(labels.shape) == len(outputs.shape) > 2:
        return _per_sample(tf.nn.softmax_cross_entropy_with_logits(labels=labels, logits=outputs))
    if len(labels.shape) > 1 and len(labels.shape) == len(outputs.shape) - 1:
        named = tf.cast(labels, tf.int32)
        known = tf.where(named == VOID, 0, named)
        found = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=known, logits=outputs)
        return _per_sample(tf.where(named == VOID, 0.0, found))
    rows = tf.reshape(outputs, (tf.shape(outputs)[0], -1))
    if len(labels.shape) > 1 and labels.shape[-1] == rows.shape[-1]:  # shares of the classes
        return tf.nn.softmax_cross_entropy_with_logits(labels=labels, logits=rows)
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels=tf.cast(labels, tf.int32), logits=rows)


def _decisions(outputs: Any, labels: Any, _: bool) -> Any:
    import tensorflow as tf

    wanted = tf.reshape(tf.cast(labels, tf.float32), tf.shape(outputs))
    return _per_sample(tf.nn.sigmoid_cross_entropy_with_logits(labels=wanted, logits=outputs))


def _values(outputs: Any, labels: Any, absolute: bool) -> Any:
    import tensorflow as tf

    gap = outputs - tf.reshape(tf.cast(labels, tf.float32), tf.shape(outputs))
    return _per_sample(tf.abs(gap) if absolute else tf.square(gap))


_DISTILLED = {"classes": _softened_classes, "sigmoid": _softened_decisions, "values": _squared}
_LABELLED = {"classes": _classes, "sigmoid": _decisions, "values": _values}
