"""Static int8 files that runtimes take: dead layers get a scale, tensors that are not finite none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from autocompress.cli import app
from autocompress.compression.build import Builder, read_layers
from autocompress.compression.output_scales import least_widths, widened
from autocompress.compression.reconstruct import Reconstruction, SolvedLayer
from autocompress.compression.template import Slot, make_template
from autocompress.network.graph import trace
from autocompress.network.graph.layers import layers_of
from autocompress.network.tflite import flatbuffer
from autocompress.network.tflite.builder import NetworkBuilder
from autocompress.network.tflite.graph import graph_of, read_graph
from autocompress.network.tflite.interpreter import Runner
from autocompress.records.configuration import Configuration, LayerChoice
from tests.builders.arrays import Array
from tests.builders.fixed_batch import samples
from tests.builders.optional import present


def network(kind: str) -> bytes:
    """A convolution that is dead (its ReLU lets nothing through), with something behind it."""
    net = NetworkBuilder((1, 8, 8, 4))
    live = net.convolution(net.input, 8)
    dead = net.convolution(live, 8)
    behind = {
        "mean": lambda: dead,
        "add": lambda: net.add(dead, live),
        "mul": lambda: net.multiply(dead, live),
        "pool": lambda: net.pool(dead, "MAX_POOL_2D", 2, 2),
        "conv": lambda: net.convolution(dead, 8),
        "depthwise": lambda: net.depthwise(net.pad(dead, 1, 1)),
    }
    tree = flatbuffer.read(net.finish(net.dense(net.mean(behind[kind]()), 5, relu=False)))
    flatbuffer.set_constant(tree, present(layers_of(graph_of(tree))[1].bias), np.full(8, -1e3, np.float32))
    return flatbuffer.normalise(flatbuffer.write(tree))


def ranges_of(model: bytes, x: Array) -> dict[str, tuple[float, float]]:
    (index,) = Runner(model).input_indices.values()
    return trace.activation_ranges(model, {index: x}, len(x), 1)


def run(model: bytes, x: Array) -> Array:
    runner = Runner(model)
    return runner.run({runner.inputs[0].name: x})


def eights(layers: Any, activations: str, bits: int = 8) -> Configuration:
    return Configuration(layers={layer.name: LayerChoice(bits=bits) for layer in layers}, activations=activations)


@pytest.mark.parametrize("bits", [8, 2])
@pytest.mark.parametrize("kind", ["mean", "add", "mul", "pool", "conv", "depthwise"])
def test_a_dead_layer_makes_no_file_that_the_runtime_refuses(kind: str, bits: int) -> None:
    model, x = network(kind), samples(32)
    tree = flatbuffer.read(model)
    layers, ranges = layers_of(graph_of(tree)), ranges_of(model, x)
    builder = Builder(model, layers, lambda *_: 8, lambda: ranges)
    (index,) = Runner(model).input_indices.values()
    solver = Reconstruction(tree, layers, {index: x}, chunk=32, threads=1)
    wanted, configuration = run(model, x), eights(layers, "int8", bits)
    found = run(builder.build(configuration, solver.sequential(configuration)), x)
    assert builder.widened == {"conv_2d_1"}
    assert np.abs(found - wanted).max() <= (0.02 if bits == 8 else 0.3) * np.abs(wanted).max()
    dynamic = eights(layers, "float32", bits)
    builder.build(dynamic, solver.sequential(dynamic))
    assert builder.widened == {"conv_2d_1"}  # nothing new: float activations have no scale


def test_live_layers_keep_the_scales_of_calibration() -> None:
    net = NetworkBuilder((1, 8, 8, 4))
    model = flatbuffer.normalise(net.finish(net.dense(net.mean(net.convolution(net.input, 8)), 5, relu=False)))
    x = samples(32)
    tree, ranges = flatbuffer.read(model), ranges_of(model, x)
    layers = layers_of(graph_of(tree))
    builder = Builder(model, layers, lambda *_: 8, lambda: ranges)
    (index,) = Runner(model).input_indices.values()
    configuration = eights(layers, "int8")
    solved = Reconstruction(tree, layers, {index: x}, chunk=32, threads=1).sequential(configuration)
    builder.build(configuration, solved)
    assert not builder.widened
    assert len(builder._templates) == 1
    assert widened(model, layers, ranges, {}) == ranges


@settings(max_examples=100, deadline=None)
@given(st.floats(1e-12, 1e3), st.floats(1e-12, 1e3), st.lists(st.floats(1e-12, 1e3), min_size=1, max_size=4))
def test_the_width_is_enough_and_no_more_than_needed(before: float, after: float, weights: list[float]) -> None:
    net = NetworkBuilder((1, 4))
    (layer,) = layers_of(read_graph(net.finish(net.dense(net.input, 4))))
    slot = Slot(weight=0, bias=None, weight_type="INT8", input_scale=before, output_scale=after)
    solved = SolvedLayer(weight=np.zeros(1), bias=None, scale=np.array(weights, np.float32))
    found = least_widths([layer], [slot], [solved])
    product = before * float(solved.scale.max()) if solved.scale is not None else 0.0
    assert bool(found) == (product / after >= 256)
    for width in found.values():
        assert 64 <= product / (width / 255) <= 128.01


def test_a_layer_whose_tensors_are_not_finite_runs_on_float_activations() -> None:
    """LOG of a ReLU is minus infinity; the layer behind the LOGISTIC of it is static, a layer told so is not."""
    net = NetworkBuilder((1, 8, 8, 4))
    h = net.convolution(net.input, 8)
    h = net.convolution(net.unary(net.unary(h, "LOG"), "LOGISTIC"), 8)
    model = flatbuffer.normalise(net.finish(net.dense(net.mean(h), 5, relu=False)))
    x = samples(32)
    layers, ranges = layers_of(read_graph(model)), ranges_of(model, x)
    assert [name for name in ranges if not trace.is_bounded(ranges, name)] == ["t4"]
    assert ranges["t4"][0] == -np.inf
    wanted = run(model, x)
    for endless in ({}, {layers[1].tensor_name: (0.0, np.nan)}):
        file = make_template(model, layers, [8] * 3, "int8", ranges | endless).patch.snapshot()
        assert [stored.container for stored in read_layers(file, layers)] == ["INT8"] * 3
        assert np.abs(run(file, x) - wanted).max() < 0.05 * np.abs(wanted).max()
        tree = flatbuffer.read(file)
        for operator in tree.subgraphs[0].operators:
            if flatbuffer.op_name(tree, operator) in ("LOG", "LOGISTIC"):
                tensor = tree.subgraphs[0].tensors[int(operator.outputs[0])]
                assert flatbuffer.type_name(tensor.type) == "FLOAT32"


def test_a_search_names_the_dead_layer_and_fails_no_trial(tmp_path: Path) -> None:
    (tmp_path / "net.tflite").write_bytes(network("conv"))
    np.savez(tmp_path / "data.npz", **{f"x_{split}": samples(80, n) for n, split in enumerate(("validation", "test"))})
    words = [
        "search",
        "--device",
        "rpi4",
        "--model",
        tmp_path / "net.tflite",
        "--data",
        tmp_path / "data.npz",
        "--metric",
        "fidelity",
        "--trials",
        6,
        "--runs",
        tmp_path / "runs",
        "--study",
        "s",
        "--json",
    ]
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["trials"]["failed"] == 0
    told = CliRunner().invoke(app, ["report", "s", "--runs", str(tmp_path / "runs")]).output
    assert "conv_2d_1: next to nothing comes out of it" in " ".join(told.split())


def test_no_number_is_seen_in_a_range() -> None:
    net = NetworkBuilder((1, 4))
    model = net.finish(net.unary(net.input, "SQRT"))
    x = np.array([[1, 4, 9, 16], [-1, 4, 9, 16]], np.float32)
    tensor = flatbuffer.read(model).subgraphs[0].outputs[0]
    for batch in (x, x[::-1]):  # whichever comes first
        low, high = trace.activation_ranges(model, {0: batch}, 1, 1)[f"t{tensor}"]
        assert np.isnan([low, high]).all()
