"""Networks that XNNPACK runs with sparse kernels."""

from __future__ import annotations

import math

import numpy as np

from autocompress.compression.sparse_storage import with_sparse_weights
from autocompress.network.graph.layers import Layer, layers_of
from autocompress.network.graph.xnnpack_sparse import SparsePath, sparse_path
from autocompress.network.tflite import flatbuffer
from autocompress.network.tflite.builder import NetworkBuilder
from autocompress.network.tflite.graph import graph_of, read_graph

FLOATS = ("FLOAT32", "FLOAT16")


def mobile(end: str = "dense", *, seed: int = 0, stem: str = "", inside: str = "") -> bytes:
    """A small network like MobileNet, as XNNPACK's sparse path takes it; `stem`, `inside` and `end` change a part."""
    net = NetworkBuilder((1, 17, 17, 1 if stem == "one channel" else 3), seed=seed)
    h = net.input if stem in ("same", "valid") else net.pad(net.input, 0 if stem == "uneven" else 1, 1)
    h = net.convolution(h, 16, (3, 3), 1 if stem == "stride" else 2, same=stem == "same")
    h = net.depthwise(h)
    h = net.convolution(h, 32, (1, 1))
    if inside == "spatial":
        h = net.convolution(h, 32, (3, 3))
    if inside == "padded":
        h = net.depthwise(net.pad(h, 1, 1), (3, 3), 2, same=False)
    if inside == "uneven":
        h = net.depthwise(net.pad(h, 0, 1), (3, 3), 2, same=False)
    if inside == "five":
        h = net.depthwise(h, (5, 5))
    if inside == "same":
        h = net.depthwise(h, (3, 3), 2)
    if inside == "residual":
        h = net.add(h, net.convolution(net.hard_swish(h), 32, (1, 1), relu=False))
    if inside == "pool":
        h = net.pool(h, "MAX_POOL_2D", 2, 2)
    if inside == "concatenation":
        h = net.concatenate([h, h])
    h = net.convolution(h, 64, (1, 1))
    if end == "open":
        return net.finish(h)
    if end == "convolution":
        h = net.convolution(net.mean(h, keep=True), 10, (1, 1), relu=False)
        return net.finish(net.softmax(net.reshape(h, (1, 10))))
    if end == "mean":
        return net.finish(net.mean(h))
    return net.finish(net.softmax(net.dense(net.mean(h), 10, relu=False)))


def with_zeros(network: bytes, sparsity: float, *, block: int = 4, seed: int = 0, only: str = "") -> bytes:
    """The network with this share of zeros, in blocks of outputs, in each layer but depthwise ones and the first."""
    tree, rng = flatbuffer.read(network), np.random.default_rng(seed)
    for layer in layers_of(graph_of(tree))[1:]:
        weight = flatbuffer.constant(tree, layer.weight)
        if weight is not None and layer.output_axis == 0 and layer.name.startswith(only):
            size = block if weight.shape[0] % block == 0 else 1
            blocks = weight.size // size
            kept = np.ones(blocks, bool)
            kept[rng.permutation(blocks)[: math.ceil(sparsity * blocks - 1e-9)]] = False
            kept = kept.reshape(-1, *weight.shape[1:])
            flatbuffer.set_constant(tree, layer.weight, weight * np.repeat(kept, size, axis=0))
    return flatbuffer.write(tree)


def layers(network: bytes) -> tuple[Layer, ...]:
    return layers_of(read_graph(network))


def path_of(network: bytes) -> SparsePath:
    return sparse_path(read_graph(network))


def stored(network: bytes, size: str = "file") -> bytes:
    return with_sparse_weights(network, layers(network), FLOATS, size)


def names_stored_sparse(file: bytes) -> int:
    return sum(tensor.sparsity is not None for tensor in flatbuffer.read(file).subgraphs[0].tensors)
