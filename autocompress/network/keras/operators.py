"""The operators of a flatbuffer in TensorFlow: one function each, on Keras tensors.

TFLite's semantics are TensorFlow's, but for names and the order of weights; what differs is said where it does. The
first axis is the batch: in the file it counts one sample, here any number."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from autocompress.network.keras.layers import FUSED, LAYERS, Array, Operation, activated, lambda_layer, padding, unary
from autocompress.network.tflite.graph import INPUTS, Graph, Operator

Made = Mapping[int, Any]


def apply(graph: Graph, operator: Operator, name: str, made: Made) -> list[Any]:
    """The Keras tensors of an operator's outputs, from those `made` before."""
    inputs = tuple(made[i] if i in made else graph.constant(i) for i in operator.inputs)
    operation = Operation(
        op=operator.op,
        name=name,
        options=operator.options,
        inputs=inputs,
        shapes=tuple(graph.tensors[i].shape for i in operator.outputs),
    )
    value = (LAYERS.get(operation.op) or _FREE[operation.op])(operation)
    values = list(value) if isinstance(value, list | tuple) else [value]
    fused = FUSED[int(getattr(operation.options, "fusedActivationFunction", 0) or 0)]
    if fused is None or operation.op in LAYERS:
        return values
    return [activated(f"{name}_activation", fused, values[0])]


def uncovered(graph: Graph, operator: Operator) -> str | None:
    """Why an operator cannot be made; None where it can."""
    op, at = operator.op, operator.inputs
    if op not in LAYERS and op not in _FREE:
        return op
    if int(getattr(operator.options, "fusedActivationFunction", 0) or 0) not in FUSED:
        return f"{op} with SIGN_BIT"
    for position in _CONSTANT_INPUTS.get(op, ()):
        if position < len(at) and at[position] >= 0 and graph.constant(at[position]) is None:
            return f"{op} whose input {position} is computed"
    if _along_batch(graph, operator):
        return f"{op} along the batch"
    return _uncovered_layer(graph, operator) if op in LAYERS else None


def _along_batch(graph: Graph, operator: Operator) -> bool:
    """Whether an operator works on the first axis, which holds one sample in the file and many here."""
    op, at, options = operator.op, operator.inputs, operator.options
    rank = len(graph.tensors[at[0]].shape)

    def integers(position: int) -> list[int]:
        return graph.integers(at[position]) or []

    if op == "CONCATENATION":
        return bool(options.axis % rank == 0)
    if op == "GATHER":
        return _gathers_batch(graph, at, options)
    if op in ("MEAN", "SUM", "REDUCE_MAX"):
        return any(axis % rank == 0 for axis in integers(1))
    if op in ("PAD", "PADV2", "MIRROR_PAD"):
        return any(integers(1)[:2])
    if op == "TRANSPOSE":
        return integers(1)[0] != 0
    if op == "STRIDED_SLICE":
        return bool((options.shrinkAxisMask | options.newAxisMask) & 1 or integers(3)[0] != 1)
    at_axis, x = {"SPLIT": (0, 1), "SPLIT_V": (2, 0)}.get(op, (None, 0))
    return at_axis is not None and integers(at_axis)[0] % len(graph.tensors[at[x]].shape) == 0


def _gathers_batch(graph: Graph, at: Sequence[int], options: Any) -> bool:
    """GATHER keeps the batch in front where rows of a table are taken, or a later axis of what is computed."""
    computed = [graph.constant(index) is None for index in at[:2]]
    if options.batchDims or all(computed):
        return True
    axis = options.axis % len(graph.tensors[at[0]].shape)
    return bool(axis == 0) if computed[0] else bool(axis != 0)


def _uncovered_layer(graph: Graph, operator: Operator) -> str | None:
    tensors, op, options = graph.tensors, operator.op, operator.options
    at_input, at_weight, _ = INPUTS[op]
    shape = tensors[operator.inputs[at_weight]].shape
    channels = tensors[operator.inputs[at_input]].shape[-1]
    if op == "CONV_2D" and shape[3] != channels:
        return "CONV_2D in groups"
    if op == "DEPTHWISE_CONV_2D" and options.strideH != options.strideW:
        return "DEPTHWISE_CONV_2D with two strides"
    dilated = getattr(options, "dilationHFactor", 1) * getattr(options, "dilationWFactor", 1) > 1
    if dilated and options.strideH * options.strideW > 1:
        return f"{op} with strides and dilation"
    return None


def _of_one(o: Operation) -> Any:
    return lambda_layer(o.name, unary(o.op), [o.inputs[0]])


def _relu(o: Operation) -> Any:
    from tf_keras import layers

    return layers.ReLU(6.0 if o.op == "RELU6" else None, name=o.name)(o.inputs[0])


def _softmax(o: Operation) -> Any:
    from tf_keras import layers

    beta = o.options.beta
    scaled = o.inputs[0] if beta == 1 else lambda_layer(f"{o.name}_beta", lambda x: beta * x, [o.inputs[0]])
    return layers.Softmax(name=o.name)(scaled)


def _gelu(o: Operation) -> Any:
    import tensorflow as tf

    approximate = bool(o.options is not None and o.options.approximate)
    return lambda_layer(o.name, lambda x: tf.nn.gelu(x, approximate), [o.inputs[0]])


def _leaky_relu(o: Operation) -> Any:
    import tensorflow as tf

    alpha = o.options.alpha
    return lambda_layer(o.name, lambda x: tf.nn.leaky_relu(x, alpha), [o.inputs[0]])


def _prelu(o: Operation) -> Any:
    import tensorflow as tf

    alpha = o.constant(1)
    return lambda_layer(o.name, lambda x: tf.maximum(x, 0.0) + alpha * tf.minimum(x, 0.0), [o.inputs[0]])


def _of_two(o: Operation) -> Any:
    import tensorflow as tf
    from tf_keras import layers

    functions = {
        "ADD": tf.add,
        "SUB": tf.subtract,
        "MUL": tf.multiply,
        "DIV": tf.divide,
        "MAXIMUM": tf.maximum,
        "MINIMUM": tf.minimum,
        "SQUARED_DIFFERENCE": tf.math.squared_difference,
        "POW": tf.pow,
    }
    first, second = o.inputs
    if o.op == "ADD" and len(o.computed) == 2 and tuple(first.shape) == tuple(second.shape):
        return layers.Add(name=o.name)([first, second])  # Keras's own, which tfmot knows
    return _with_constants(o, functions[o.op])


def _with_constants(o: Operation, function: Callable[[Any, Any], Any]) -> Any:
    """A function of two inputs of which one may be a constant."""
    first, second = o.inputs
    if isinstance(first, np.ndarray):
        return lambda_layer(o.name, lambda x: function(first, x), [second])
    if isinstance(second, np.ndarray):
        return lambda_layer(o.name, lambda x: function(x, second), [first])
    if first is second:
        return lambda_layer(o.name, lambda x: function(x, x), [first])
    return lambda_layer(o.name, function, [first, second])


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

    return lambda_layer(o.name, join, o.computed)


def _repeated(constant: Array, batch: Any) -> Any:
    import tensorflow as tf

    return tf.repeat(constant, batch, axis=0) if len(constant) == 1 else constant


def _pad(o: Operation) -> Any:
    import tensorflow as tf

    widths = o.constant(1)
    if o.op == "MIRROR_PAD":
        mode = ("REFLECT", "SYMMETRIC")[o.options.mode]
        return lambda_layer(o.name, lambda x: tf.pad(x, widths, mode), [o.inputs[0]])
    value = float(o.constant(2)) if len(o.inputs) > 2 else 0.0
    return lambda_layer(o.name, lambda x: tf.pad(x, widths, constant_values=value), [o.inputs[0]])


def _pool(o: Operation) -> Any:
    from tf_keras import layers

    options = o.options
    kind = layers.MaxPooling2D if o.op == "MAX_POOL_2D" else layers.AveragePooling2D
    size, strides = (options.filterHeight, options.filterWidth), (options.strideH, options.strideW)
    return kind(size, strides, padding(options), name=o.name)(o.inputs[0])


def _reduced(o: Operation) -> Any:
    import tensorflow as tf
    from tf_keras import layers

    axes, keep = sorted(int(a) for a in np.atleast_1d(o.constant(1))), bool(o.options.keepDims)
    if o.op == "MEAN" and axes == [1, 2] and len(o.inputs[0].shape) == 4:
        return layers.GlobalAveragePooling2D(keepdims=keep, name=o.name)(o.inputs[0])
    functions = {"MEAN": tf.reduce_mean, "SUM": tf.reduce_sum, "REDUCE_MAX": tf.reduce_max}
    return lambda_layer(o.name, lambda x: functions[o.op](x, axes, keep), [o.inputs[0]])


def _resize(o: Operation) -> Any:
    import tensorflow as tf

    kind = tf.raw_ops.ResizeBilinear if o.op == "RESIZE_BILINEAR" else tf.raw_ops.ResizeNearestNeighbor
    corners, centres, size = bool(o.options.alignCorners), bool(o.options.halfPixelCenters), o.constant(1)
    return lambda_layer(
        o.name, lambda x: kind(images=x, size=size, align_corners=corners, half_pixel_centers=centres), [o.inputs[0]]
    )


def _reshaped(o: Operation) -> Any:
    """RESHAPE and its kin: to the shape in the file, the batch left open."""
    import tensorflow as tf

    target = (-1, *o.shapes[0][1:])
    return lambda_layer(o.name, lambda x: tf.reshape(x, target), [o.inputs[0]])


def _transpose(o: Operation) -> Any:
    import tensorflow as tf

    order = o.constant(1)
    return lambda_layer(o.name, lambda x: tf.transpose(x, order), [o.inputs[0]])


def _split(o: Operation) -> list[Any]:
    import tensorflow as tf

    at_axis, value = (0, o.inputs[1]) if o.op == "SPLIT" else (2, o.inputs[0])
    axis = int(o.constant(at_axis))
    sizes = [shape[axis] for shape in o.shapes]
    parts = lambda_layer(o.name, lambda x: tf.split(x, sizes, axis), [value])
    return list(parts)


def _slice(o: Operation) -> Any:
    begin = o.constant(1)
    sizes = o.shapes[0]
    cut = (slice(None), *(slice(int(b), int(b) + n) for b, n in zip(begin[1:], sizes[1:], strict=True)))
    return lambda_layer(o.name, lambda x: x[cut], [o.inputs[0]])


def _strided_slice(o: Operation) -> Any:
    import tensorflow as tf

    begin, end, strides, options = o.constant(1), o.constant(2), o.constant(3), o.options
    # The batch is taken whole, whatever bounds the file has for its one sample.
    begin_mask, end_mask = int(options.beginMask) | 1, int(options.endMask) | 1
    return lambda_layer(
        o.name,
        lambda x: tf.strided_slice(
            x,
            begin,
            end,
            strides,
            begin_mask,
            end_mask,
            int(options.ellipsisMask),
            int(options.newAxisMask),
            int(options.shrinkAxisMask),
        ),
        [o.inputs[0]],
    )


def _gather(o: Operation) -> Any:
    import tensorflow as tf

    axis = int(o.options.axis)
    return _with_constants(o, lambda x, at: tf.gather(x, at, axis=axis))


_ONE = (
    "RELU_N1_TO_1",
    "RELU_0_TO_1",
    "TANH",
    "LOGISTIC",
    "HARD_SWISH",
    "ELU",
    "EXP",
    "LOG",
    "ABS",
    "NEG",
    "SQRT",
    "RSQRT",
    "SQUARE",
    "LOG_SOFTMAX",
    "L2_NORMALIZATION",
)
_TWO = ("ADD", "SUB", "MUL", "DIV", "MAXIMUM", "MINIMUM", "SQUARED_DIFFERENCE", "POW")
_FREE: dict[str, Callable[[Operation], Any]] = {
    **dict.fromkeys(_ONE, _of_one),
    **dict.fromkeys(_TWO, _of_two),
    "RELU": _relu,
    "RELU6": _relu,
    "SOFTMAX": _softmax,
    "GELU": _gelu,
    "LEAKY_RELU": _leaky_relu,
    "PRELU": _prelu,
    "BATCH_MATMUL": _batch_matmul,
    "CONCATENATION": _concatenation,
    "PAD": _pad,
    "PADV2": _pad,
    "MIRROR_PAD": _pad,
    "MAX_POOL_2D": _pool,
    "AVERAGE_POOL_2D": _pool,
    "MEAN": _reduced,
    "SUM": _reduced,
    "REDUCE_MAX": _reduced,
    "RESIZE_BILINEAR": _resize,
    "RESIZE_NEAREST_NEIGHBOR": _resize,
    "RESHAPE": _reshaped,
    "SQUEEZE": _reshaped,
    "EXPAND_DIMS": _reshaped,
    "TRANSPOSE": _transpose,
    "SPLIT": _split,
    "SPLIT_V": _split,
    "SLICE": _slice,
    "STRIDED_SLICE": _strided_slice,
    "GATHER": _gather,
}
# Places among the inputs that must be constants. The shapes that RESHAPE and TRANSPOSE_CONV are told are those of their
# outputs in the file, so they may be computed.
_CONSTANT_INPUTS = {
    "CONV_2D": (1, 2),
    "DEPTHWISE_CONV_2D": (1, 2),
    "FULLY_CONNECTED": (1, 2),
    "TRANSPOSE_CONV": (1, 3),
    "PRELU": (1,),
    "PAD": (1,),
    "PADV2": (1, 2),
    "MIRROR_PAD": (1,),
    "MEAN": (1,),
    "SUM": (1,),
    "REDUCE_MAX": (1,),
    "RESIZE_BILINEAR": (1,),
    "RESIZE_NEAREST_NEIGHBOR": (1,),
    "TRANSPOSE": (1,),
    "SPLIT": (0,),
    "SPLIT_V": (1, 2),
    "SLICE": (1, 2),
    "STRIDED_SLICE": (1, 2, 3),
}
