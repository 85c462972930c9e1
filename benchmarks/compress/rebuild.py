"""A float `.tflite` as a trainable `tf_keras` model, for what works on Keras 2 models only (tfmot).

Knows the operators of ResNet-8. Layers are called `operator_N`, N the operator's place in the flatbuffer."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from autocompress.network.graph.layers import Layer
from autocompress.network.tflite import flatbuffer

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before the first import of TensorFlow

Array = np.ndarray[Any, Any]
_ACTIVATION = {0: None, 1: "relu", 3: "relu6"}  # ActivationFunctionType of the schema
_SAME_PADDING = 0


def to_keras(tree: Any) -> Any:
    """The main graph of a float network as a `tf_keras.Model` with its weights."""
    import tf_keras

    graph = tree.subgraphs[0]
    at_input = int(graph.inputs[0])
    made = {at_input: tf_keras.Input(tuple(int(n) for n in graph.tensors[at_input].shape[1:]))}
    start = made[at_input]
    for position, operator in enumerate(graph.operators):
        made[int(operator.outputs[0])] = _output(tree, position, operator, made)
    return tf_keras.Model(start, made[int(graph.outputs[0])])


def _output(tree: Any, position: int, operator: Any, made: dict[int, Any]) -> Any:
    """The Keras tensor of one operator's output."""
    from tf_keras import layers

    op, name, options = flatbuffer.op_name(tree, operator), f"operator_{position}", operator.builtinOptions
    inputs = [int(i) for i in operator.inputs]
    if op in ("CONV_2D", "FULLY_CONNECTED"):
        return _weighted(tree, op, name, options, inputs, made)
    if op == "ADD":
        added = layers.Add(name=name)([made[i] for i in inputs])
        activation = _ACTIVATION[options.fusedActivationFunction]
        return added if activation is None else layers.Activation(activation, name=f"{name}_act")(added)
    if op == "MEAN":
        return layers.GlobalAveragePooling2D(name=name)(made[inputs[0]])
    if op == "SOFTMAX":
        return layers.Softmax(name=name)(made[inputs[0]])
    raise NotImplementedError(f"operator {op}: only those of ResNet-8 are known here")


def _weighted(tree: Any, op: str, name: str, options: Any, inputs: list[int], made: dict[int, Any]) -> Any:
    """A convolution or fully connected layer, applied, with its weights."""
    from tf_keras import layers

    weight, bias = flatbuffer.constant(tree, inputs[1]), flatbuffer.constant(tree, inputs[2])
    assert weight is not None
    activation = _ACTIVATION[options.fusedActivationFunction]
    if op == "CONV_2D":
        padding = "same" if options.padding == _SAME_PADDING else "valid"
        strides, kernel = (options.strideH, options.strideW), weight.shape[1:3]
        layer = layers.Conv2D(len(weight), kernel, strides, padding, activation=activation, name=name)
    else:
        layer = layers.Dense(len(weight), activation=activation, name=name)
    applied = layer(made[inputs[0]])
    layer.set_weights([_to_keras_order(weight), bias])
    return applied


def _to_keras_order(weight: Array) -> Array:
    return weight.transpose(1, 2, 3, 0) if weight.ndim == 4 else weight.T


def weights_of(network: Any, layers: Sequence[Layer]) -> list[tuple[Array, Array]]:
    """Weight (in the flatbuffer's order) and bias of each layer of a model that `to_keras` made."""
    found = []
    for layer in layers:
        kernel, bias = network.get_layer(f"operator_{layer.operator}").get_weights()
        found.append((kernel.transpose(3, 0, 1, 2) if kernel.ndim == 4 else kernel.T, bias))
    return found
