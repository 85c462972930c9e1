"""The operators of a flatbuffer in TensorFlow: one function each, on Keras tensors.

TFLite's semantics are TensorFlow's, but for names and the order of weights; what differs is said where it does. The
first axis is the batch: in the file it counts one sample, here any number."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from autocompress.network import flatbuffer
from autocompress.network.layers import INPUTS

Array = np.ndarray[Any, Any]
Made = Mapping[int, Any]
_SAME = 0  # Padding of the schema
# ActivationFunctionType of the schema
_FUSED = {0: None, 1: "RELU", 2: "RELU_N1_TO_1", 3: "RELU6", 4: "TANH"}
_KERAS_ACTIVATION = {None: None, "RELU": "relu", "RELU6": "relu6", "TANH": "tanh"}


@dataclass(frozen=True, kw_only=True)
class Keeper:
    """How a weight is turned into the kernel of its Keras layer and back (back: to the shape of the layer, flat)."""

    to_keras: Callable[[Array], Array]
    from_keras: Callable[[Array], Array]


KEEPERS = {
    "CONV_2D": Keeper(to_keras=lambda w: w.transpose(1, 2, 3, 0), from_keras=lambda k: k.transpose(3, 0, 1, 2)),
    # (1, height, width, channels x multiplier) <-> (height, width, channels, multiplier): `_depthwise` splits the last
    "DEPTHWISE_CONV_2D": Keeper(to_keras=lambda w: w[0], from_keras=lambda k: k),
    "FULLY_CONNECTED": Keeper(to_keras=lambda w: w.T, from_keras=lambda k: k.T),
    "TRANSPOSE_CONV": Keeper(to_keras=lambda w: w.transpose(1, 2, 0, 3), from_keras=lambda k: k.transpose(2, 0, 1, 3)),
}


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One operator: its `inputs` are Keras tensors or constants (None: left out), `shapes` those of its outputs."""

    op: str
    name: str
    options: Any
    inputs: tuple[Any, ...]
    shapes: tuple[tuple[int, ...], ...]

    def constant(self, position: int) -> Array:
        """The constant at this place among the inputs."""
        value = self.inputs[position]
        assert isinstance(value, np.ndarray)
        return value

    @property
    def computed(self) -> list[Any]:
        """The inputs that are no constants."""
        return [value for value in self.inputs if value is not None and not isinstance(value, np.ndarray)]


def apply(tree: Any, operator: Any, name: str, made: Made) -> list[Any]:
    """The Keras tensors of an operator's outputs, from those `made` before."""
    graph = tree.subgraphs[0]
    at = [int(i) for i in operator.inputs]
    inputs = tuple(made[i] if i in made else None if i < 0 else flatbuffer.constant(tree, i) for i in at)
    operation = Operation(
        op=flatbuffer.op_name(tree, operator), name=name, options=operator.builtinOptions, inputs=inputs,
        shapes=tuple(tuple(int(n) for n in graph.tensors[int(i)].shape) for i in operator.outputs),
    )  # fmt: skip
    value = (_LAYERS.get(operation.op) or _FREE[operation.op])(operation)
    values = list(value) if isinstance(value, list | tuple) else [value]
    fused = _FUSED[int(getattr(operation.options, "fusedActivationFunction", 0) or 0)]
    if fused is None or operation.op in _LAYERS:
        return values
    return [_lambda(f"{name}_activation", _unary(fused), [values[0]])]


def uncovered(tree: Any, operator: Any) -> str | None:
    """Why an operator cannot be made; None where it can."""
    op = flatbuffer.op_name(tree, operator)
    if op not in _LAYERS and op not in _FREE:
        return op
    if int(getattr(operator.builtinOptions, "fusedActivationFunction", 0) or 0) not in _FUSED:
        return f"{op} with SIGN_BIT"
    at = [int(i) for i in operator.inputs]
    for position in _CONSTANT_INPUTS.get(op, ()):
        if position < len(at) and at[position] >= 0 and flatbuffer.constant(tree, at[position]) is None:
            return f"{op} whose input {position} is computed"
    return _uncovered_layer(tree, op, operator) if op in _LAYERS else None


def _uncovered_layer(tree: Any, op: str, operator: Any) -> str | None:
    tensors, options = tree.subgraphs[0].tensors, operator.builtinOptions
    at_input, at_weight, _ = INPUTS[op]
    shape = [int(n) for n in tensors[int(operator.inputs[at_weight])].shape]
    channels = int(tensors[int(operator.inputs[at_input])].shape[-1])
    if op == "CONV_2D" and shape[3] != channels:
        return "CONV_2D in groups"
    if op == "DEPTHWISE_CONV_2D" and options.strideH != options.strideW:
        return "DEPTHWISE_CONV_2D with two strides"
    dilated = getattr(options, "dilationHFactor", 1) * getattr(options, "dilationWFactor", 1) > 1
    if dilated and options.strideH * options.strideW > 1:
        return f"{op} with strides and dilation"
    return None


# --- layers with weights ------------------------------------------------------------------------------------------


def _convolution(o: Operation) -> Any:
    from tf_keras import layers

    weight, options = o.constant(1), o.options
    layer = layers.Conv2D(
        len(weight), weight.shape[1:3], (options.strideH, options.strideW), _padding(options),
        dilation_rate=(options.dilationHFactor, options.dilationWFactor), **_shared(o, 2),
    )  # fmt: skip
    return _weighted(o, layer, o.inputs[0], KEEPERS[o.op].to_keras(weight), 2)


def _depthwise(o: Operation) -> Any:
    from tf_keras import layers

    weight, options = o.constant(1), o.options
    _, height, width, outputs = weight.shape
    channels = int(o.inputs[0].shape[-1])
    layer = layers.DepthwiseConv2D(
        (height, width), (options.strideH, options.strideW), _padding(options), depth_multiplier=outputs // channels,
        dilation_rate=(options.dilationHFactor, options.dilationWFactor), **_shared(o, 2),
    )  # fmt: skip
    kernel = KEEPERS[o.op].to_keras(weight).reshape(height, width, channels, -1)
    return _weighted(o, layer, o.inputs[0], kernel, 2)


def _fully_connected(o: Operation) -> Any:
    from tf_keras import layers

    weight, value = o.constant(1), o.inputs[0]
    columns = weight.shape[1]
    if not o.options.keepNumDims and (len(value.shape) != 2 or value.shape[-1] != columns):
        value = layers.Reshape((columns,), name=f"{o.name}_flat")(value)
    layer = layers.Dense(len(weight), **_shared(o, 2))
    return _weighted(o, layer, value, KEEPERS[o.op].to_keras(weight), 2)


def _transposed(o: Operation) -> Any:
    from tf_keras import layers

    weight, options = o.constant(1), o.options
    layer = layers.Conv2DTranspose(
        len(weight), weight.shape[1:3], (options.strideH, options.strideW), _padding(options), **_shared(o, 3)
    )
    return _weighted(o, layer, o.inputs[2], KEEPERS[o.op].to_keras(weight), 3)


def _shared(o: Operation, at_bias: int) -> dict[str, Any]:
    """What every layer with weights is told."""
    fused = _FUSED[o.options.fusedActivationFunction]
    activation = _KERAS_ACTIVATION[fused] if fused in _KERAS_ACTIVATION else _unary(str(fused))
    return {"activation": activation, "use_bias": _bias(o, at_bias) is not None, "name": o.name}


def _bias(o: Operation, at_bias: int) -> Array | None:
    value: Array | None = o.inputs[at_bias] if len(o.inputs) > at_bias else None
    return value


def _weighted(o: Operation, layer: Any, value: Any, kernel: Array, at_bias: int) -> Any:
    applied, bias = layer(value), _bias(o, at_bias)
    layer.set_weights([kernel] if bias is None else [kernel, bias])
    return applied


def _padding(options: Any) -> str:
    return "same" if options.padding == _SAME else "valid"


# --- everything else ------------------------------------------------------------------------------------------------


def _lambda(name: str, function: Callable[..., Any], values: Sequence[Any]) -> Any:
    from tf_keras import layers

    return layers.Lambda(lambda x: function(*x) if isinstance(x, list) else function(x), name=name)(
        list(values) if len(values) > 1 else values[0]
    )


def _unary(op: str) -> Callable[[Any], Any]:
    """The function of an operator of one input and no options."""
    import tensorflow as tf

    functions: dict[str, Callable[[Any], Any]] = {
        "RELU": tf.nn.relu, "RELU6": tf.nn.relu6, "RELU_N1_TO_1": lambda x: tf.clip_by_value(x, -1.0, 1.0),
        "RELU_0_TO_1": lambda x: tf.clip_by_value(x, 0.0, 1.0), "TANH": tf.tanh, "LOGISTIC": tf.sigmoid,
        "HARD_SWISH": lambda x: x * tf.nn.relu6(x + 3.0) / 6.0, "ELU": tf.nn.elu, "EXP": tf.exp, "LOG": tf.math.log,
        "ABS": tf.abs, "NEG": tf.negative, "SQRT": tf.sqrt, "RSQRT": tf.math.rsqrt, "SQUARE": tf.square,
        "LOG_SOFTMAX": tf.nn.log_softmax, "L2_NORMALIZATION": lambda x: tf.nn.l2_normalize(x, -1),
    }  # fmt: skip
    return functions[op]


def _of_one(o: Operation) -> Any:
    return _lambda(o.name, _unary(o.op), [o.inputs[0]])


def _relu(o: Operation) -> Any:
    from tf_keras import layers

    return layers.ReLU(6.0 if o.op == "RELU6" else None, name=o.name)(o.inputs[0])


def _softmax(o: Operation) -> Any:
    from tf_keras import layers

    beta = o.options.beta
    scaled = o.inputs[0] if beta == 1 else _lambda(f"{o.name}_beta", lambda x: beta * x, [o.inputs[0]])
    return layers.Softmax(name=o.name)(scaled)


def _gelu(o: Operation) -> Any:
    import tensorflow as tf

    approximate = bool(o.options is not None and o.options.approximate)
    return _lambda(o.name, lambda x: tf.nn.gelu(x, approximate), [o.inputs[0]])


def _leaky_relu(o: Operation) -> Any:
    import tensorflow as tf

    alpha = o.options.alpha
    return _lambda(o.name, lambda x: tf.nn.leaky_relu(x, alpha), [o.inputs[0]])


def _prelu(o: Operation) -> Any:
    import tensorflow as tf

    alpha = o.constant(1)
    return _lambda(o.name, lambda x: tf.maximum(x, 0.0) + alpha * tf.minimum(x, 0.0), [o.inputs[0]])


def _of_two(o: Operation) -> Any:
    import tensorflow as tf
    from tf_keras import layers

    functions = {
        "ADD": tf.add, "SUB": tf.subtract, "MUL": tf.multiply, "DIV": tf.divide, "MAXIMUM": tf.maximum,
        "MINIMUM": tf.minimum, "SQUARED_DIFFERENCE": tf.math.squared_difference, "POW": tf.pow,
    }  # fmt: skip
    first, second = o.inputs
    if o.op == "ADD" and len(o.computed) == 2 and tuple(first.shape) == tuple(second.shape):
        return layers.Add(name=o.name)([first, second])  # Keras's own, which tfmot knows
    return _with_constants(o, functions[o.op])


def _with_constants(o: Operation, function: Callable[[Any, Any], Any]) -> Any:
    """A function of two inputs of which one may be a constant."""
    first, second = o.inputs
    if isinstance(first, np.ndarray):
        return _lambda(o.name, lambda x: function(first, x), [second])
    if isinstance(second, np.ndarray):
        return _lambda(o.name, lambda x: function(x, second), [first])
    if first is second:
        return _lambda(o.name, lambda x: function(x, x), [first])
    return _lambda(o.name, function, [first, second])


def _batch_matmul(o: Operation) -> Any:
    import tensorflow as tf

    turned = {"adjoint_a": bool(o.options.adjX), "adjoint_b": bool(o.options.adjY)}
    return _with_constants(o, lambda a, b: tf.matmul(a, b, **turned))


def _concatenation(o: Operation) -> Any:
    import tensorflow as tf

    axis, slots = o.options.axis, o.inputs

    def join(*computed: Any) -> Any:
        rest = iter(computed)
        batch = tf.shape(computed[0])[0]
        return tf.concat([_repeated(s, batch) if isinstance(s, np.ndarray) else next(rest) for s in slots], axis)

    return _lambda(o.name, join, o.computed)


def _repeated(constant: Array, batch: Any) -> Any:
    import tensorflow as tf

    return tf.repeat(constant, batch, axis=0) if len(constant) == 1 else constant


def _pad(o: Operation) -> Any:
    import tensorflow as tf

    widths = o.constant(1)
    if o.op == "MIRROR_PAD":
        mode = ("REFLECT", "SYMMETRIC")[o.options.mode]
        return _lambda(o.name, lambda x: tf.pad(x, widths, mode), [o.inputs[0]])
    value = float(o.constant(2)) if len(o.inputs) > 2 else 0.0
    return _lambda(o.name, lambda x: tf.pad(x, widths, constant_values=value), [o.inputs[0]])


def _pool(o: Operation) -> Any:
    from tf_keras import layers

    options = o.options
    kind = layers.MaxPooling2D if o.op == "MAX_POOL_2D" else layers.AveragePooling2D
    size, strides = (options.filterHeight, options.filterWidth), (options.strideH, options.strideW)
    return kind(size, strides, _padding(options), name=o.name)(o.inputs[0])


def _reduced(o: Operation) -> Any:
    import tensorflow as tf
    from tf_keras import layers

    axes, keep = sorted(int(a) for a in np.atleast_1d(o.constant(1))), bool(o.options.keepDims)
    if o.op == "MEAN" and axes == [1, 2] and len(o.inputs[0].shape) == 4:
        return layers.GlobalAveragePooling2D(keepdims=keep, name=o.name)(o.inputs[0])
    functions = {"MEAN": tf.reduce_mean, "SUM": tf.reduce_sum, "REDUCE_MAX": tf.reduce_max}
    return _lambda(o.name, lambda x: functions[o.op](x, axes, keep), [o.inputs[0]])


def _resize(o: Operation) -> Any:
    import tensorflow as tf

    kind = tf.raw_ops.ResizeBilinear if o.op == "RESIZE_BILINEAR" else tf.raw_ops.ResizeNearestNeighbor
    corners, centres, size = bool(o.options.alignCorners), bool(o.options.halfPixelCenters), o.constant(1)
    return _lambda(
        o.name, lambda x: kind(images=x, size=size, align_corners=corners, half_pixel_centers=centres), [o.inputs[0]]
    )


def _reshaped(o: Operation) -> Any:
    """RESHAPE and its kin: to the shape in the file, the batch left open."""
    import tensorflow as tf

    target = (-1, *o.shapes[0][1:])
    return _lambda(o.name, lambda x: tf.reshape(x, target), [o.inputs[0]])


def _transpose(o: Operation) -> Any:
    import tensorflow as tf

    order = o.constant(1)
    return _lambda(o.name, lambda x: tf.transpose(x, order), [o.inputs[0]])


def _split(o: Operation) -> list[Any]:
    import tensorflow as tf

    at_axis, value = (0, o.inputs[1]) if o.op == "SPLIT" else (2, o.inputs[0])
    axis = int(o.constant(at_axis))
    sizes = [shape[axis] for shape in o.shapes]
    parts = _lambda(o.name, lambda x: tf.split(x, sizes, axis), [value])
    return list(parts)


def _slice(o: Operation) -> Any:
    begin = o.constant(1)
    sizes = o.shapes[0]
    cut = (slice(None), *(slice(int(b), int(b) + n) for b, n in zip(begin[1:], sizes[1:], strict=True)))
    return _lambda(o.name, lambda x: x[cut], [o.inputs[0]])


def _strided_slice(o: Operation) -> Any:
    import tensorflow as tf

    begin, end, strides, options = o.constant(1), o.constant(2), o.constant(3), o.options
    # The batch is taken whole, whatever bounds the file has for its one sample.
    begin_mask, end_mask = int(options.beginMask) | 1, int(options.endMask) | 1
    return _lambda(
        o.name,
        lambda x: tf.strided_slice(
            x, begin, end, strides, begin_mask, end_mask, int(options.ellipsisMask), int(options.newAxisMask),
            int(options.shrinkAxisMask),
        ),
        [o.inputs[0]],
    )  # fmt: skip


def _gather(o: Operation) -> Any:
    import tensorflow as tf

    axis = int(o.options.axis)
    return _with_constants(o, lambda x, at: tf.gather(x, at, axis=axis))


_LAYERS: dict[str, Callable[[Operation], Any]] = {
    "CONV_2D": _convolution, "DEPTHWISE_CONV_2D": _depthwise, "FULLY_CONNECTED": _fully_connected,
    "TRANSPOSE_CONV": _transposed,
}  # fmt: skip
_ONE = ("RELU_N1_TO_1", "RELU_0_TO_1", "TANH", "LOGISTIC", "HARD_SWISH", "ELU", "EXP", "LOG", "ABS", "NEG", "SQRT",
        "RSQRT", "SQUARE", "LOG_SOFTMAX", "L2_NORMALIZATION")  # fmt: skip
_TWO = ("ADD", "SUB", "MUL", "DIV", "MAXIMUM", "MINIMUM", "SQUARED_DIFFERENCE", "POW")
_FREE: dict[str, Callable[[Operation], Any]] = {
    **dict.fromkeys(_ONE, _of_one), **dict.fromkeys(_TWO, _of_two), "RELU": _relu, "RELU6": _relu,
    "SOFTMAX": _softmax, "GELU": _gelu, "LEAKY_RELU": _leaky_relu, "PRELU": _prelu, "BATCH_MATMUL": _batch_matmul,
    "CONCATENATION": _concatenation, "PAD": _pad, "PADV2": _pad, "MIRROR_PAD": _pad, "MAX_POOL_2D": _pool,
    "AVERAGE_POOL_2D": _pool, "MEAN": _reduced, "SUM": _reduced, "REDUCE_MAX": _reduced, "RESIZE_BILINEAR": _resize,
    "RESIZE_NEAREST_NEIGHBOR": _resize, "RESHAPE": _reshaped, "SQUEEZE": _reshaped, "EXPAND_DIMS": _reshaped,
    "TRANSPOSE": _transpose, "SPLIT": _split, "SPLIT_V": _split, "SLICE": _slice, "STRIDED_SLICE": _strided_slice,
    "GATHER": _gather,
}  # fmt: skip
# Places among the inputs that must be constants. The shapes that RESHAPE and TRANSPOSE_CONV are told are those of their
# outputs in the file, so they may be computed.
_CONSTANT_INPUTS = {
    "CONV_2D": (1, 2), "DEPTHWISE_CONV_2D": (1, 2), "FULLY_CONNECTED": (1, 2), "TRANSPOSE_CONV": (1, 3), "PRELU": (1,),
    "PAD": (1,), "PADV2": (1, 2), "MIRROR_PAD": (1,), "MEAN": (1,), "SUM": (1,), "REDUCE_MAX": (1,),
    "RESIZE_BILINEAR": (1,), "RESIZE_NEAREST_NEIGHBOR": (1,), "TRANSPOSE": (1,), "SPLIT": (0,), "SPLIT_V": (1, 2),
    "SLICE": (1, 2), "STRIDED_SLICE": (1, 2, 3),
}  # fmt: skip
