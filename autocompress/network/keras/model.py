"""A float `.tflite` as a trainable `tf_keras` functional model, operator for operator, and its weights back again.

Layers with weights are Keras's own, so that what works on Keras 2 models (tfmot) works on them; `operator_N` is
operator N of the flatbuffer. Batches may have any size; what a network does along its first axis is not covered."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from autocompress.errors import AutocompressError
from autocompress.network.graph.layers import Layer
from autocompress.network.keras import layers, operators
from autocompress.network.tflite import flatbuffer
from autocompress.network.tflite.graph import Graph, Operator, Tensor

# Before the first import of TensorFlow. Without oneDNN its kernels for x86 do without FMA: a training step costs twice.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

Array = np.ndarray[Any, Any]
Between = Callable[[int, Any], Any]  # (tensor of the flatbuffer, Keras tensor) -> what the network goes on with


def to_keras(graph: Graph, *, outputs: Sequence[int] | None = None, between: Between | None = None) -> Any:
    """The graph of a float network as a `tf_keras.Model` with its weights; inputs in the order of the file.

    `outputs`: tensors of the flatbuffer to end at instead of the file's first output. `between` is told every computed
    tensor and may put something behind it. AutocompressError with all operators that are not covered."""
    import tf_keras

    missing = [line for operator in graph.operators if (line := _uncovered(graph, operator)) is not None]
    if missing:  # all of them at once
        raise AutocompressError(
            f"the network cannot be trained here: no way back to Keras for {', '.join(dict.fromkeys(missing))}; "
            "it is searched without fine-tuning"
        )
    hook = between or (lambda _, value: value)
    ends = list(outputs if outputs is not None else graph.outputs[:1])
    _check_batch(graph, ends)
    starts = {i: _input(graph.tensors[i]) for i in graph.inputs}
    made = {i: hook(i, value) for i, value in starts.items()}
    for operator in graph.operators:
        if graph.fixed.issuperset(operator.outputs) or not _needed(graph, operator.position, ends):
            continue
        name = f"operator_{operator.position}"
        values = operators.apply(graph, operator, name, made)
        for index, value in zip(operator.outputs, values, strict=True):
            _check_shape(graph.tensors[index], value, name)
            made[index] = hook(index, value)
    return tf_keras.Model(list(starts.values()), [made[i] for i in ends] if len(ends) > 1 else made[ends[0]])


def _input(tensor: Tensor) -> Any:
    import tf_keras

    return tf_keras.Input(tensor.shape[1:], dtype=tensor.type.lower())


def _uncovered(graph: Graph, operator: Operator) -> str | None:
    """The operator's name, and why where that is not plain, if there is no Keras for it."""
    return None if graph.fixed.issuperset(operator.outputs) else operators.uncovered(graph, operator)


def _needed(graph: Graph, position: int, ends: Sequence[int]) -> bool:
    """Whether an operator's outputs lead anywhere: what follows the tensors of `ends` does not."""
    wanted = set(ends)
    for operator in reversed(graph.operators[position:]):
        if not wanted.isdisjoint(operator.outputs):
            if operator.position == position:
                return True
            wanted.update(operator.inputs)
    return False


def _check_batch(graph: Graph, ends: Sequence[int]) -> None:
    """Samples must still stand along the first axis at the end: each is compared with its own aim."""
    (first, *_) = (_first_side(graph.tensors[i]) for i in graph.inputs)
    for tensor in (graph.tensors[i] for i in ends):
        if _first_side(tensor) != first:
            raise AutocompressError(
                f"the network cannot be trained here: its output of shape {list(tensor.shape)} has no axis "
                "of samples in front; it is searched without fine-tuning"
            )


def _first_side(tensor: Tensor) -> int | None:
    return tensor.shape[0] if tensor.shape else None


def _check_shape(tensor: Tensor, value: Any, name: str) -> None:
    expected = tensor.shape[1:]
    if tuple(value.shape[1:]) != expected:
        raise AutocompressError(
            f"the network cannot be trained here: {name} gives {tuple(value.shape[1:])} a sample in Keras, "
            f"{expected} in the file"
        )


def kernel_of(network: Any, layer: Layer) -> Any:
    """The variable that holds the weight of `layer` in a model that `to_keras` made, in Keras's order."""
    found = network.get_layer(f"operator_{layer.operator}")
    return found.depthwise_kernel if layer.op == "DEPTHWISE_CONV_2D" else found.kernel


def bias_of(network: Any, layer: Layer) -> Any:
    """The variable that holds the bias of `layer`; None where it has none."""
    return network.get_layer(f"operator_{layer.operator}").bias if layer.bias is not None else None


def to_keras_order(op: str, weight: Array) -> Array:
    """A weight of the flatbuffer as the Keras layer holds it."""
    return layers.KEEPERS[op].to_keras(weight)


def from_keras_order(layer: Layer, kernel: Array) -> Array:
    """The inverse of `to_keras_order`."""
    return np.ascontiguousarray(layers.KEEPERS[layer.op].from_keras(kernel).reshape(layer.shape))


def weights_of(network: Any, layers: Sequence[Layer]) -> list[tuple[Array, Array | None]]:
    """Weight (in the flatbuffer's order) and bias of each layer of a model that `to_keras` made."""
    found = []
    for layer in layers:
        bias = bias_of(network, layer)
        weight = from_keras_order(layer, kernel_of(network, layer).numpy())
        found.append((weight, None if bias is None else bias.numpy()))
    return found


def with_weights(network: bytes, layers: Sequence[Layer], weights: Sequence[tuple[Array, Array | None]]) -> bytes:
    """The flatbuffer with these weights and biases, one pair a layer."""
    tree = copy.copy(flatbuffer.read(network))
    for layer, (weight, bias) in zip(layers, weights, strict=True):
        flatbuffer.set_constant(tree, layer.weight, weight.astype(np.float32))
        if layer.bias is not None and bias is not None:
            flatbuffer.set_constant(tree, layer.bias, bias.astype(np.float32))
    return flatbuffer.write(tree)
