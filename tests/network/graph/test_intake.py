"""From a file to what the solver sees: intake keeps what a network computes and refuses what is none, and the
columns, weights and walk that stand for a layer are what the interpreter computes."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from autocompress.compression.template import make_template, quantize_plainly
from autocompress.errors import AutocompressError, CandidateError
from autocompress.network.graph import trace
from autocompress.network.graph.layers import Layer, layers_of
from autocompress.network.graph.segments import Segments
from autocompress.network.tflite import flatbuffer
from autocompress.network.tflite.batching import proven_batch
from autocompress.network.tflite.graph import graph_of, read_graph
from autocompress.network.tflite.interpreter import Runner, interpreter
from tests.builders import networks
from tests.builders.arrays import Array
from tests.builders.optional import present

NETWORKS = sorted(networks.BUILDERS)
SAMPLES = 16
Activation = schema.ActivationFunctionType
RELUS: dict[int, Callable[[Array], Array]] = {
    Activation.NONE: lambda values: values,
    Activation.RELU: lambda values: np.maximum(values, 0),
    Activation.RELU6: lambda values: np.clip(values, 0, 6),
}


@cache
def original(name: str) -> bytes:
    return networks.load(name).network


@cache
def normalised(name: str) -> bytes:
    return flatbuffer.normalise(original(name))


def inputs_of(name: str, samples: int = SAMPLES) -> dict[str, Array]:
    """The first validation inputs, by input name."""
    data = networks.load(name).data
    given = {key.partition(".")[2]: a[:samples] for key, a in data.items() if key.startswith("x_validation")}
    (first, *_) = Runner(normalised(name)).inputs
    return {key or first.name: values for key, values in given.items()}


# --- normalising ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
def test_normalised_networks_compute_the_same(name: str) -> None:
    x = inputs_of(name)
    np.testing.assert_array_equal(Runner(normalised(name)).run(x), Runner(original(name)).run(x))


@pytest.mark.parametrize("name", NETWORKS)
def test_normalised_networks_have_one_form(name: str) -> None:
    tree = flatbuffer.read(normalised(name))
    assert all(code.builtinCode >= code.deprecatedBuiltinCode for code in tree.operatorCodes)
    assert any(code.builtinCode > 0 for code in tree.operatorCodes)
    tensors = [tensor for graph in tree.subgraphs for tensor in graph.tensors]
    assert len({tensor.name for tensor in tensors}) == len(tensors)
    for graph in tree.subgraphs:
        read = {int(i) for op in graph.operators for i in op.inputs if i >= 0}
        assert not any(graph.tensors[i].type == schema.TensorType.FLOAT16 for i in read)
    uses = [
        graph.tensors[int(i)].buffer
        for graph in tree.subgraphs
        for op in graph.operators
        for i in op.inputs
        if i >= 0 and tree.buffers[graph.tensors[int(i)].buffer].data is not None
    ]
    assert len(set(uses)) == len(uses)  # whoever is written to changes no other
    assert flatbuffer.normalise(normalised(name)) == normalised(name)


def test_old_operator_codes_and_float16_are_what_the_foreign_files_have() -> None:
    codes = flatbuffer.read(original("foreign-old-codes")).operatorCodes
    assert all(code.builtinCode == 0 for code in codes)
    tensors = flatbuffer.read(original("foreign-float16")).subgraphs[0].tensors
    assert any(tensor.type == schema.TensorType.FLOAT16 for tensor in tensors)


def test_shared_weights_and_names_are_told_apart() -> None:
    """Two layers on one weight tensor, all tensors of one name, some of them none and no UTF-8."""
    rng = np.random.default_rng(0)
    W, b = rng.normal(size=(4, 4)).astype(np.float32), np.zeros(4, np.float32)
    model = tree_of([(1, 4), W, b, (1, 4), (1, 4)], [dense(0, 1, 2, 3), dense(3, 1, 2, 4)], [0], [4])
    for index, tensor in enumerate(model.subgraphs[0].tensors):
        tensor.name = [b"x", b"x", None, b"caf\xe9", b"x"][index]
    packed = flatbuffer.write(model)
    tree = flatbuffer.read(flatbuffer.normalise(packed))
    first, second = layers_of(graph_of(tree))
    assert first.weight != second.weight
    flatbuffer.set_constant(tree, second.weight, np.zeros((4, 4), np.float32))
    np.testing.assert_array_equal(present(flatbuffer.constant(tree, first.weight)), W)
    x = {Runner(flatbuffer.write(tree)).inputs[0].name: rng.normal(size=(3, 4)).astype(np.float32)}
    assert not Runner(flatbuffer.write(tree)).run(x).any()
    expected = (next(iter(x.values())) @ W.T) @ W.T
    np.testing.assert_allclose(Runner(flatbuffer.normalise(packed)).run(x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("activations", ["float32", "int8"])
def test_a_file_without_a_signature_is_quantized_and_leaves_without_one(activations: str) -> None:
    tree = flatbuffer.read(original("ds-cnn"))
    tree.signatureDefs = None
    unsigned = flatbuffer.write(tree)
    model, x = flatbuffer.normalise(unsigned), inputs_of("ds-cnn")
    assert [spec.name for spec in Runner(model).inputs] == [spec.name for spec in Runner(unsigned).inputs]
    values, name, index = next(iter(x.values())), *next(iter(Runner(model).input_indices.items()))
    wanted = Runner(unsigned).run({name: values})
    np.testing.assert_array_equal(Runner(model).run({name: values}), wanted)
    layers, ranges = layers_of(read_graph(model)), trace.activation_ranges(model, {index: values}, SAMPLES, 1)
    built = make_template(model, layers, [8] * len(layers), activations, ranges).patch.snapshot()
    # What 8 bits do to single outputs of a network trained on the spot differs between processors.
    gap = np.abs(Runner(built).run({name: values}) - wanted)
    assert gap.max() < (0.2 if activations == "int8" else 0.1)
    assert gap.mean() < 0.02
    assert not flatbuffer.read(built).signatureDefs


def test_a_scalar_without_a_shape_is_read() -> None:
    tree = tree_of([(1, 4), np.float32(2.0), (1, 4)], [operator("MUL", [0, 1], [2], schema.MulOptionsT())], [0], [2])
    tree.subgraphs[0].tensors[1].shape = None
    model = flatbuffer.normalise(flatbuffer.write(tree))
    x = {Runner(model).inputs[0].name: np.ones((2, 4), np.float32)}
    np.testing.assert_array_equal(Runner(model).run(x), np.full((2, 4), 2, np.float32))


# --- refusing -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["dynamic", "static", "weights only"])
def test_quantized_networks_are_refused(kind: str) -> None:
    model = normalised("ds-cnn")
    with pytest.raises(AutocompressError, match=r"already quantized \(tensor '.+'\)"):
        flatbuffer.normalise(quantized(model, kind))


def quantized(model: bytes, kind: str) -> bytes:
    layers = layers_of(read_graph(model))
    if kind == "dynamic":
        return make_template(model, layers, [8] * len(layers), "float32", None).patch.snapshot()
    if kind == "static":
        at = Runner(model).input_indices
        inputs = {at[name]: values for name, values in inputs_of("ds-cnn").items()}
        return quantize_plainly(model, layers, trace.activation_ranges(model, inputs, SAMPLES, 1))
    from ai_edge_quantizer import quantizer, recipe

    made = quantizer.Quantizer(bytearray(model), recipe.weight_only_wi8_afp32())
    return bytes(made.quantize(enable_progress_report=False).quantized_model)


FUZZED = ("shuttle", "two-inputs", "foreign-float16", "recurrent-loop")
many = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.mark.parametrize("name", FUZZED)
@many
@given(share=st.floats(0, 1, exclude_max=True))
@example(share=0.0)
@example(share=0.9999)
def test_cut_off_files_are_refused(name: str, share: float) -> None:
    whole = original(name)
    with pytest.raises(AutocompressError):
        flatbuffer.normalise(whole[: int(share * len(whole))])


def test_files_that_lack_their_last_bytes_are_refused() -> None:
    for name in NETWORKS:
        for whole in (original(name), normalised(name)):
            with pytest.raises(AutocompressError, match="truncated or damaged"):
                flatbuffer.normalise(whole[:-1])


@pytest.mark.parametrize("name", FUZZED)
@many
@given(data=st.data())
def test_damaged_files_are_refused_or_read(name: str, data: st.DataObject) -> None:
    """Never another exception. (The Python side only: no runtime is asked to load what is read.)"""
    damaged = bytearray(original(name))
    places = st.integers(0, len(damaged) - 1)
    for at, value in data.draw(st.dictionaries(places, st.integers(0, 255), min_size=1, max_size=12)).items():
        damaged[at] = value
    with contextlib.suppress(AutocompressError):
        layers_of(read_graph(flatbuffer.normalise(bytes(damaged))))


@given(noise=st.binary(max_size=200))
def test_noise_is_refused(noise: bytes) -> None:
    for content in (noise, b"\x1c\0\0\0TFL3" + noise):
        with pytest.raises(AutocompressError):
            flatbuffer.normalise(content)


# --- layers as matrices ---------------------------------------------------------------------------


def everything(model: bytes, x: Mapping[int, Array]) -> Any:
    """An interpreter that has run all samples of `x` at once and lets every tensor be read."""
    made = interpreter(model, 1, {i: values.shape for i, values in x.items()}, keep_all=True)
    for i, values in x.items():
        made.set_tensor(i, values)
    made.invoke()
    return made


def check_products(tree: Any, layer: Layer, inputs: Array, outputs: Array) -> None:
    """`columns_of(layer) @ W^T + b`, activated, are the layer's outputs at the chosen positions."""
    weight = flatbuffer.constant(tree, layer.weight)
    assert weight is not None
    matrix = trace.to_matrix(layer, weight)
    np.testing.assert_array_equal(trace.from_matrix(layer, matrix), weight)
    limit = 400
    patches = trace.choose_patches(layer, len(inputs), limit, seed=3)
    columns = trace.columns_of(layer, inputs, patches)
    products = np.matmul(columns, matrix.transpose(0, 2, 1))  # (G, N, R)
    if trace.blocks_of(layer)[0] > 1:
        products = products.sum(axis=0, keepdims=True)
    flat = products.transpose(1, 0, 2).reshape(products.shape[1], -1)
    if layer.bias is not None:
        flat = flat + flatbuffer.constant(tree, layer.bias)
    options = tree.subgraphs[0].operators[layer.operator].builtinOptions
    activated = RELUS[options.fusedActivationFunction](flat)
    np.testing.assert_allclose(activated, chosen(layer, patches, outputs), rtol=1e-4, atol=1e-4 * np.abs(outputs).max())


def chosen(layer: Layer, patches: trace.Patches | None, outputs: Array) -> Array:
    """The outputs (positions, channels) at the positions that `choose_patches` draws."""
    rows = outputs.reshape(-1, layer.outputs)
    if patches is None:
        return rows
    height, width = layer.output_shape[1:3]
    total = len(outputs) * height * width
    drawn = np.random.default_rng(3).choice(total, min(total, 400), replace=False, shuffle=False)
    return rows[np.sort(drawn)]


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "recurrent-loop"])
def test_every_layer_is_its_columns_times_its_weights(name: str) -> None:
    model = normalised(name)
    tree, runner = flatbuffer.read(model), Runner(model)
    samples = proven_batch(model, inputs_of(name), 8).size
    at = runner.input_indices
    made = everything(model, {at[key]: values[:samples] for key, values in inputs_of(name).items()})
    for layer in layers_of(graph_of(tree)):
        check_products(tree, layer, made.get_tensor(layer.input), made.get_tensor(layer.output))


@pytest.mark.parametrize("name", NETWORKS)
def test_the_walk_through_the_segments_meets_the_whole_network(name: str) -> None:
    model = normalised(name)
    tree, runner = flatbuffer.read(model), Runner(model)
    layers, chunk = layers_of(graph_of(tree)), proven_batch(model, inputs_of(name), 8).size
    at = runner.input_indices
    x = {at[key]: values for key, values in inputs_of(name).items()}
    inputs = whole_network(model, layers, x, chunk)
    for samples in (SAMPLES, 8):
        walk = Segments(tree, layers, x, chunk, 1).head(samples)
        state: Mapping[int, Array] = walk.start
        for position, layer in enumerate(layers):
            expected = inputs[layer.input][:samples]
            np.testing.assert_allclose(state[layer.input], expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
            if position + 1 < len(layers):
                weight, bias = flatbuffer.constant(tree, layer.weight), None
                if layer.bias is not None:
                    bias = flatbuffer.constant(tree, layer.bias)
                assert weight is not None
                state = walk.after(position, state, weight, bias)


def whole_network(model: bytes, layers: tuple[Layer, ...], x: Mapping[int, Array], chunk: int) -> dict[int, Array]:
    """The inputs of all layers, chunk after chunk through the network in one piece."""
    seen: dict[int, list[Array]] = {layer.input: [] for layer in layers}
    for start in range(0, SAMPLES, chunk):
        made = everything(model, {i: values[start : start + chunk] for i, values in x.items()})
        for index, parts in seen.items():
            parts.append(made.get_tensor(index))
    return {index: np.concatenate(parts) for index, parts in seen.items()}


def test_a_changed_layer_changes_the_walk_behind_it_as_in_the_network() -> None:
    model = normalised("two-inputs")
    tree = flatbuffer.read(model)
    layers, at = layers_of(graph_of(tree)), Runner(model).input_indices
    x = {at[key]: values for key, values in inputs_of("two-inputs").items()}
    walk = Segments(tree, layers, x, 8, 1)
    weight, bias = flatbuffer.constant(tree, layers[0].weight), flatbuffer.constant(tree, layers[0].bias or 0)
    assert weight is not None
    assert bias is not None
    state = walk.after(0, walk.start, weight * 0.5, bias + 1)
    flatbuffer.set_constant(tree, layers[0].weight, weight * np.float32(0.5))
    flatbuffer.set_constant(tree, layers[0].bias or 0, bias + np.float32(1))
    made = everything(flatbuffer.write(tree), x)
    np.testing.assert_allclose(state[layers[1].input], made.get_tensor(layers[1].input), rtol=1e-5, atol=1e-5)


# --- one layer of any geometry --------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, kw_only=True)
class Conv:
    """A convolution to be built: `groups` of `channels` inputs and `outputs` outputs each."""

    op: str
    size: tuple[int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    same: bool
    groups: int
    channels: int
    outputs: int
    activation: int
    bias: bool

    @property
    def output_size(self) -> tuple[int, int]:
        reach = [(k - 1) * d + 1 for k, d in zip(self.kernel, self.dilation, strict=True)]
        sides = zip(self.size, reach, self.stride, strict=True)
        if self.op == "TRANSPOSE_CONV":
            made = [n * s if self.same else (n - 1) * s + max(r, s) for n, r, s in sides]
        else:
            made = [-(-n // s) if self.same else (n - r) // s + 1 for n, r, s in sides]
        return made[0], made[1]


def pairs(most: int) -> st.SearchStrategy[tuple[int, int]]:
    return st.tuples(st.integers(1, most), st.integers(1, most))


@st.composite
def convs(draw: st.DrawFn) -> Conv:
    op = draw(st.sampled_from(["CONV_2D", "CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV"]))
    transposed = op == "TRANSPOSE_CONV"
    stride = draw(pairs(3))
    return Conv(
        op=op,
        size=draw(pairs(9)),
        kernel=draw(pairs(4)),
        stride=stride,
        # XNNPACK and the reference kernels agree that only one of stride and dilation is above one.
        dilation=(1, 1) if transposed or stride != (1, 1) else draw(pairs(3)),
        same=draw(st.booleans()),
        groups=draw(st.integers(1, 3)) if not transposed else 1,
        channels=1 if op == "DEPTHWISE_CONV_2D" else draw(st.integers(1, 3)),
        outputs=draw(st.integers(1, 3)),
        activation=Activation.NONE if transposed else draw(st.sampled_from(list(RELUS))),
        bias=draw(st.booleans()) if transposed else True,  # the runtime wants one elsewhere, or crashes
    )


def conv_tree(conv: Conv) -> Any:
    rng = np.random.default_rng(0)
    inputs, outputs = conv.groups * conv.channels, conv.groups * conv.outputs
    shape = (outputs, *conv.kernel, conv.channels)
    if conv.op == "DEPTHWISE_CONV_2D":
        shape = (1, *conv.kernel, outputs)
    W = rng.normal(size=shape).astype(np.float32)
    b = rng.normal(size=outputs).astype(np.float32)
    x, y = (1, *conv.size, inputs), (1, *conv.output_size, outputs)
    if conv.op == "TRANSPOSE_CONV":  # output shape, weight, input, bias
        at = [4, 1, 0, 2] if conv.bias else [4, 1, 0]
        target = np.array((3, *y[1:]), np.int32)  # the batch that the test runs
        return tree_of([x, W, b, y, target], [operator(conv.op, at, [3], options_of(conv))], [0], [3])
    return tree_of([x, W, b, y], [operator(conv.op, [0, 1, 2], [3], options_of(conv))], [0], [3])


def options_of(conv: Conv) -> Any:
    kinds = {
        "CONV_2D": schema.Conv2DOptionsT,
        "DEPTHWISE_CONV_2D": schema.DepthwiseConv2DOptionsT,
        "TRANSPOSE_CONV": schema.TransposeConvOptionsT,
    }
    options = kinds[conv.op]()
    options.padding = schema.Padding.SAME if conv.same else schema.Padding.VALID
    options.strideH, options.strideW = conv.stride
    if conv.op != "TRANSPOSE_CONV":
        options.dilationHFactor, options.dilationWFactor = conv.dilation
    if conv.op == "DEPTHWISE_CONV_2D":
        options.depthMultiplier = conv.outputs
    options.fusedActivationFunction = conv.activation
    return options


@settings(max_examples=200, deadline=None)
@given(conv=convs())
def test_a_convolution_of_any_geometry_is_its_columns_times_its_weights(conv: Conv) -> None:
    assume(min(conv.output_size) >= 1)
    model = flatbuffer.normalise(flatbuffer.write(conv_tree(conv)))
    tree = flatbuffer.read(model)
    (layer,) = layers_of(graph_of(tree))
    x = np.random.default_rng(1).normal(size=(3, *layer.input_shape[1:])).astype(np.float32)
    made = everything(model, {layer.input: x})
    outputs = made.get_tensor(layer.output)
    assert outputs.shape == (3, *layer.output_shape[1:])
    check_products(tree, layer, x, outputs)
    assert trace.groups_of(layer) == conv.groups


def test_a_wide_layer_is_cut_into_column_blocks() -> None:
    W = np.random.default_rng(0).normal(size=(3, 2 * trace.MAX_COLUMNS + 5)).astype(np.float32)
    tree = tree_of([(1, W.shape[1]), W, np.ones(3, np.float32), (1, 3)], [dense(0, 1, 2, 3)], [0], [3])
    model = flatbuffer.normalise(flatbuffer.write(tree))
    (layer,) = layers_of(read_graph(model))
    blocks, padding = trace.blocks_of(layer)
    assert blocks == 3
    assert (W.shape[1] + padding) % blocks == 0
    x = np.random.default_rng(1).normal(size=(6, W.shape[1])).astype(np.float32)
    made = everything(model, {layer.input: x})
    check_products(flatbuffer.read(model), layer, x, made.get_tensor(layer.output))


# --- running --------------------------------------------------------------------------------------


def test_a_network_that_fixes_its_batch_is_run_at_it() -> None:
    """(4, 2, 3) reshaped to (4, 6) by a constant: neither 1 nor 64 samples fit."""
    rng = np.random.default_rng(0)
    W, b = rng.normal(size=(5, 6)).astype(np.float32), rng.normal(size=5).astype(np.float32)
    reshape = operator("RESHAPE", [0, 1], [2], schema.ReshapeOptionsT())
    parts: list[Any] = [(4, 2, 3), np.array([4, 6], np.int32), (4, 6), W, b, (4, 5)]
    model = flatbuffer.normalise(flatbuffer.write(tree_of(parts, [reshape, dense(2, 3, 4, 5)], [0], [5])))
    x = rng.normal(size=(11, 2, 3)).astype(np.float32)
    runner = Runner(model)
    np.testing.assert_allclose(runner.run({runner.inputs[0].name: x}), x.reshape(11, 6) @ W.T + b, rtol=1e-5, atol=1e-5)


def test_no_sample_depends_on_the_one_before() -> None:
    model = normalised("recurrent-fused")
    x = inputs_of("recurrent-fused")
    alone = [Runner(model).run({name: values[n : n + 1] for name, values in x.items()}) for n in range(SAMPLES)]
    np.testing.assert_array_equal(Runner(model).run(x), np.concatenate(alone))


def test_an_output_without_a_row_a_sample_is_no_candidate() -> None:
    mean = operator("MEAN", [0, 1], [2], schema.ReducerOptionsT())
    model = flatbuffer.write(tree_of([(2, 3), np.array([0, 1], np.int32), ()], [mean], [0], [2]))
    runner = Runner(model)
    with pytest.raises(CandidateError, match=r"shape \(\) for a batch of 2"):
        runner.run({runner.inputs[0].name: np.zeros((4, 3), np.float32)})


# --- files written by hand ------------------------------------------------------------------------


def tree_of(
    tensors: list[tuple[int, ...] | Array | np.generic],
    operators: list[tuple[str, Any]],
    inputs: list[int],
    outputs: list[int],
) -> Any:
    """A network of these tensors (a shape, or a constant's value) and operators."""
    tree, graph = schema.ModelT(), schema.SubGraphT()
    tree.version, tree.buffers, graph.tensors = 3, [schema.BufferT()], []
    for index, part in enumerate(tensors):
        graph.tensors.append(tensor_of(tree, index, part))
    names = list(dict.fromkeys(name for name, _ in operators))
    tree.operatorCodes = [code_of(name) for name in names]
    for name, op in operators:
        op.opcodeIndex = names.index(name)
    graph.operators = [op for _, op in operators]
    graph.inputs, graph.outputs = inputs, outputs
    tree.subgraphs = [graph]
    return tree


def tensor_of(tree: Any, index: int, part: tuple[int, ...] | Array | np.generic) -> Any:
    types = {"float32": schema.TensorType.FLOAT32, "int32": schema.TensorType.INT32}
    tensor, buffer = schema.TensorT(), schema.BufferT()
    tensor.name, tensor.type, tensor.buffer = f"t{index}".encode(), schema.TensorType.FLOAT32, 0
    if isinstance(part, tuple):
        tensor.shape = list(part)
        return tensor
    buffer.data = np.frombuffer(part.tobytes(), np.uint8)
    tensor.shape, tensor.type, tensor.buffer = list(part.shape), types[part.dtype.name], len(tree.buffers)
    tree.buffers.append(buffer)
    return tensor


def code_of(name: str) -> Any:
    code = schema.OperatorCodeT()
    code.builtinCode = getattr(schema.BuiltinOperator, name)
    code.deprecatedBuiltinCode = min(code.builtinCode, 127)
    code.version = 1
    return code


def operator(name: str, inputs: list[int], outputs: list[int], options: Any) -> tuple[str, Any]:
    made = schema.OperatorT()
    made.inputs, made.outputs = np.array(inputs, np.int32), np.array(outputs, np.int32)
    made.builtinOptions = options
    made.builtinOptionsType = getattr(schema.BuiltinOptions, type(options).__name__.removesuffix("T"))
    return name, made


def dense(x: int, weight: int, bias: int, y: int) -> tuple[str, Any]:
    return operator("FULLY_CONNECTED", [x, weight, bias], [y], schema.FullyConnectedOptionsT())
