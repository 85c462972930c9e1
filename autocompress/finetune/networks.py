"""The two networks of a training: the float one that teaches, and the compressed one that learns."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from autocompress.compression.reconstruct import SolvedLayer
from autocompress.finetune.constraint import ConstrainedLayer
from autocompress.finetune.heads import packed
from autocompress.network.graph.layers import Layer
from autocompress.network.graph.trace import is_bounded
from autocompress.network.keras import model as keras_model
from autocompress.network.tflite.graph import Graph
from autocompress.network.tflite.short_floats import short
from autocompress.records.configuration import Configuration

Array = np.ndarray[Any, Any]
Ranges = Mapping[str, tuple[float, float]]  # tensor name -> smallest and largest value seen in calibration


class Student:
    """The compressed network as a Keras model up to `ends`, its layers held to the configuration.

    `ranges`: of static activations, which are rounded here as the exported file rounds them; None: float ones.
    `towards`: the configuration whose sparsities `move_masks` leads to."""

    def __init__(
        self,
        graph: Graph,
        layers: Sequence[Layer],
        configuration: Configuration,
        start: Sequence[SolvedLayer],
        *,
        ends: Sequence[int],
        fixed: bool,
        free_mask: bool,
        ranges: Ranges | None,
        towards: Configuration,
    ) -> None:
        between = None if ranges is None else _rounding(graph, ranges, configuration.activations)
        self.network = keras_model.to_keras(graph, outputs=ends, between=between)
        present = {layer.name for layer in self.network.layers}
        pairs = [(x, s) for x, s in zip(layers, start, strict=True) if f"operator_{x.operator}" in present]
        self._names = [layer.name for layer, _ in pairs]
        self._others = {layer.name: solved for layer, solved in zip(layers, start, strict=True)}
        self.layers = [
            ConstrainedLayer(
                layer,
                configuration.layers[layer.name],
                solved,
                self.network,
                fixed=fixed,
                dense=graph.constant(layer.weight),
                free_mask=free_mask,
                target=towards.layers[layer.name].sparsity,
            )
            for layer, solved in pairs
        ]
        self.variables = [v for layer in self.layers for v in layer.variables]
        self.state = [v for layer in self.layers for v in layer.state]
        self._weights = [layer.weights for layer in self.layers]

    def put(self) -> list[tuple[Any, Any]]:
        """Write what the variables stand for into the network; what `gradients` needs of it."""
        return [layer.put() for layer in self.layers]

    def move_masks(self, done: float) -> None:
        """Let each layer's mask follow its weights and the schedule, where it may; `done` of the plan is behind."""
        for layer in self.layers:
            layer.move_mask(done)

    def outputs(self, x: Any) -> Any:
        """The network's outputs as it stands, packed; differentiable in its weights."""
        return packed(self.network(x, training=False))

    def gradients(self, tape: Any, loss: Any, put: Sequence[tuple[Any, Any]]) -> list[Any]:
        """Gradients of `variables` of a loss that `tape` recorded after `put`."""
        of_weights = tape.gradient(loss, self._weights)
        rows = zip(self.layers, of_weights, put, strict=True)
        return [gradient for layer, each, state in rows for gradient in layer.gradients(each, state)]

    def solved(self) -> tuple[SolvedLayer, ...]:
        """All layers as the builder takes them; those the outputs do not depend on as they came."""
        found = dict(self._others)
        found |= {name: layer.solved() for name, layer in zip(self._names, self.layers, strict=True)}
        return tuple(found.values())


class Teacher:
    """The float network's outputs, packed, each sample run once and remembered."""

    def __init__(self, graph: Graph, ends: Sequence[int], x: Sequence[Array], batch: int) -> None:
        import tensorflow as tf

        network = keras_model.to_keras(graph, outputs=ends)
        self._run = tf.function(
            lambda *inputs: packed(network(list(inputs), training=False)), reduce_retracing=True, autograph=False
        )
        self._x, self._batch = x, batch
        samples = len(x[0])
        self._known = np.zeros(samples, bool)
        shape = network.output_shape
        several = isinstance(shape, list)  # packed
        row = (sum(math.prod(each[1:]) for each in shape),) if several else shape[1:]
        self._outputs = np.zeros((samples, *row), np.float32)

    def __call__(self, at: Array) -> Array:
        """The outputs for the samples at these indices."""
        missing = at[~self._known[at]]
        for start in range(0, len(missing), self._batch):
            piece = missing[start : start + self._batch]
            self._outputs[piece] = self.outputs([values[piece] for values in self._x])
            self._known[piece] = True
        found: Array = self._outputs[at]
        return found

    def outputs(self, x: Sequence[Array]) -> Array:
        """The outputs for other inputs, each (n, ...); nothing is remembered."""
        found: Array = self._run(*x).numpy()
        return found


def _rounding(graph: Graph, ranges: Ranges, activations: str) -> Callable[[int, Any], Any]:
    """Puts the rounding of static activations behind each tensor whose range is known."""
    names = [tensor.name for tensor in graph.tensors]

    def between(tensor: int, value: Any) -> Any:
        from tf_keras import layers

        if not is_bounded(ranges, names[tensor]) or value.dtype != "float32":
            return value
        low, high = ranges[names[tensor]]
        return layers.Lambda(lambda x: _on_grid(x, low, high, activations), name=f"grid_{tensor}")(value)

    return between


def _on_grid(x: Any, low: float, high: float, activations: str) -> Any:
    """`trace.static_quantizer` with a gradient: one within the range, zero outside (arXiv 1712.05877, sec. 3)."""
    import tensorflow as tf

    if activations == "int16":
        scale = float(short(max(abs(low), abs(high), 1e-12) / 32767, up=True))
        least, most = -32767 * scale, 32767 * scale
    else:
        low, high = min(low, 0.0), max(high, 0.0)
        scale = max(high - low, 1e-12) / 255
        zero = float(np.rint(-128 - low / scale))
        scale = float(short(scale, up=True))
        least, most = (-128 - zero) * scale, (127 - zero) * scale
    clipped = tf.clip_by_value(x, least, most)
    return clipped + tf.stop_gradient(tf.round(clipped / scale) * scale - clipped)
