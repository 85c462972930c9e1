"""A small network of two outputs, listed in the file the other way round than its signature does, and relatives."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np

from autocompress.network.tflite import flatbuffer
from autocompress.network.tflite.builder import NetworkBuilder
from autocompress.network.tflite.outputs import Array
from tests.builders.optional import present

SIZE, CLASSES, BOX = 12, 5, 3


def two_outputs(*, names: tuple[str, str] = ("output_0", "output_1"), constant: bool = False, seed: int = 0) -> bytes:
    """Classes (n, 5) by a softmax and a box (n, 3); the graph lists the box first, the signature the classes.
    `constant`: the box hears nothing of the inputs' values, all its weights are zero."""
    net = NetworkBuilder((1, SIZE))
    net._rng = np.random.default_rng(seed)
    trunk = net.dense(net.input, 24)
    classes = net.softmax(net.dense(trunk, CLASSES, relu=False))
    box = net.dense(net.dense(net.input, 16), BOX, relu=False)
    tree = flatbuffer.read(net.finish(classes))
    graph, signature = tree.subgraphs[0], present(tree.signatureDefs)[0]
    graph.outputs = [box, classes]
    (port,) = present(signature.outputs)
    signature.outputs = [port, copy.copy(port)]
    for port, name, tensor in zip(signature.outputs, names, (classes, box), strict=True):
        port.name, port.tensorIndex = name.encode(), tensor
    if constant:
        weight = int(graph.operators[-1].inputs[1])
        flatbuffer.set_constant(tree, weight, np.zeros(graph.tensors[weight].shape, np.float32))
    return flatbuffer.write(tree)


def two_signatures(keys: tuple[str, str]) -> bytes:
    """Two such networks of other weights in one file, each a subgraph with a signature of its own."""
    first, second = (flatbuffer.read(two_outputs(seed=seed)) for seed in (0, 1))
    graph = second.subgraphs[0]
    for tensor in graph.tensors:
        tensor.buffer += len(first.buffers)
    first.buffers += second.buffers
    first.subgraphs.append(graph)
    signatures = [*present(first.signatureDefs), *present(second.signatureDefs)]
    first.signatureDefs = signatures
    for number, (signature, key) in enumerate(zip(signatures, keys, strict=True)):
        signature.signatureKey, signature.subgraphIndex = key.encode(), number
    return flatbuffer.write(first)


def by_signature(model: bytes, x: Array, key: str | None = None) -> dict[str, Array]:
    """The outputs by name, each sample run alone by the runtime's own signature runner."""
    from ai_edge_litert.interpreter import Interpreter

    run = Interpreter(model_content=model).get_signature_runner(key)
    (name,) = run.get_input_details()
    rows = [run(**{name: sample[None]}) for sample in x]
    return {output: np.concatenate([row[output] for row in rows]) for output in rows[0]}


def inputs(samples: int, seed: int = 0) -> Array:
    """Inputs (n, 12)."""
    return np.random.default_rng(seed).standard_normal((samples, SIZE), dtype=np.float32)


def data_file(
    path: Path, model: bytes, *, key: str | None = None, output: str = "output_0", samples: int = 120
) -> Path:
    """An `.npz` whose labels are the classes of `output`, one in ten made wrong."""
    arrays: dict[str, Array] = {}
    for seed, split in enumerate(("validation", "test", "train")):
        x = inputs(samples, seed)
        y = by_signature(model, x, key)[output].argmax(1)
        y[::10] = (y[::10] + 1) % CLASSES
        arrays |= {f"x_{split}": x, f"y_{split}": y}
    np.savez(path, **arrays)
    return path
