"""The memory that a `.tflite` takes at each inference, without a device: an estimate from the file alone.

Three parts: the file itself, as it is mapped; the arena, in which the runtime's planner ("greedy by size", Pisarchyk
and Lee, arXiv 2001.03288) lays activations that do not live at the same time over each other; and what kernels keep of
the weights beside the file: XNNPACK packs those of every layer into an order of its own, and expands halves, sparse
weights and those behind a DEQUANTIZE to float32 before."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from autocompress.latency.model.operators import BITS
from autocompress.network.tflite import flatbuffer
from autocompress.network.tflite.graph import INPUTS, OUTPUT_AXIS, Graph, Tensor, graphs_of

_ALIGNMENT = 64  # bytes, of each tensor in the arena
_CHANNEL_BYTES = 8  # beside packed weights: the bias, and the scale of integer ones


@dataclass(frozen=True, kw_only=True)
class MemoryEstimate:
    """Bytes of the mapped file, of the activations' arena, and of the packed and expanded weights."""

    file_bytes: int
    arena_bytes: int
    weights_bytes: int

    @property
    def total_bytes(self) -> int:
        """All of it: what a process needs beside the runtime."""
        return self.file_bytes + self.arena_bytes + self.weights_bytes


@dataclass(frozen=True)
class _Life:
    """A tensor of the arena: its bytes, and the operators between which it holds something."""

    size_bytes: int
    first: int
    last: int


def estimate_memory(model: bytes) -> MemoryEstimate:
    """What running a file takes, one sample at a time. AutocompressError where the bytes are no whole TFLite file."""
    graphs = graphs_of(flatbuffer.read(model))
    return MemoryEstimate(
        file_bytes=len(model),
        arena_bytes=sum(planned_bytes(_lives(graph)) for graph in graphs),
        weights_bytes=sum(map(_weights_bytes, graphs)),
    )


def planned_bytes(lives: Sequence[_Life]) -> int:
    """The bytes of the arena: the largest tensor first, each at the lowest place that is free while it lives."""
    placed: list[tuple[int, int, _Life]] = []  # begin, end
    for life in sorted(lives, key=lambda each: (-each.size_bytes, each.first)):
        size = -(-life.size_bytes // _ALIGNMENT) * _ALIGNMENT
        others = sorted((b, e) for b, e, other in placed if other.first <= life.last and life.first <= other.last)
        begin = 0
        for other_begin, other_end in others:
            if other_begin - begin >= size:
                break
            begin = max(begin, other_end)
        placed.append((begin, begin + size, life))
    return max((end for _, end, _ in placed), default=0)


def _lives(graph: Graph) -> list[_Life]:
    """The tensors of the arena: what the graph is given and what its operators make, but expanded constants."""
    spans = {index: [0, 0] for index in graph.inputs}
    for operator in graph.operators:
        for index in (*operator.inputs, *operator.outputs):
            if index >= 0 and graph.stored(index) is None:
                spans.setdefault(index, [operator.position, 0])[1] = operator.position
    for index in graph.outputs:
        if index in spans:
            spans[index][1] = len(graph.operators)
    return [_Life(_size_bytes(graph.tensors[index]), first, last) for index, (first, last) in spans.items()]


def _weights_bytes(graph: Graph) -> int:
    """What kernels keep of the weights of all layers: packed, of the type that the layer reads."""
    total = 0
    for operator, _ in graph.weighted:
        weight = graph.tensors[operator.inputs[INPUTS[operator.op][1]]]
        total += _size_bytes(weight) + _CHANNEL_BYTES * weight.shape[OUTPUT_AXIS[operator.op]]
    return total


def _size_bytes(tensor: Tensor) -> int:
    return -(-math.prod(map(abs, tensor.shape)) * BITS.get(tensor.type, 0) // 8)
