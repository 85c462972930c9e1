"""What a file weighs besides its weights: the download of a static int8 network with all weights zero, piece by piece.

    python -m benchmarks.compress.overhead [--task NAME]

Ours beside ai-edge-quantizer's own file, and what our 8-bit and 4-bit files weigh and score on validation data."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import numpy as np

from autocompress.compression.build import Builder
from autocompress.compression.download import download_bytes
from autocompress.compression.reconstruct import Reconstruction
from autocompress.compression.template import quantize_plainly
from autocompress.network.graph import trace
from autocompress.network.graph.layers import Layer, layers_of
from autocompress.network.tflite import flatbuffer
from autocompress.network.tflite.graph import INPUTS, read_graph
from autocompress.network.tflite.interpreter import Runner
from autocompress.records.configuration import Configuration, LayerChoice
from autocompress.tasks import LoadedTask, load_task


def pieces(model: bytes, layers: Sequence[Layer]) -> list[tuple[str, int]]:
    """Download bytes of a quantized file without its weights: all, then less and less of it."""
    tree = flatbuffer.read(model)
    graph = tree.subgraphs[0]
    slots = [
        (graph.tensors[int(op.inputs[w])], graph.tensors[int(op.inputs[b])])
        for layer in layers
        for op in [[o for o in graph.operators if flatbuffer.op_name(tree, o) == layer.op][layer.number]]
        for w, b in [INPUTS[layer.op][1:]]
    ]
    found = []

    def note(name: str) -> None:
        found.append((name, download_bytes(flatbuffer.write(tree))))

    note("the whole file")
    for weight, _ in slots:
        _empty(tree, weight)
    note("weights zero")
    for _, bias in slots:
        _even(bias)
    note("and bias scales one value")
    for weight, _ in slots:
        _even(weight)
    note("and weight scales one value")
    for _, bias in slots:
        _empty(tree, bias)
    note("and biases zero: the graph")
    return found


def _empty(tree: Any, tensor: Any) -> None:
    buffer = tree.buffers[tensor.buffer]
    buffer.data = np.zeros(len(buffer.data), np.uint8)


def _even(tensor: Any) -> None:
    scale = tensor.quantization.scale
    tensor.quantization.scale = np.full(len(scale), np.float32(0.01))


def accuracy(task: LoadedTask, model: bytes) -> float:
    """The metric on validation data."""
    (x,), y = task.x_validation.values(), task.y_validation
    assert y is not None
    return float(task.metric.value(Runner(model, 2).run(task.x_validation), y, x))


def main() -> None:
    """Print the pieces of both files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", default="fashion-mnist")
    task = load_task(parser.parse_args().task)
    layers, runner = layers_of(read_graph(task.network)), Runner(task.network)
    (index,), (inputs,) = runner.input_indices.values(), task.x_calibration.values()
    ranges = trace.activation_ranges(task.network, {index: inputs[:512]}, 64, 2)
    solver = Reconstruction(flatbuffer.read(task.network), layers, {index: inputs[:512]}, chunk=64, threads=2)
    builder = Builder(task.network, layers, lambda op, bits, kind: 8, lambda: ranges)
    plain = quantize_plainly(task.network, layers, ranges)
    print(f"{task.name}: ai-edge-quantizer's int8 file {download_bytes(plain):,} B, {accuracy(task, plain):.4f}")
    built = {}
    for bits in (8, 4):
        asked = Configuration(activations="int8", layers={layer.name: LayerChoice(bits=bits) for layer in layers})
        built[bits] = builder.build(asked, solver.sequential(asked))
        print(f"ours, {bits} bits: {download_bytes(built[bits]):,} B, {accuracy(task, built[bits]):.4f}")
    for (name, ours), (_, theirs) in zip(pieces(built[8], layers), pieces(plain, layers), strict=True):
        print(f"{name:30s} ours {ours:7,} B   ai-edge-quantizer's {theirs:7,} B   {ours / theirs:.2f}")


if __name__ == "__main__":
    main()
