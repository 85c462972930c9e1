"""Equal quantization vectors are stored once, and every runtime reads such a file as one that repeats them."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert.schema_py_generated import Model

from autocompress.compression.build import Builder
from autocompress.compression.reconstruct import Reconstruction
from autocompress.network.graph import trace
from autocompress.network.graph.layers import layers_of
from autocompress.network.tflite import flatbuffer
from autocompress.network.tflite.graph import read_graph
from autocompress.records.configuration import Configuration, LayerChoice
from autocompress.tasks import load_task
from tests.builders.arrays import Array
from tests.builders.optional import present
from tests.builders.runtimes import needs_tflite

TASK = load_task("digits")
LAYERS = layers_of(read_graph(TASK.network))
SAMPLES = next(iter(TASK.x_test.values()))[:20]
needs_tflm = pytest.mark.skipif(
    importlib.util.find_spec("tflite_micro") is None, reason="tflite-micro is not installed"
)


def built(activations: str, bits: int) -> bytes:
    """A candidate of digits."""
    (index,) = flatbuffer.read(TASK.network).subgraphs[0].inputs
    inputs = {int(index): next(iter(TASK.x_calibration.values()))[:64]}
    solver = Reconstruction(flatbuffer.read(TASK.network), LAYERS, inputs, chunk=64, threads=1)
    ranges = trace.activation_ranges(TASK.network, inputs, 64, 1)
    asked = Configuration(activations=activations, layers={layer.name: LayerChoice(bits=bits) for layer in LAYERS})
    builder = Builder(TASK.network, LAYERS, lambda op, bits, kind: 8, lambda: ranges)
    return builder.build(asked, solver.independent_all(asked))


def repeating(model: bytes) -> bytes:
    """The same file as the generated schema writes it, every vector for itself."""
    tree = flatbuffer.read(model)
    tree.buffers = [flatbuffer._aligned_buffer()(buffer.data) for buffer in tree.buffers]
    builder = flatbuffers.Builder(1 << 16)
    builder.Finish(tree.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


# In a process of its own: the runtimes bring libraries of the same names, which do not live side by side.
RUN = """
import sys, numpy as np
model, samples, outputs, name = sys.argv[1:]
x, found = np.load(samples), []
if name == "tflite_micro":
    from tflite_micro.python.tflite_micro import runtime
    run = runtime.Interpreter.from_file(model)
    for sample in x:
        run.set_input(sample[None], 0)
        run.invoke()
        found.append(run.get_output(0))
else:
    import importlib
    run = importlib.import_module(name + ".interpreter").Interpreter(model)
    run.allocate_tensors()
    for sample in x:
        run.set_tensor(run.get_input_details()[0]["index"], sample[None])
        run.invoke()
        found.append(run.get_tensor(run.get_output_details()[0]["index"]))
np.save(outputs, np.concatenate(found))
"""


def outputs_in(runtime: str, model: bytes, folder: Path) -> Array:
    """What a runtime computes of the samples."""
    (folder / "net.tflite").write_bytes(model)
    np.save(folder / "samples.npy", SAMPLES)
    names = [str(folder / name) for name in ("net.tflite", "samples.npy", "outputs.npy")]
    subprocess.run([sys.executable, "-c", RUN, *names, runtime], check=True, capture_output=True)
    found: Array = np.load(folder / "outputs.npy")
    return found


@pytest.mark.parametrize(("activations", "bits"), [("int8", 8), ("int8", 3), ("int16", 8), ("float32", 8)])
@pytest.mark.parametrize(
    "runtime",
    [
        "ai_edge_litert",
        pytest.param("tflite_runtime", marks=needs_tflite),
        pytest.param("tflite_micro", marks=needs_tflm),
    ],
)
def test_every_runtime_gives_the_same(tmp_path: Path, activations: str, bits: int, runtime: str) -> None:
    if runtime == "tflite_micro" and activations == "float32":
        pytest.skip("TensorFlow Lite Micro has no dynamic-range kernels")
    model = built(activations, bits)
    assert len(model) < len(repeating(model))
    shared, apart = (outputs_in(runtime, file, tmp_path) for file in (model, repeating(model)))
    assert np.array_equal(shared, apart)


def test_a_static_file_loses_a_seventh() -> None:
    model = built("int8", 8)
    assert len(model) < 0.87 * len(repeating(model))
    tree, again = flatbuffer.read(model), flatbuffer.read(repeating(model))
    for one, other in zip(tree.subgraphs[0].tensors, again.subgraphs[0].tensors, strict=True):
        if one.quantization is not None:
            same = present(other.quantization)
            assert np.array_equal(one.quantization.scale, same.scale)
            assert np.array_equal(one.quantization.zeroPoint, same.zeroPoint)


def test_scales_that_are_written_in_place_are_nobody_elses() -> None:
    graph = Model.GetRootAs(model := built("int8", 8), 0).Subgraphs(0)
    whole = np.frombuffer(model, np.uint8).__array_interface__["data"][0]
    constants: list[int] = []
    others: list[int] = []
    for tensor in map(graph.Tensors, range(graph.TensorsLength())):
        if tensor.Quantization() is not None and tensor.Quantization().ScaleLength():
            at = tensor.Quantization().ScaleAsNumpy().__array_interface__["data"][0] - whole
            (others if Model.GetRootAs(model, 0).Buffers(tensor.Buffer()).DataIsNone() else constants).append(at)
    assert len(constants) == 2 * len(LAYERS)
    assert len(set(constants)) == len(constants)
    assert not set(constants) & set(others)


def test_an_object_tree_is_as_before_once_it_is_written() -> None:
    tree = flatbuffer.read(built("int8", 8))
    before = [tensor.quantization for tensor in tree.subgraphs[0].tensors]
    first = flatbuffer.write(tree)
    assert [tensor.quantization for tensor in tree.subgraphs[0].tensors] == before
    assert flatbuffer.write(tree) == first
