"""The operators of a flatbuffer that have weights, as layers of Keras, and what every operator is made from."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
_SAME = 0  # Padding of the schema
# ActivationFunctionType of the schema
FUSED = {0: None, 1: "RELU", 2: "RELU_N1_TO_1", 3: "RELU6", 4: "TANH"}
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


def _convolution(o: Operation) -> Any:
    from tf_keras import layers

    weight, options = o.constant(1), o.options
    layer = layers.Conv2D(
        len(weight),
        weight.shape[1:3],
        (options.strideH, options.strideW),
        padding(options),
        dilation_rate=(options.dilationHFactor, options.dilationWFactor),
        **_shared(o, 2),
    )
    return _weighted(o, layer, o.inputs[0], KEEPERS[o.op].to_keras(weight), 2)


def _depthwise(o: Operation) -> Any:
    from tf_keras import layers

    weight, options = o.constant(1), o.options
    _, height, width, outputs = weight.shape
    channels = int(o.inputs[0].shape[-1])
    layer = layers.DepthwiseConv2D(
        (height, width),
        (options.strideH, options.strideW),
        padding(options),
        depth_multiplier=outputs // channels,
        dilation_rate=(options.dilationHFactor, options.dilationWFactor),
        **_shared(o, 2),
    )
    kernel = KEEPERS[o.op].to_keras(weight).reshape(height, width, channels, -1)
    return _weighted(o, layer, o.inputs[0], kernel, 2)


def _fully_connected(o: Operation) -> Any:
    from tf_keras import layers

    weight, value = o.constant(1), o.inputs[0]
    columns = weight.shape[1]
    if not o.options.keepNumDims and (len(value.shape) != 2 or value.shape[-1] != columns):
        value = _rows(o, value, columns)
    layer = layers.Dense(len(weight), **_shared(o, 2))
    return _weighted(o, layer, value, KEEPERS[o.op].to_keras(weight), 2)


def _rows(o: Operation, value: Any, columns: int) -> Any:
    """Rows of so many columns: a sample may make several."""
    import tensorflow as tf
    from tf_keras import layers

    if math.prod(value.shape[1:]) == columns:
        return layers.Reshape((columns,), name=f"{o.name}_flat")(value)
    return lambda_layer(f"{o.name}_rows", lambda x: tf.reshape(x, (-1, columns)), [value])


def _transposed(o: Operation) -> Any:
    from tf_keras import layers

    weight, options, value = o.constant(1), o.options, o.inputs[2]
    kernel, strides = weight.shape[1:3], (options.strideH, options.strideW)
    layer = layers.Conv2DTranspose(
        len(weight),
        kernel,
        strides,
        padding(options),
        output_padding=_output_padding(o.shapes[0][1:3], value.shape[1:3], kernel, strides, padding(options)),
        **_shared(o, 3),
    )
    return _weighted(o, layer, value, KEEPERS[o.op].to_keras(weight), 3)


def _output_padding(
    wanted: Sequence[int], sides: Sequence[int], kernel: Sequence[int], strides: Sequence[int], kind: str
) -> tuple[int, ...] | None:
    """What Keras must be told where the file's output has not the sides that Keras takes for granted; None where it
    has, or where no padding leads there."""
    plain = [
        n * s if kind == "same" else (n - 1) * s + max(k, s) for n, s, k in zip(sides, strides, kernel, strict=True)
    ]
    if list(wanted) == plain:
        return None
    cut = [k // 2 if kind == "same" else 0 for k in kernel]
    left = tuple(
        w - ((n - 1) * s + k - 2 * c) for w, n, s, k, c in zip(wanted, sides, strides, kernel, cut, strict=True)
    )
    return left if all(0 <= n < s for n, s in zip(left, strides, strict=True)) else None


def _shared(o: Operation, at_bias: int) -> dict[str, Any]:
    """What every layer with weights is told."""
    fused = FUSED[o.options.fusedActivationFunction]
    activation = _KERAS_ACTIVATION[fused] if fused in _KERAS_ACTIVATION else unary(str(fused))
    return {"activation": activation, "use_bias": _bias(o, at_bias) is not None, "name": o.name}


def _bias(o: Operation, at_bias: int) -> Array | None:
    value: Array | None = o.inputs[at_bias] if len(o.inputs) > at_bias else None
    return value


def _weighted(o: Operation, layer: Any, value: Any, kernel: Array, at_bias: int) -> Any:
    applied, bias = layer(value), _bias(o, at_bias)
    layer.set_weights([kernel] if bias is None else [kernel, bias])
    return applied


def padding(options: Any) -> str:
    return "same" if options.padding == _SAME else "valid"


def lambda_layer(name: str, function: Callable[..., Any], values: Sequence[Any]) -> Any:
    from tf_keras import layers

    return layers.Lambda(lambda x: function(*x) if isinstance(x, list) else function(x), name=name)(
        list(values) if len(values) > 1 else values[0]
    )


def activated(name: str, fused: str, value: Any) -> Any:
    """A fused activation, by Keras's own layer where it has one: tfmot cannot copy a lambda."""
    from tf_keras import layers

    known = _KERAS_ACTIVATION.get(fused)
    return lambda_layer(name, unary(fused), [value]) if known is None else layers.Activation(known, name=name)(value)


def unary(op: str) -> Callable[[Any], Any]:
    """The function of an operator of one input and no options."""
    import tensorflow as tf

    functions: dict[str, Callable[[Any], Any]] = {
        "RELU": tf.nn.relu,
        "RELU6": tf.nn.relu6,
        "RELU_N1_TO_1": lambda x: tf.clip_by_value(x, -1.0, 1.0),
        "RELU_0_TO_1": lambda x: tf.clip_by_value(x, 0.0, 1.0),
        "TANH": tf.tanh,
        "LOGISTIC": tf.sigmoid,
        "HARD_SWISH": lambda x: x * tf.nn.relu6(x + 3.0) / 6.0,
        "ELU": tf.nn.elu,
        "EXP": tf.exp,
        "LOG": tf.math.log,
        "ABS": tf.abs,
        "NEG": tf.negative,
        "SQRT": tf.sqrt,
        "RSQRT": tf.math.rsqrt,
        "SQUARE": tf.square,
        "LOG_SOFTMAX": tf.nn.log_softmax,
        "L2_NORMALIZATION": lambda x: tf.nn.l2_normalize(x, -1),
    }
    return functions[op]


LAYERS: dict[str, Callable[[Operation], Any]] = {
    "CONV_2D": _convolution,
    "DEPTHWISE_CONV_2D": _depthwise,
    "FULLY_CONNECTED": _fully_connected,
    "TRANSPOSE_CONV": _transposed,
}
