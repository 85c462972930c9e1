"""The builder on a real network: what goes in comes out of the file, byte for byte, and nothing else passes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import pytest

from autocompress.compression.build import Builder, read_layers, verify
from autocompress.compression.reconstruct import Reconstruction, SolvedLayer
from autocompress.compression.template import make_template
from autocompress.devices import probe
from autocompress.errors import CandidateError
from autocompress.export import c_source
from autocompress.export.programs import verify as program
from autocompress.latency.model.operators import operators
from autocompress.network.graph import trace
from autocompress.network.graph.layers import Layer, layers_of
from autocompress.network.tflite import flatbuffer
from autocompress.network.tflite.graph import LAYER_OPS, read_graph
from autocompress.network.tflite.interpreter import Runner
from autocompress.network.tflite.short_floats import short
from autocompress.records.configuration import ACTIVATIONS, Configuration, LayerChoice
from autocompress.records.kernels import CONTAINERS
from autocompress.specs import device_schema
from autocompress.tasks import LoadedTask, load_task
from tests.builders.arrays import Array
from tests.builders.optional import present

DENSE, HALF = LayerChoice(), LayerChoice(bits=16, sparsity=0.3)
MIX = (
    DENSE,
    HALF,
    LayerChoice(bits=8, clusters=16),
    LayerChoice(bits=8, clusters=8, sparsity=0.5),
    LayerChoice(bits=3),
    LayerChoice(bits=32, sparsity=0.7),
    LayerChoice(bits=2, sparsity=0.25),
)


@pytest.fixture(scope="module")
def task() -> LoadedTask:
    return load_task("digits")


@pytest.fixture(scope="module")
def layers(task: LoadedTask) -> tuple[Layer, ...]:
    return layers_of(read_graph(task.network))


@pytest.fixture(scope="module")
def solver(task: LoadedTask, layers: tuple[Layer, ...]) -> Reconstruction:
    (index,) = Runner(task.network).input_indices.values()
    (inputs,) = task.x_calibration.values()
    tree = flatbuffer.read(task.network)
    return Reconstruction(tree, layers, {index: inputs[:128]}, chunk=64, threads=1)


@pytest.fixture(scope="module")
def ranges(task: LoadedTask) -> dict[str, tuple[float, float]]:
    (index,) = Runner(task.network).input_indices.values()
    (inputs,) = task.x_calibration.values()
    return trace.activation_ranges(task.network, {index: inputs[:128]}, 64, 1)


def container(op: str, bits: int, activations: str) -> int | None:
    return 32 if bits == 32 else 16 if bits == 16 else 8


def container_with_int4(op: str, bits: int, activations: str) -> int | None:
    return 4 if bits <= 4 and op != "DEPTHWISE_CONV_2D" else container(op, bits, activations)


def configuration(layers: tuple[Layer, ...], activations: str, choice: Callable[[int], LayerChoice]) -> Configuration:
    chosen = {layer.name: choice(n) for n, layer in enumerate(layers)}
    return Configuration(activations=activations, layers=chosen).normalised()


@pytest.mark.parametrize("activations", ACTIVATIONS)
@pytest.mark.parametrize("kind", ["all int8", "all 4 bit in int4", "all float16", "mixed", "mixed, other order"])
def test_file_is_what_the_configuration_says(
    task: LoadedTask,
    layers: tuple[Layer, ...],
    solver: Reconstruction,
    ranges: dict[str, tuple[float, float]],
    activations: str,
    kind: str,
) -> None:
    pick: dict[str, Callable[[int], LayerChoice]] = {
        "all int8": lambda n: LayerChoice(bits=8),
        "all 4 bit in int4": lambda n: LayerChoice(bits=4, sparsity=0.5),
        "all float16": lambda n: HALF,
        "mixed": lambda n: MIX[n % len(MIX)],
        "mixed, other order": lambda n: MIX[(3 * n + 2) % len(MIX)],
    }
    asked = configuration(layers, activations, pick[kind])
    room = container_with_int4 if "int4" in kind else container
    solved = solver.independent_all(asked)
    built = Builder(task.network, layers, room, lambda: ranges).build(asked, solved)
    for layer, stored in zip(layers, read_layers(built, layers), strict=True):
        choice = asked.layers[layer.name]
        assert (
            stored.container
            == {32: "FLOAT32", 16: "FLOAT16", 8: "INT8", 4: "INT4"}[room(layer.op, choice.bits, activations) or 0]
        )
        assert stored.zeros >= math.ceil(choice.sparsity * layer.weights)
        if choice.is_integer:
            assert stored.distinct <= (choice.clusters or 2**choice.bits - 1)
    assert program.layers_of(built) == [
        {
            "name": stored.name,
            "container": stored.container,
            "shape": list(stored.values.shape),
            "weights": stored.values.size,
            "zeros": stored.zeros,
            "levels": stored.distinct,
        }
        for stored in read_layers(built, layers)
    ]
    outputs = Runner(built).run({Runner(built).inputs[0].name: next(iter(task.x_validation.values()))[:50]})
    assert np.isfinite(outputs).all()
    assert outputs.dtype == np.float32


def test_baseline_computes_what_the_float_network_computes(
    task: LoadedTask, layers: tuple[Layer, ...], solver: Reconstruction
) -> None:
    asked = configuration(layers, "float32", lambda n: DENSE)
    built = Builder(task.network, layers, container, dict).build(asked, solver.sequential(asked))
    np.testing.assert_array_equal(Runner(built).run(task.x_test), Runner(task.network).run(task.x_test))
    assert len(built) < len(task.original)


def test_float_weights_pruned_equal_the_network_with_these_weights(
    task: LoadedTask, layers: tuple[Layer, ...], solver: Reconstruction
) -> None:
    asked = configuration(layers, "float32", lambda n: LayerChoice(sparsity=0.5))
    solved = solver.sequential(asked)
    built = Builder(task.network, layers, container, dict).build(asked, solved)
    tree = flatbuffer.read(task.network)
    for layer, values in zip(layers, solved, strict=True):
        flatbuffer.set_constant(tree, layer.weight, values.weight)
        if layer.bias is not None and values.bias is not None:
            flatbuffer.set_constant(tree, layer.bias, values.bias)
    np.testing.assert_allclose(
        Runner(built).run(task.x_test), Runner(flatbuffer.write(tree)).run(task.x_test), atol=1e-6
    )


def test_weight_only_computes_the_float_network_with_the_weights_that_are_stored(
    task: LoadedTask, layers: tuple[Layer, ...], solver: Reconstruction
) -> None:
    asked = configuration(layers, "weight_only", lambda n: LayerChoice(bits=(8, 4, 3)[n % 3], sparsity=(0, 0.5)[n % 2]))
    solved = solver.sequential(asked)
    built = Builder(task.network, layers, container, dict).build(asked, solved)
    tree = flatbuffer.read(task.network)
    for layer, stored, values in zip(layers, read_layers(built, layers), solved, strict=True):
        assert stored.container == "INT8"
        flatbuffer.set_constant(tree, layer.weight, stored.weights(layer).astype(np.float32))
        if layer.bias is not None and values.bias is not None:
            flatbuffer.set_constant(tree, layer.bias, short(values.bias, 8).astype(np.float32))
    np.testing.assert_allclose(
        Runner(built).run(task.x_test), Runner(flatbuffer.write(tree)).run(task.x_test), atol=1e-6
    )
    assert {operator.op for operator in operators(built)} == {operator.op for operator in operators(task.network)}
    assert c_source.mixed_layers(built) == len(layers)


@pytest.mark.parametrize("activations", ["float32", "int8"])
def test_layers_of_an_op_without_a_kernel_are_unpacked_when_the_file_is_loaded(
    task: LoadedTask,
    layers: tuple[Layer, ...],
    solver: Reconstruction,
    ranges: dict[str, tuple[float, float]],
    activations: str,
) -> None:
    asked = configuration(layers, activations, lambda n: LayerChoice(bits=8))
    solved = solver.independent_all(asked)
    builder = Builder(
        task.network, layers, container, lambda: ranges, unpacks=lambda op, bits, kind: op == "CONV_2D" and bits == 8
    )
    built = builder.build(asked, solved)
    assert {stored.container for stored in read_layers(built, layers)} == {"INT8"}
    kinds = {op.op: (op.first.kind, op.weight.kind) for op in operators(built) if op.is_layer}
    assert kinds["CONV_2D"] == ("FLOAT32", "FLOAT32")  # a DEQUANTIZE of a constant is no operator
    assert kinds["FULLY_CONNECTED"] == ("FLOAT32" if activations == "float32" else "INT8", "INT8")
    tree = flatbuffer.read(task.network)
    for layer, stored in zip(layers, read_layers(built, layers), strict=True):
        flatbuffer.set_constant(tree, layer.weight, stored.weights(layer).astype(np.float32))
    gap = Runner(built).run(task.x_test) - Runner(flatbuffer.write(tree)).run(task.x_test)
    assert np.abs(gap).mean() < 0.01
    pattern = builder.pattern((8,) * len(layers), activations)
    assert operators(pattern) == operators(built)  # what the latency model looks at


def test_static_int16_stays_close_to_the_float_network(
    task: LoadedTask, layers: tuple[Layer, ...], solver: Reconstruction, ranges: dict[str, tuple[float, float]]
) -> None:
    # 16-bit activations lose next to nothing, so what is left is the solver's 8-bit weights: scales, biases and zero
    # points of every operator must be right.
    asked = configuration(layers, "int16", lambda n: LayerChoice(bits=8))
    built = Builder(task.network, layers, container, lambda: ranges).build(asked, solver.independent_all(asked))
    gap = Runner(built).run(task.x_test) - Runner(task.network).run(task.x_test)
    assert np.abs(gap).mean() < 0.005


def test_signature_and_input_names_survive(
    task: LoadedTask, layers: tuple[Layer, ...], solver: Reconstruction, ranges: dict[str, tuple[float, float]]
) -> None:
    asked = configuration(layers, "int8", lambda n: LayerChoice(bits=8))
    built = Builder(task.network, layers, container, lambda: ranges).build(asked, solver.independent_all(asked))
    assert [(s.name, s.dtype) for s in Runner(built).inputs] == [(s.name, s.dtype) for s in Runner(task.network).inputs]
    tree = flatbuffer.read(built)
    assert {m.name for m in present(tree.metadata)} <= {b"min_runtime_version", b"TFLITE_METADATA"}


def test_buffers_are_aligned_to_16_bytes(task: LoadedTask, layers: tuple[Layer, ...], solver: Reconstruction) -> None:
    from ai_edge_litert.schema_py_generated import Model

    asked = configuration(layers, "float32", lambda n: LayerChoice(bits=8))
    built = bytearray(Builder(task.network, layers, container, dict).build(asked, solver.independent_all(asked)))
    start = np.frombuffer(built, np.uint8).ctypes.data
    root = Model.GetRootAs(built, 0)
    buffers = [root.Buffers(n) for n in range(root.BuffersLength())]
    offsets = [b.DataAsNumpy().ctypes.data - start for b in buffers if not b.DataIsNone()]
    assert len(offsets) > len(layers)
    assert all(offset % 16 == 0 for offset in offsets)


@pytest.mark.parametrize("damage", ["a changed weight", "too few zeros", "too many levels", "another container"])
def test_verification_finds_what_is_not_as_asked(
    task: LoadedTask, layers: tuple[Layer, ...], solver: Reconstruction, damage: str
) -> None:
    choice = LayerChoice(bits=8, sparsity=0.5, clusters=8)
    asked = configuration(layers, "float32", lambda n: choice)
    solved = solver.independent_all(asked)
    built = Builder(task.network, layers, container, dict).build(asked, solved)
    containers = [8] * len(layers)
    verify(built, layers, containers, asked, solved)
    if damage == "a changed weight":
        solved[1] = _with_levels(solved[1], lambda levels: np.where(levels == 0, levels, -levels))
    elif damage == "another container":
        containers[0] = 32
    else:
        changed = {
            "too few zeros": dataclasses.replace(choice, sparsity=0.99),
            "too many levels": dataclasses.replace(choice, clusters=3),
        }[damage]
        asked = configuration(layers, "float32", lambda n: changed)
    with pytest.raises(CandidateError, match="the built file breaks"):
        verify(built, layers, containers, asked, solved)


def _with_levels(layer: SolvedLayer, change: Callable[[Array], Array]) -> SolvedLayer:
    assert layer.levels is not None
    return dataclasses.replace(layer, levels=change(layer.levels))


def test_missing_kernel_is_a_failed_candidate(
    task: LoadedTask, layers: tuple[Layer, ...], solver: Reconstruction
) -> None:
    asked = configuration(layers, "float32", lambda n: LayerChoice(bits=8))
    builder = Builder(task.network, layers, lambda op, bits, activations: None, dict)
    with pytest.raises(CandidateError, match="no kernel for 8-bit"):
        builder.build(asked, solver.independent_all(asked))


@pytest.mark.parametrize("op", LAYER_OPS)
def test_a_profile_may_name_the_containers_that_the_builder_makes_and_no_others(op: str) -> None:
    """What a profile offers and nothing can build fails every trial of a search."""
    network = probe._network(op)
    found = layers_of(read_graph(network))
    inputs = {found[0].input: np.ones((1, *found[0].input_shape[1:]), np.float32)}
    seen = trace.activation_ranges(network, inputs, 1, 1)
    for bits in CONTAINERS:
        for activations in ACTIVATIONS if bits <= 8 else ("float32",):
            if bits >= device_schema.NARROWEST.get(op, 0):
                (slot,) = make_template(network, found, [bits], activations, seen).slots
                assert slot.weight_type == {32: "FLOAT32", 16: "FLOAT16", 8: "INT8", 4: "INT4"}[bits]
            else:
                with pytest.raises(CandidateError, match="cannot build this"):
                    make_template(network, found, [bits], activations, seen)
