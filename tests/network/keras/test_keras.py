"""The way back from a float `.tflite` to a Keras model: equal outputs on whole networks and on every operator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from autocompress.errors import AutocompressError
from autocompress.network.graph.layers import layers_of
from autocompress.network.keras import model as keras_model
from autocompress.network.tflite import flatbuffer
from autocompress.network.tflite.builder import NetworkBuilder
from autocompress.network.tflite.graph import graph_of, read_graph
from autocompress.network.tflite.interpreter import Runner, interpreter
from autocompress.tasks import digits, fashion_mnist
from tests.builders import networks
from tests.builders.arrays import Array
from tests.builders.optional import present

NETWORKS = ("mobilenet-v2", "fer", "ds-cnn", "shuttle", "two-inputs", "foreign-float16", "digits", "fashion-mnist")
BUILT_IN = {"digits": digits.NETWORK, "fashion-mnist": fashion_mnist.NETWORK}


def network_of(name: str) -> bytes:
    path = BUILT_IN.get(name)
    return flatbuffer.normalise(networks.load(name).network if path is None else path.read_bytes())


def inputs_of(runner: Runner, samples: int = 8) -> dict[str, Array]:
    rng = np.random.default_rng(0)
    return {s.name: rng.uniform(0, 1, (samples, *s.shape[1:])).astype(s.dtype) for s in runner.inputs}


@pytest.mark.parametrize("name", NETWORKS)
def test_whole_networks_have_the_same_outputs(name: str) -> None:
    network = network_of(name)
    tree, runner = flatbuffer.read(network), Runner(network)
    x = inputs_of(runner)
    rebuilt = keras_model.to_keras(graph_of(tree))
    found = rebuilt([x[spec.name] for spec in runner.inputs]).numpy()
    np.testing.assert_allclose(found, runner.run(x), atol=1e-5)


def layers_of_every_kind() -> bytes:
    """All four kinds of layers, the transposed one with another number of channels than it reads."""
    net = NetworkBuilder((1, 6, 6, 3), seed=1)
    h = net.depthwise(net.convolution(net.input, 4), stride=2)
    h = net.upsample(h, 5, 3, 2)
    return net.finish(net.dense(net.mean(h), 7, relu=False))


@pytest.mark.parametrize("name", ["mobilenet-v2", "two-inputs", "every kind"])
def test_weights_go_back_by_layer(name: str) -> None:
    network = layers_of_every_kind() if name == "every kind" else network_of(name)
    layers = layers_of(read_graph(network))
    rebuilt = keras_model.to_keras(read_graph(network))
    for number, layer in enumerate(layers):
        variable = keras_model.kernel_of(rebuilt, layer)
        variable.assign(variable * (1 + number % 3 / 16))  # little: a deep network would magnify every rounding
    written = keras_model.with_weights(network, layers, keras_model.weights_of(rebuilt, layers))
    runner = Runner(written)
    x = inputs_of(runner)
    found = rebuilt([x[spec.name] for spec in runner.inputs]).numpy()
    np.testing.assert_allclose(found, runner.run(x), rtol=1e-4, atol=1e-4)
    assert not np.allclose(runner.run(x), Runner(network).run(x))
    for layer in layers:
        kernel = keras_model.kernel_of(rebuilt, layer).numpy()
        before = present(flatbuffer.constant(flatbuffer.read(written), layer.weight))
        np.testing.assert_array_equal(keras_model.from_keras_order(layer, kernel), before)
        assert keras_model.to_keras_order(layer.op, before).size == kernel.size


@pytest.mark.parametrize(
    ("name", "operator"),
    [("recurrent-loop", "WHILE, STRIDED_SLICE along the batch"), ("recurrent-fused", "UNIDIRECTIONAL_SEQUENCE_LSTM")],
)
def test_what_is_not_covered_is_named(name: str, operator: str) -> None:
    with pytest.raises(AutocompressError, match=f"no way back to Keras for {operator}; it is searched without"):
        keras_model.to_keras(read_graph(network_of(name)))


def functions() -> dict[str, Callable[[Any], Any]]:
    """A function of images (n, 8, 8, 4) for each operator that the whole networks above do not have."""
    import tensorflow as tf
    import tf_keras

    rng = np.random.default_rng(0)
    constant = rng.normal(size=(1, 8, 8, 4)).astype(np.float32)
    square = rng.normal(size=(4, 4)).astype(np.float32)
    slopes = tf_keras.layers.PReLU(shared_axes=[1, 2], alpha_initializer="random_uniform")
    slopes.build((None, 8, 8, 4))
    kernel = rng.normal(size=(3, 3, 4, 4)).astype(np.float32)
    wide = rng.normal(size=(3, 3, 4, 2)).astype(np.float32)
    transposed = rng.normal(size=(3, 3, 6, 4)).astype(np.float32)
    resize, pads = tf.compat.v1.image, [[0, 0], [1, 2], [0, 1], [0, 0]]
    return {
        "ADD": lambda x: tf.nn.relu(x + constant),
        "SUB": lambda x: constant - x,
        "MUL": lambda x: x * tf.tanh(x),
        "DIV": lambda x: x / (3.0 + tf.abs(x)),
        "MAXIMUM": lambda x: tf.maximum(x, constant),
        "MINIMUM": lambda x: tf.minimum(x, 0.3),
        "SQUARED_DIFFERENCE": lambda x: tf.math.squared_difference(x, constant),
        "CONCATENATION": lambda x: tf.concat([x, tf.exp(x)], 2),
        "PADV2": lambda x: tf.pad(x, pads, constant_values=2.0),
        "MIRROR_PAD": lambda x: tf.pad(x, pads, "REFLECT"),
        "AVERAGE_POOL_2D": lambda x: tf.nn.avg_pool(x, 3, 2, "SAME"),
        "MAX_POOL_2D": lambda x: tf.nn.max_pool(x, 2, 2, "VALID"),
        "MEAN": lambda x: tf.reduce_mean(x, [3], True),
        "SUM": lambda x: tf.reduce_sum(x, [1]),
        "REDUCE_MAX": lambda x: tf.reduce_max(x, [2]),
        "RELU_N1_TO_1": lambda x: tf.maximum(-1.0, tf.minimum(x, 1.0)),
        "RELU6": tf.nn.relu6,
        "TANH": tf.tanh,
        "LOGISTIC": tf.sigmoid,
        "ELU": tf.nn.elu,
        "EXP": tf.exp,
        "ABS": tf.abs,
        "NEG": tf.negative,
        "SQRT": lambda x: tf.sqrt(tf.abs(x)),
        "RSQRT": lambda x: tf.math.rsqrt(1.0 + tf.abs(x)),
        "SQUARE": tf.square,
        "LOG": lambda x: tf.math.log(1.0 + tf.abs(x)),
        "LOG_SOFTMAX": tf.nn.log_softmax,
        "SOFTMAX": lambda x: tf.nn.softmax(tf.reshape(x, (-1, 16, 16))),
        "GELU": lambda x: tf.nn.gelu(x, False),
        "LEAKY_RELU": lambda x: tf.nn.leaky_relu(x, 0.3),
        "HARD_SWISH": lambda x: x * tf.nn.relu6(x + 3.0) / 6.0,
        "PRELU": lambda x: slopes(2.0 * x - 1.0),
        "RESHAPE": lambda x: tf.reshape(x, (-1, 256)),
        "TRANSPOSE": lambda x: tf.transpose(x, (0, 3, 1, 2)),
        "SPLIT": lambda x: tf.split(x, 2, 3)[1] * 2.0,
        "SPLIT_V": lambda x: tf.split(x, [1, 5, 2], 1)[1] * 3.0,
        "SLICE": lambda x: tf.slice(x, (0, 2, 0, 1), (-1, 3, 8, 3)),
        "STRIDED_SLICE": lambda x: x[:, 1:7:2, 3, ::-1],
        "GATHER": lambda x: tf.gather(x, [3, 0, 0], axis=2),
        "BATCH_MATMUL": lambda x: tf.matmul(x, x, transpose_b=True),
        "EXPAND_DIMS": lambda x: tf.expand_dims(x, 1),
        "FULLY_CONNECTED": lambda x: tf.matmul(x, square),
        "RESIZE_BILINEAR": lambda x: resize.resize_bilinear(x, (5, 11), half_pixel_centers=True),
        "RESIZE_NEAREST_NEIGHBOR": lambda x: resize.resize_nearest_neighbor(x, (16, 12)),
        "RESIZE_BILINEAR, corners": lambda x: resize.resize_bilinear(x, (15, 3), align_corners=True),
        "CONV_2D": lambda x: tf.nn.conv2d(x, kernel, 1, "SAME", dilations=2),
        "CONV_2D, strides": lambda x: tf.nn.relu6(tf.nn.conv2d(x, kernel, (2, 1), "VALID")),
        "DEPTHWISE_CONV_2D": lambda x: tf.nn.depthwise_conv2d(x, wide, (1, 2, 2, 1), "SAME"),
        "TRANSPOSE_CONV": lambda x: tf.nn.conv2d_transpose(x, transposed, (tf.shape(x)[0], 16, 16, 6), 2),
        "TRANSPOSE_CONV, odd": lambda x: tf.nn.conv2d_transpose(x, transposed, (tf.shape(x)[0], 15, 16, 6), 2),
        "TRANSPOSE_CONV, whole": lambda x: tf.nn.conv2d_transpose(
            x, transposed, (tf.shape(x)[0], 17, 18, 6), 2, "VALID"
        ),
        "FULLY_CONNECTED, rows": lambda x: tf.reshape(tf.matmul(tf.reshape(x, (-1, 4)), square), (-1, 8, 8, 4)),
        "BATCH_MATMUL, constant": lambda x: tf.matmul(constant, x, transpose_a=True),
        "MIRROR_PAD, symmetric": lambda x: tf.pad(x, pads, "SYMMETRIC"),
        "MAX_POOL_2D, strides": lambda x: tf.nn.max_pool(x, (3, 2), (2, 3), "SAME"),
        "MEAN, image": lambda x: tf.reduce_mean(x, [1, 2]),
        "ADD, one number": lambda x: 0.7 + x,
        "DIV, of a constant": lambda x: constant / (2.0 + tf.abs(x)),
        "POW": lambda x: tf.pow(1.0 + tf.abs(x), 1.5),
        "L2_NORMALIZATION": lambda x: tf.nn.l2_normalize(x, -1),
    }


@pytest.fixture(scope="module")
def every_operator() -> bytes:
    """One network with an output for each of `functions`."""
    import tensorflow as tf

    module = tf.Module()
    module.functions = functions()
    made = tf.function(
        lambda x: {
            name: tf.identity(function(x), name.translate(str.maketrans(", ", "__")))
            for name, function in module.functions.items()
        },
        input_signature=[tf.TensorSpec((None, 8, 8, 4), tf.float32)],
    )
    module.call = made
    return bytes(tf.lite.TFLiteConverter.from_concrete_functions([made.get_concrete_function()], module).convert())


def test_every_operator_has_the_same_outputs(every_operator: bytes) -> None:
    tree = flatbuffer.read(flatbuffer.normalise(every_operator))
    graph = tree.subgraphs[0]
    rebuilt = keras_model.to_keras(graph_of(tree), outputs=list(graph.outputs))
    x = np.random.default_rng(1).normal(size=(3, 8, 8, 4)).astype(np.float32)
    run = interpreter(flatbuffer.write(tree), 1, {int(graph.inputs[0]): x.shape})
    run.set_tensor(int(graph.inputs[0]), x)
    run.invoke()
    found = rebuilt(x)
    assert len(found) == len(graph.outputs) == len(functions())
    for index, value in zip(graph.outputs, found, strict=True):
        expected = run.get_tensor(int(index))
        name = str(graph.tensors[index].name)
        np.testing.assert_allclose(value.numpy(), expected, atol=1e-5, rtol=1e-5, err_msg=name)
    present = {flatbuffer.op_name(tree, operator) for operator in graph.operators}
    wanted = {name.partition(",")[0] for name in functions()}
    assert sorted(wanted - present) == [], "the converter expresses these by other operators"


class Odd(NetworkBuilder):
    """Forms of operators that a converter of TensorFlow does not make, but others do."""

    def rows(self, x: int, units: int) -> int:
        """FULLY_CONNECTED on (1, n, columns) that makes (n, units)."""
        _, count, columns = self.shape(x)
        inputs = [x, *self._weights((units, columns), columns, units)]
        options = self._schema.FullyConnectedOptionsT()
        return self._op("FULLY_CONNECTED", inputs, (count, units), options, "FullyConnectedOptions")

    def beside_constant(self, x: int) -> int:
        """CONCATENATION with a constant of the same shape, a batch of one."""
        constant = self._constant(self._rng.standard_normal(self.shape(x), dtype=np.float32))
        return self.concatenate([x, constant])

    def gelu(self, x: int) -> int:
        """The approximate GELU."""
        options = self._schema.GeluOptionsT()
        options.approximate = True
        return self._op("GELU", [x], self.shape(x), options, "GeluOptions")

    def table(self, ids: int) -> int:
        """GATHER of rows of a constant table."""
        options, table = self._schema.GatherOptionsT(), self._constant(np.eye(6, 4, dtype=np.float32))
        self._graph.tensors[ids].type = self._schema.TensorType.INT32
        return self._op("GATHER", [table, ids], (*self.shape(ids), 4), options, "GatherOptions")


@pytest.mark.parametrize("form", ["rows", "constant", "gelu", "table"])
def test_forms_of_other_converters_have_the_same_outputs(form: str) -> None:
    net = Odd((1, 5) if form == "table" else (1, 4, 4, 3))
    made = {
        "rows": lambda: net.reshape(net.rows(net.reshape(net.input, (1, 16, 3)), 5), (1, 4, 4, 5)),
        "constant": lambda: net.beside_constant(net.convolution(net.input, 4)),
        "gelu": lambda: net.gelu(net.convolution(net.input, 4)),
        "table": lambda: net.dense(net.reshape(net.table(net.input), (1, 20)), 3),
    }[form]()
    model = net.finish(made)
    spec, rng = Runner(model).inputs[0], np.random.default_rng(0)
    x = rng.integers(0, 6, (7, *spec.shape[1:])).astype(spec.dtype)
    np.testing.assert_allclose(
        keras_model.to_keras(read_graph(model))(x).numpy(), Runner(model).run({spec.name: x}), atol=1e-5, rtol=1e-5
    )


BATCH: dict[str, Callable[[Any, Any], Any]] = {
    "CONCATENATION": lambda tf, x: tf.concat([x, 2.0 * x], 0),
    "MEAN": lambda tf, x: tf.reduce_mean(x, [0, 1]),
    "PAD": lambda tf, x: tf.pad(x, [[1, 0], [0, 0], [0, 0]]),
    "TRANSPOSE": lambda tf, x: tf.transpose(x, (2, 1, 0)),
    "GATHER": lambda tf, x: tf.gather(x, [0, 0], axis=0),
    "STRIDED_SLICE": lambda tf, x: x[0],
}


@pytest.mark.parametrize("op", BATCH)
def test_what_mixes_samples_is_named(op: str) -> None:
    """In the file the first axis holds one sample, in training many: what works along it would mix them."""
    import tensorflow as tf

    made = tf.function(lambda x: BATCH[op](tf, tf.tanh(x)), input_signature=[tf.TensorSpec((1, 4, 4), tf.float32)])
    module = tf.Module()
    module.call = made
    model = tf.lite.TFLiteConverter.from_concrete_functions([made.get_concrete_function()], module).convert()
    with pytest.raises(AutocompressError, match=f"no way back to Keras for {op} along the batch"):
        keras_model.to_keras(read_graph(flatbuffer.normalise(model)))


def test_an_output_without_samples_is_refused() -> None:
    net = Odd((1, 4, 4, 3))
    model = net.finish(net.reshape(net.convolution(net.input, 4), (16, 4)))
    with pytest.raises(AutocompressError, match=r"its output of shape \[16, 4\] has no axis of samples in front"):
        keras_model.to_keras(read_graph(model))


def test_all_that_is_not_covered_is_listed() -> None:
    import tensorflow as tf

    made = tf.function(
        lambda x: tf.math.cumsum(tf.reverse(x, [1]), 1), input_signature=[tf.TensorSpec((None, 8), tf.float32)]
    )
    module = tf.Module()
    module.call = made
    model = tf.lite.TFLiteConverter.from_concrete_functions([made.get_concrete_function()], module).convert()
    with pytest.raises(AutocompressError, match="no way back to Keras for REVERSE_V2, CUMSUM;"):
        keras_model.to_keras(read_graph(flatbuffer.normalise(model)))
