"""A layer's weights while they are trained: always values that the exported file can hold.

Behind the weights stand latent variables, in units of the layer's own weights so that one learning rate suits all of
them (batch norms are folded, channels differ by orders of magnitude). Integer layers: weight = scale x level with the
mask fixed; levels are rounded, with the gradient going straight through (Bengio et al., arXiv 1308.3432), or drawn from
a table of shared centroids whose gradients are summed over their members (Deep Compression, arXiv 1510.00149, eq. 3).
Float layers: the weights themselves, on their mask."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from autocompress.compression.reconstruct import SolvedLayer
from autocompress.compression.zero_pattern import ZeroPattern
from autocompress.finetune.schedule import share_of_zeros
from autocompress.network.graph.layers import Layer
from autocompress.network.keras import model as keras_model
from autocompress.network.tflite import sparse
from autocompress.network.tflite.short_floats import SCALE_BITS
from autocompress.records.configuration import TWO_OF_FOUR, LayerChoice

Array = np.ndarray[Any, Any]
_TINY = 1e-12
_INSIDE = 0.45  # of a level, the farthest that a latent value starts from the one it is rounded to
_PRUNED_SIZE = 0.9  # of the smallest weights that are kept
_BIAS_BITS = 8  # of the mantissa, as the builder stores it


class ConstrainedLayer:
    """One layer of a Keras network, held to its choice. `variables` are what is trained."""

    def __init__(
        self,
        layer: Layer,
        choice: LayerChoice,
        start: SolvedLayer,
        network: Any,
        *,
        fixed: bool,
        dense: Array | None = None,
        free_mask: bool = False,
        target: float = 0.0,
    ) -> None:
        """`fixed`: each weight stays with the centroid it has. `dense`: the float network's weight, needed where the
        mask moves. `free_mask`: pruned weights may come back: they are trained too, out of sight, and `move_mask` keeps
        the largest. `target`: the sparsity that `move_mask` leads to, where it is more than the choice's."""
        import tensorflow as tf

        self._layer, self._choice, self._start = layer, choice, start
        self._kernel, self._bias = keras_model.kernel_of(network, layer), keras_model.bias_of(network, layer)
        shape = tuple(self._kernel.shape)
        self._broadcast = scale_shape(layer, shape)
        self._axes = [axis for axis, size in enumerate(self._broadcast) if size == 1]
        stored = start.weight if start.levels is None else start.levels
        values = self._keras(stored.astype(np.float32))
        pruned = choice.sparsity > 0
        keep = (values != 0).astype(np.float32) if pruned else np.ones(shape, np.float32)
        self._target = max(target, choice.sparsity)
        self._comes_back = self._target > 0 and free_mask
        self._moves = self._comes_back or self._target > choice.sparsity
        self._keep: Any = tf.Variable(keep, trainable=False) if self._moves else keep
        self._limit = 2 ** (choice.bits - 1) - 1
        self._table0 = _table(start, choice)
        self._size = _root_mean_square(values) if start.levels is not None else 1.0
        self._scale0 = self._first_scale(values)
        self._index = self._nearest0(values) if fixed and self._table0 is not None else None
        variable = tf.Variable
        if self._moves and dense is not None:
            values = self._ordered(values, self._keras(dense.astype(np.float32)))
        self._latent = None if self._index is not None else variable(values / self._size / self._float_unit())
        self._table = None if self._table0 is None else variable(np.float32(self._table0 / self._size))
        self._ratio = None if start.scale is None else variable(np.zeros(self._broadcast, np.float32))
        self._shift = None if self._bias is None else variable(np.zeros(self._bias.shape, np.float32))
        self._bias0 = None if start.bias is None else start.bias.astype(np.float32)
        self._bias_unit = self._unit_of_bias(values)

    def _keras(self, weight: Array) -> Array:
        ordered: Array = keras_model.to_keras_order(self._layer.op, weight).reshape(self._kernel.shape)
        return ordered

    def _first_scale(self, values: Array) -> Array:
        if self._start.scale is not None:
            given: Array = self._start.scale.astype(np.float32).reshape(self._broadcast)
            return given
        used = np.maximum((values != 0).sum(axis=tuple(self._axes), keepdims=True), 1)
        spread = np.sqrt((values.astype(np.float64) ** 2).sum(axis=tuple(self._axes), keepdims=True) / used)
        floor = 1e-3 * max(float(spread.max()), _TINY)
        found: Array = np.maximum(spread, floor).astype(np.float32)
        return found

    def _float_unit(self) -> Array | np.float32:
        """What a float layer's latent variable counts in; an integer layer's counts levels."""
        return self._scale0 if self._start.scale is None else np.float32(1.0)

    def _unit_of_bias(self, values: Array) -> Array:
        """A bias counts in what its channel's weights give together on inputs of size one."""
        inputs = np.sqrt(np.maximum((values != 0).sum(axis=tuple(self._axes)), 1)).reshape(-1)
        unit: Array = (self._scale0.reshape(-1) * self._size * inputs).astype(np.float32)
        return unit

    def _ordered(self, values: Array, dense: Array) -> Array:
        """The latent values as the float network's weights order them, each still rounded to what it was: integer
        levels alone are ties, and a mask that moves would break them by chance. Where pruned weights may come back,
        they have the float network's values, smaller than what is kept."""
        scale = np.float32(1.0) if self._start.scale is None else self._scale0
        found = values
        if self._start.scale is not None:
            found = values + np.clip(dense / scale - values, -_INSIDE, _INSIDE)
        kept = np.abs(values * scale)[values != 0]
        if self._choice.sparsity > 0:
            most = _PRUNED_SIZE * float(np.quantile(kept, 0.1)) if len(kept) and self._comes_back else 0.0
            found = np.where(values != 0, found, np.clip(dense, -most, most) / scale)
        ordered: Array = found.astype(np.float32)
        return ordered

    def move_mask(self, done: float = 1.0) -> None:
        """Keep the largest weights, as many as the schedule leaves when `done` of the plan is behind; the others are
        trained on out of sight where they may come back."""
        if not self._moves or self._latent is None:
            return
        unit = self._scale0 if self._ratio is None else self._scale().numpy() * self._size
        sizes = np.abs(self._latent.numpy() * unit).reshape(-1)
        zeros = math.ceil(share_of_zeros(self._choice.sparsity, self._target, done) * sizes.size - 1e-9)
        if not self._comes_back:
            pruned = self._keep.numpy().reshape(-1) == 0
            sizes, zeros = np.where(pruned, -1.0, sizes), max(zeros, int(pruned.sum()))
        keep = np.ones(sizes.size, np.float32)
        keep[self._smallest(sizes, zeros)] = 0.0
        self._keep.assign(keep.reshape(self._keep.shape))

    def _smallest(self, sizes: Array, zeros: int) -> Array:
        """The places (flat, in Keras' order) of the `zeros` smallest, or of so many blocks as hold them: of blocks the
        sum of squares counts, and what must stay pruned (-1) comes first."""
        if self._choice.granularity == TWO_OF_FOUR:
            places = keras_model.from_keras_order(self._layer, np.arange(sizes.size).reshape(self._keep.shape))
            pattern = ZeroPattern(zeros=zeros, two_of_four=True)
            return places.ravel()[pattern.smallest(sizes[places][None], np.ones((1, *places.shape), bool))]
        block = sparse.block_of(self._layer.outputs) if self._choice.granularity == "block" else 1
        if block == 1 or self._layer.output_axis != 0:
            return np.argsort(sizes, kind="stable")[:zeros]
        places = keras_model.from_keras_order(self._layer, np.arange(sizes.size).reshape(self._keep.shape))
        blocks = places.reshape(-1, block, places[0].size).transpose(0, 2, 1).reshape(-1, block)
        scores = np.where(sizes < 0, -1.0, sizes * sizes)[blocks].sum(axis=1)
        found: Array = blocks[np.argsort(scores, kind="stable")[: -(-zeros // block)]].reshape(-1)
        return found

    @property
    def state(self) -> list[Any]:
        """Everything that says where the training is."""
        return [*self.variables, self._keep] if self._moves else self.variables

    def _nearest0(self, values: Array) -> Array:
        assert self._table0 is not None
        nearest: Array = np.abs(values[..., None] - self._table0).argmin(-1).astype(np.int32)
        return nearest

    @property
    def variables(self) -> list[Any]:
        """What is trained."""
        return [v for v in (self._latent, self._table, self._ratio, self._shift) if v is not None]

    def _levels(self) -> tuple[Any, Any]:
        """The levels (float tensor, kernel's shape), and each weight's place in the table (None without one)."""
        import tensorflow as tf

        limit = float(self._limit)
        if self._table is None:
            assert self._latent is not None
            return tf.clip_by_value(tf.round(self._latent * self._size), -limit, limit) * self._keep, None
        table = tf.clip_by_value(tf.round(self._table * self._size), -limit, limit)
        if self._index is not None:
            index: Any = tf.constant(self._index)
        else:
            assert self._latent is not None
            index = _nearest(self._latent * self._size, table)
        return tf.gather(table, index) * self._keep, index

    def _float_weight(self) -> Any:
        """A float layer's weight, rounded to what its container holds."""
        import tensorflow as tf

        assert self._latent is not None
        weight = self._latent * self._scale0 * self._keep
        return tf.cast(tf.cast(weight, tf.float16), tf.float32) if self._choice.bits == 16 else weight

    def _scale(self) -> Any:
        """An integer layer's scales: those of the start times e to the variable, so always positive."""
        import tensorflow as tf

        return self._scale0 * tf.exp(self._ratio)

    def put(self) -> tuple[Any, Any]:
        """Write the weights that the variables stand for into the network; their levels and places in the table."""
        levels, index = None, None
        if self._ratio is None:
            self._kernel.assign(self._float_weight())
        else:
            levels, index = self._levels()
            self._kernel.assign(levels * _short(self._scale(), SCALE_BITS))
        if self._bias is not None:
            self._bias.assign(_short(self._bias0 + self._shift * self._bias_unit, _BIAS_BITS))
        return levels, index

    @property
    def weights(self) -> list[Any]:
        """The network's own variables: gradients are taken for these."""
        return [self._kernel] if self._bias is None else [self._kernel, self._bias]

    def gradients(self, of_weights: list[Any], put: tuple[Any, Any]) -> list[Any]:
        """Gradients of `variables` from those of `weights`, by the chain rule; `put` is what `put` returned."""
        import tensorflow as tf

        pulled, found = of_weights[0] * self._keep, []
        reached = of_weights[0] if self._comes_back else pulled  # pruned weights must be able to come back
        if self._ratio is None:
            found.append(reached * self._scale0)
        else:
            levels, index = put
            by_level = pulled * self._scale() * self._size
            if self._latent is not None:
                found.append(reached * self._scale() * self._size * self._moving(reached))
            if self._table is not None and self._table0 is not None:
                flat = tf.reshape(by_level, [-1]), tf.reshape(index, [-1])
                summed = tf.math.unsorted_segment_sum(*flat, len(self._table0))
                found.append(summed * tf.constant(self._table0 != 0, tf.float32))  # zero stays zero
            found.append(tf.reduce_sum(pulled * levels * self._scale(), self._axes, keepdims=True))
        if self._bias is not None:
            found.append(of_weights[1] * self._bias_unit)
        return found

    def _moving(self, gradient: Any) -> Any:
        """One where a step changes the latent value, zero where it would go further beyond the largest level."""
        import tensorflow as tf

        assert self._latent is not None
        inside = tf.abs(self._latent) * self._size <= self._limit
        return tf.cast(inside | (gradient * self._latent > 0), tf.float32)

    def solved(self) -> SolvedLayer:
        """The layer as the builder takes it, from the variables as they stand."""
        bias = None
        if self._bias0 is not None and self._shift is not None:
            bias = _short(self._bias0 + self._shift * self._bias_unit, _BIAS_BITS).numpy()
        if self._ratio is None:
            return SolvedLayer(
                weight=keras_model.from_keras_order(self._layer, self._float_weight().numpy()), bias=bias
            )
        levels = keras_model.from_keras_order(self._layer, np.rint(self._levels()[0].numpy()).astype(np.int8))
        scale = _short(self._scale(), SCALE_BITS).numpy().reshape(-1)
        per_channel = scale.reshape([-1 if axis == self._layer.output_axis else 1 for axis in range(levels.ndim)])
        return SolvedLayer(weight=(levels * per_channel).astype(np.float32), bias=bias, levels=levels, scale=scale)


def _nearest(values: Any, table: Any) -> Any:
    """The place in the table (K,), which need not be sorted, of the entry nearest to each value."""
    import tensorflow as tf

    order = tf.argsort(table)
    ordered = tf.gather(table, order)
    place = tf.searchsorted((ordered[1:] + ordered[:-1]) / 2, tf.reshape(values, [-1]), "right")
    return tf.reshape(tf.gather(order, place), tf.shape(values))


def _short(values: Any, bits: int) -> Any:
    """`short_floats.short` of float32 values, in TensorFlow: what the file keeps of scales and biases."""
    import tensorflow as tf

    dropped = 23 - bits  # of float32's mantissa
    counted = tf.bitcast(values, tf.int32) + (1 << (dropped - 1))
    return tf.bitcast(tf.bitwise.bitwise_and(counted, -(1 << dropped)), tf.float32)


def scale_shape(layer: Layer, kernel: tuple[int, ...]) -> tuple[int, ...]:
    """The shape in which one value an output channel goes along with a Keras kernel."""
    channels = {"DEPTHWISE_CONV_2D": (2, 3), "TRANSPOSE_CONV": (2,)}.get(layer.op, (len(kernel) - 1,))
    return tuple(size if axis in channels else 1 for axis, size in enumerate(kernel))


def _table(start: SolvedLayer, choice: LayerChoice) -> Array | None:
    """The shared levels of a clustered layer, as the solver left them."""
    if choice.clusters is None or start.levels is None:
        return None
    return np.union1d(start.levels, [0]).astype(np.float32)


def _root_mean_square(values: Array) -> float:
    used = values[values != 0].astype(np.float64)
    return float(np.sqrt((used * used).mean())) if len(used) else 1.0
