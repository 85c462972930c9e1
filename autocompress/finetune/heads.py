"""All outputs of a network as training sees them: where each ends, and one loss over all of them.

Each output is held to the float network's; labels, where they are used, count for the judged one alone. What a network
gives stays packed between its pieces (see `network.tflite.outputs`)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from autocompress.errors import AutocompressError
from autocompress.finetune.losses import Head, head_of, loss_of
from autocompress.finetune.recipe import Recipe
from autocompress.metrics import Metric
from autocompress.network.tflite.graph import Graph
from autocompress.network.tflite.outputs import FIRST, Signature

_LEAST_STD = 1e-6  # of the root mean square of an output that hardly varies


class Heads:
    """The heads of a signature's outputs. Outputs of integers, which no gradient passes, are left to the others."""

    def __init__(self, graph: Graph, metric: Metric, signature: Signature = FIRST) -> None:
        real = [n for n, output in enumerate(signature.outputs) if output.dtype.startswith("float")]
        kept = real if len(signature.outputs) > 1 and real else list(range(len(signature.outputs)))
        self.heads = [head_of(graph, metric, signature.outputs[n].position, judged=n == signature.judged) for n in kept]
        self._judged = kept.index(signature.judged) if signature.judged in kept else None
        self._shapes = [graph.tensors[head.tensor].shape[1:] for head in self.heads]

    @property
    def ends(self) -> list[int]:
        """The tensors of the flatbuffer that the trained network ends at."""
        return [head.tensor for head in self.heads]

    @property
    def judged(self) -> Head:
        """The head that labels are for; the first where all outputs are judged."""
        return self.heads[self._judged or 0]

    @property
    def columns(self) -> int:
        """Numbers along the last axis of the judged head: its classes, where it has any."""
        return ([1, *self._shapes[self._judged or 0]])[-1]

    def loss(self, recipe: Recipe, metric: Metric) -> Any:
        """A function (packed outputs, teacher's, labels) -> loss of each sample (n,). AutocompressError where labels
        are asked for and no output is there for them that can be trained."""
        if self._judged is None and recipe.loss != "distillation":
            raise AutocompressError(
                f"the loss '{recipe.loss}' needs a judged output of real numbers; use --loss distillation"
            )
        if len(self.heads) == 1:
            return loss_of(self.heads[0], recipe, metric)
        by_teacher = Recipe(temperature=recipe.temperature)
        losses = [
            loss_of(head, recipe if n == self._judged else by_teacher, metric) for n, head in enumerate(self.heads)
        ]

        def over_all(outputs: Any, teacher: Any, labels: Any) -> Any:
            rows = zip(self.heads, losses, self._parts(outputs), self._parts(teacher), strict=True)
            found = [_in_its_unit(head, loss, own, aim, labels) for head, loss, own, aim in rows]
            return sum(found) / len(found)

        return over_all

    def _parts(self, values: Any) -> list[Any]:
        import tensorflow as tf

        sizes = [math.prod(shape) for shape in self._shapes]
        pieces = tf.split(values, sizes, axis=1)
        return [tf.reshape(piece, (-1, *shape)) for piece, shape in zip(pieces, self._shapes, strict=True)]


def _in_its_unit(head: Head, loss: Any, outputs: Any, teacher: Any, labels: Any) -> Any:
    """A head's loss; plain values in units of what the teacher's vary by: boxes in pixels would drown classes."""
    import tensorflow as tf

    if head.kind != "values":
        return loss(outputs, teacher, labels)
    size = tf.sqrt(tf.reduce_mean(tf.square(teacher)))
    unit = tf.maximum(tf.maximum(tf.math.reduce_std(teacher), _LEAST_STD * size), 1e-12)
    return loss(outputs / unit, teacher / unit, tf.cast(labels, tf.float32) / unit)


def packed(outputs: Any) -> Any:
    """What a Keras model gives, packed: several outputs side by side, one as it is."""
    import tensorflow as tf

    if not isinstance(outputs, Sequence):
        return outputs
    return tf.concat([tf.reshape(each, (tf.shape(each)[0], -1)) for each in outputs], axis=1)
