"""Channels that go together: a network without channels that make nothing computes what it computed with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from autocompress.errors import AutocompressError
from autocompress.network.graph.channels import Channels, prune
from autocompress.network.graph.layers import layers_of
from autocompress.network.tflite import flatbuffer
from autocompress.network.tflite.builder import NetworkBuilder
from autocompress.network.tflite.graph import graph_of, read_graph
from autocompress.network.tflite.interpreter import Runner
from autocompress.tasks import load_task
from tests.builders import networks
from tests.builders.arrays import Array

NETWORKS = sorted(networks.BUILDERS)
TOLERANCE = 1e-5


class Sketch(NetworkBuilder):
    """A network builder with the operators that tie channels in other ways, all on NHWC tensors."""

    def constant(self, value: Array) -> int:
        return self._constant(np.asarray(value))

    def paired(self, op: str, x: int, y: int) -> int:
        words = {"ADD": "Add", "SUB": "Sub", "MUL": "Mul", "DIV": "Div"}
        kind = f"{words[op]}Options" if op in words else "MaximumMinimumOptions"
        shape = np.broadcast_shapes(self.shape(x), self.shape(y))
        return self._op(op, [x, y], tuple(shape), getattr(self._schema, f"{kind}T")(), kind)

    def drawn(self, shape: Sequence[int], low: float = -1.0, high: float = 1.0) -> int:
        return self.constant(self._rng.uniform(low, high, tuple(shape)).astype(np.float32))

    def prelu(self, x: int) -> int:
        return self._op("PRELU", [x, self.drawn((1, 1, self.shape(x)[3]))], self.shape(x))

    def plain(self, x: int, op: str) -> int:
        kinds = {"LEAKY_RELU": "LeakyReluOptions", "GELU": "GeluOptions"}
        kind = kinds.get(op, "NONE")
        return self._op(op, [x], self.shape(x), getattr(self._schema, f"{kind}T")() if op in kinds else None, kind)

    def resize(self, x: int) -> int:
        batch, height, width, depth = self.shape(x)
        size, options = self.constant(np.array([2 * height, width], np.int32)), self._schema.ResizeBilinearOptionsT()
        return self._op(
            "RESIZE_BILINEAR", [x, size], (batch, 2 * height, width, depth), options, "ResizeBilinearOptions"
        )

    def halves(self, x: int, axis: int) -> list[int]:
        shape = list(self.shape(x))
        shape[axis] //= 2
        options = self._schema.SplitOptionsT()
        options.numSplits = 2
        first = self._op("SPLIT", [self.constant(np.array(axis, np.int32)), x], tuple(shape), options, "SplitOptions")
        return [first, self._second_output(shape)]

    def parts(self, x: int, first: int) -> list[int]:
        batch, height, width, depth = self.shape(x)
        sizes, axis = self.constant(np.array([first, depth - first], np.int32)), self.constant(np.array(3, np.int32))
        options = self._schema.SplitVOptionsT()
        options.numSplits = 2
        made = self._op("SPLIT_V", [x, sizes, axis], (batch, height, width, first), options, "SplitVOptions")
        return [made, self._second_output([batch, height, width, depth - first])]

    def _second_output(self, shape: Sequence[int]) -> int:
        second = self._tensor(tuple(shape))
        self._graph.operators[-1].outputs = [*self._graph.operators[-1].outputs, second]
        return second

    def slice(self, x: int, *, channels: int = -1) -> int:
        batch, height, width, depth = self.shape(x)
        whole = depth if channels < 0 else channels
        begin = self.constant(np.array([0, height // 2, 0, 0], np.int32))
        size = self.constant(np.array([batch, height - height // 2, width, whole], np.int32))
        shape = (batch, height - height // 2, width, whole)
        return self._op("SLICE", [x, begin, size], shape, self._schema.SliceOptionsT(), "SliceOptions")

    def stride(self, x: int, *, masked: bool) -> int:
        batch, height, width, depth = self.shape(x)
        options = self._schema.StridedSliceOptionsT()
        options.endMask = 8 if masked else 0
        edges = ([0, 0, 0, 0], [batch, height, width, 0 if masked else depth], [1, 2, 1, 1])
        inputs = [x, *(self.constant(np.array(edge, np.int32)) for edge in edges)]
        return self._op("STRIDED_SLICE", inputs, (batch, -(-height // 2), width, depth), options, "StridedSliceOptions")

    def joined(self, tensors: Sequence[int], axis: int) -> int:
        options = self._schema.ConcatenationOptionsT()
        options.axis = axis
        shape = list(self.shape(tensors[0]))
        shape[axis] = sum(self.shape(x)[axis] for x in tensors)
        return self._op("CONCATENATION", list(tensors), tuple(shape), options, "ConcatenationOptions")

    def widened(self, x: int) -> int:
        """DEPTHWISE_CONV_2D that makes two channels of each."""
        batch, height, width, depth = self.shape(x)
        options = self._walk(self._schema.DepthwiseConv2DOptionsT(), 1, True, True)
        options.depthMultiplier = 2
        inputs = [x, *self._weights((1, 3, 3, 2 * depth), 9, 2 * depth)]
        return self._op(
            "DEPTHWISE_CONV_2D", inputs, (batch, height, width, 2 * depth), options, "DepthwiseConv2DOptions"
        )

    def grouped(self, x: int) -> int:
        """CONV_2D whose outputs read half of the channels each."""
        batch, height, width, depth = self.shape(x)
        options = self._walk(self._schema.Conv2DOptionsT(), 1, True, True)
        inputs = [x, *self._weights((4, 3, 3, depth // 2), 9 * depth // 2, 4)]
        return self._op("CONV_2D", inputs, (batch, height, width, 4), options, "Conv2DOptions")

    def padded(self, x: int, op: str, value: float | None = None, channels: int = 0) -> int:
        """PAD, PADV2 with `value`, or MIRROR_PAD; `channels` more of them."""
        batch, height, width, depth = self.shape(x)
        inputs = [x, self.constant(np.array([[0, 0], [1, 1], [0, 1], [0, channels]], np.int32))]
        if value is not None:
            inputs.append(self.constant(np.full(1, value, np.float32)))
        kind = {"PAD": "Pad", "PADV2": "PadV2", "MIRROR_PAD": "MirrorPad"}[op] + "Options"
        shape = (batch, height + 2, width + 1, depth + channels)
        return self._op(op, inputs, shape, getattr(self._schema, f"{kind}T")(), kind)

    def nearest(self, x: int) -> int:
        batch, height, width, depth = self.shape(x)
        size = self.constant(np.array([height, 3 * width], np.int32))
        return self._op(
            "RESIZE_NEAREST_NEIGHBOR",
            [x, size],
            (batch, height, 3 * width, depth),
            self._schema.ResizeNearestNeighborOptionsT(),
            "ResizeNearestNeighborOptions",
        )

    def reduced(self, x: int, op: str, axis: int) -> int:
        """A reduction over one axis, which stays with one value."""
        options, shape = self._schema.ReducerOptionsT(), list(self.shape(x))
        options.keepDims, shape[axis] = True, 1
        axes = self.constant(np.array([axis], np.int32))
        return self._op(op, [x, axes], tuple(shape), options, "ReducerOptions")

    def stacked(self, tensors: Sequence[int], axis: int) -> int:
        options, shape = self._schema.PackOptionsT(), list(self.shape(tensors[0]))
        options.axis, options.valuesCount = axis, len(tensors)
        shape.insert(axis, len(tensors))
        return self._op("PACK", list(tensors), tuple(shape), options, "PackOptions")

    def squeezed(self, x: int) -> int:
        """(1, 1, 1, n) to (1, n)."""
        options, shape = self._schema.SqueezeOptionsT(), self.shape(x)
        options.squeezeDims = [1, 2]
        return self._op("SQUEEZE", [x], (shape[0], shape[3]), options, "SqueezeOptions")

    def expanded(self, x: int) -> int:
        """(1, n) to (1, 1, n), and again to (1, 1, 1, n)."""
        batch, width = self.shape(x)
        for shape in ((batch, 1, width), (batch, 1, 1, width)):
            axis = self.constant(np.array(1, np.int32))
            x = self._op("EXPAND_DIMS", [x, axis], shape, self._schema.ExpandDimsOptionsT(), "ExpandDimsOptions")
        return x

    def multiplied(self, x: int, y: int) -> int:
        """BATCH_MATMUL of two tensors of one shape whose last sides are equal."""
        options = self._schema.BatchMatMulOptionsT()
        return self._op("BATCH_MATMUL", [x, y], self.shape(x), options, "BatchMatMulOptions")

    def gathered(self, x: int, axis: int) -> int:
        options, shape = self._schema.GatherOptionsT(), list(self.shape(x))
        options.axis, shape[axis] = axis, 3
        indices = self.constant(np.array([2, 0, 0], np.int32))
        return self._op("GATHER", [x, indices], tuple(shape), options, "GatherOptions")

    def strided_channels(self, x: int) -> int:
        """Every second channel."""
        batch, height, width, depth = self.shape(x)
        edges = ([0, 0, 0, 0], [batch, height, width, depth], [1, 1, 1, 2])
        inputs = [x, *(self.constant(np.array(edge, np.int32)) for edge in edges)]
        return self._op(
            "STRIDED_SLICE",
            inputs,
            (batch, height, width, depth // 2),
            self._schema.StridedSliceOptionsT(),
            "StridedSliceOptions",
        )

    def swapped(self, x: int) -> int:
        batch, height, width, depth = self.shape(x)
        order = self.constant(np.array([0, 2, 1, 3], np.int32))
        return self._op(
            "TRANSPOSE", [x, order], (batch, width, height, depth), self._schema.TransposeOptionsT(), "TransposeOptions"
        )


def without(model: bytes, rng: np.random.Generator, least: int = 0) -> tuple[bytes, bytes, Channels]:
    """The network with some channels' weights and biases all zero, `least` of a group or more where it has so many to
    spare; the same without these channels; its channels."""
    tree = flatbuffer.read(model)
    channels, kept = Channels(graph_of(tree)), {}
    for group in channels.groups:
        gone = rng.permutation(group.channels)[: rng.integers(min(least, group.channels - 1), group.channels)]
        kept[group.name] = sorted(set(range(group.channels)) - set(gone.tolist()))
        for (tensor, axis), index in channels.parameters(group):
            value = flatbuffer.constant(tree, tensor)
            assert value is not None
            rows = np.moveaxis(value.copy(), axis, 0)
            rows[np.isin(index, gone)] = 0
            flatbuffer.set_constant(tree, tensor, np.moveaxis(rows, 0, axis))
    zeroed = flatbuffer.write(tree)
    return zeroed, prune(zeroed, kept), channels


def outputs(model: bytes, rng: np.random.Generator) -> Array:
    runner = Runner(model)
    x = {spec.name: rng.standard_normal((4, *spec.shape[1:])).astype(spec.dtype) for spec in runner.inputs}
    return runner.run(x)


def assert_same(one: bytes, other: bytes, seed: int = 0) -> None:
    expected, found = (outputs(model, np.random.default_rng(seed)) for model in (one, other))
    np.testing.assert_allclose(found, expected, atol=TOLERANCE, rtol=TOLERANCE)


@pytest.mark.parametrize("name", [*NETWORKS, "fashion-mnist"])
def test_real_networks_go_without_channels_that_make_nothing(name: str) -> None:
    made = load_task(name).network if name == "fashion-mnist" else flatbuffer.normalise(networks.load(name).network)
    for seed in range(3):
        zeroed, pruned, channels = without(made, np.random.default_rng(seed))
        assert_same(zeroed, pruned)
        assert len(pruned) < len(zeroed)
        assert len(channels.groups) + len(channels.frozen) <= len(channels.layers)


MOVES: dict[str, Callable[[Sketch, list[int], Any], int]] = {
    "convolution": lambda net, pool, draw: net.convolution(draw(pool), draw(range(2, 7)), stride=1),
    "pointwise": lambda net, pool, draw: net.convolution(draw(pool), draw(range(2, 7)), (1, 1), relu=False),
    "depthwise": lambda net, pool, draw: net.depthwise(draw(pool)),
    "prelu": lambda net, pool, draw: net.prelu(draw(pool)),
    "unary": lambda net, pool, draw: net.plain(
        draw(pool), draw(["RELU", "RELU6", "TANH", "LOGISTIC", "ABS", "ELU", "LEAKY_RELU", "GELU", "COS"])
    ),
    "hard swish": lambda net, pool, draw: net.hard_swish(draw(pool)),
    "pool": lambda net, pool, draw: net.pool(draw(pool), draw(["AVERAGE_POOL_2D", "MAX_POOL_2D"]), 2, 1),
    "pair": lambda net, pool, draw: _pair(net, pool, draw),
    "constant": lambda net, pool, draw: _with_constant(net, draw(pool), draw),
    "gate": lambda net, pool, draw: _gate(net, draw(pool)),
    "concatenation": lambda net, pool, draw: net.joined([draw(pool), draw(pool)], 3),
    "split": lambda net, pool, draw: _split(net, draw(pool), draw),
    "slice": lambda net, pool, draw: _padded_back(net, net.slice(draw(pool))),
    "cut channels": lambda net, pool, draw: _padded_back(net, net.slice(draw(pool), channels=2)),
    "strided slice": lambda net, pool, draw: net.resize(net.stride(draw(pool), masked=draw([True, False]))),
    "rows": lambda net, pool, draw: net.joined(net.halves(draw(pool), 1), 1),
    "pad": lambda net, pool, draw: net.convolution(net.pad(draw(pool), 1, 1), 4, same=False),
    "transpose": lambda net, pool, draw: net.swapped(draw(pool)),
    "upsample": lambda net, pool, draw: net.pool(
        net.upsample(draw(pool), draw(range(2, 6)), 2, 2), "MAX_POOL_2D", 2, 2
    ),
}


def _pair(net: Sketch, pool: list[int], draw: Any) -> int:
    x = draw(pool)
    alike = [y for y in pool if net.shape(y) == net.shape(x)]
    return net.paired(draw(["ADD", "SUB", "MUL", "MAXIMUM", "MINIMUM"]), x, draw(alike))


def _with_constant(net: Sketch, x: int, draw: Any) -> int:
    depth = net.shape(x)[3]
    shape = draw([(depth,), (1, 1, 1, depth), (1, 1, 1, 1), net.shape(x)])
    op = draw(["ADD", "SUB", "MUL", "DIV", "MAXIMUM", "MINIMUM"])
    low = draw([-1.0, 0.0]) if op in ("MAXIMUM", "MINIMUM") else 0.5
    return net.paired(op, x, net.drawn(shape, low, low + 1.0))


def _gate(net: Sketch, x: int) -> int:
    """Squeeze and excitation."""
    squeezed = net.convolution(net.mean(x, keep=True), 3, (1, 1))
    gate = net.plain(net.convolution(squeezed, net.shape(x)[3], (1, 1), relu=False), "LOGISTIC")
    return net.paired("MUL", x, gate)


def _split(net: Sketch, x: int, draw: Any) -> int:
    depth = net.shape(x)[3]
    if depth % 2 == 0 and draw([True, False]):
        one, other = net.halves(x, 3)
        return net.joined([net.hard_swish(one), other], 3)
    one, other = net.parts(x, 1)
    return net.joined([other, net.plain(one, "RELU")], 3)


def _padded_back(net: Sketch, x: int) -> int:
    """A convolution behind half of the rows, made whole again."""
    return net.resize(net.convolution(x, 4))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    moves=st.lists(st.sampled_from(sorted(MOVES)), min_size=1, max_size=7),
    head=st.sampled_from(["mean", "flatten", "flatten, dense, image", "convolution", "none"]),
    data=st.data(),
)
@example(moves=["gate", "split", "concatenation", "pair"], head="flatten", data=None)
def test_random_networks_go_without_channels_that_make_nothing(moves: list[str], head: str, data: Any) -> None:
    rng = np.random.default_rng(0)

    def draw(values: Sequence[Any]) -> Any:
        values = list(values)
        return values[int(rng.integers(len(values)))] if data is None else data.draw(st.sampled_from(values))

    net = Sketch((1, 4, 4, 3), seed=draw(range(100)))
    pool = [net.convolution(net.input, 4), net.convolution(net.input, 6)]
    for move in moves:
        pool.append(MOVES[move](net, pool, draw))
    zeroed, pruned, _ = without(net.finish(_head(net, pool[-1], head)), np.random.default_rng(draw(range(100))))
    assert_same(zeroed, pruned)


def _head(net: Sketch, x: int, head: str) -> int:
    batch, *rest = net.shape(x)
    if head == "none":
        return x
    if head == "convolution":
        return net.convolution(x, 3, relu=False)
    flat = net.mean(x) if head == "mean" else net.reshape(x, (batch, int(np.prod(rest))))
    hidden = net.dense(flat, 16)
    if head == "flatten, dense, image":
        return net.convolution(net.reshape(hidden, (batch, 2, 2, 4)), 2, relu=False)
    return net.softmax(net.dense(hidden, 5, relu=False))


Part = Callable[[Sketch, int], int]  # (network, tensor of shape (1, 4, 4, 8)) -> a tensor for one more convolution
ACTIVATIONS = ("RELU", "RELU6", "RELU_N1_TO_1", "TANH", "ABS", "NEG", "SQUARE", "ELU", "LEAKY_RELU", "GELU", "FLOOR")


def _image(net: Sketch, x: int) -> int:
    """A vector as an image of one position."""
    return net.reshape(x, (1, 1, 1, net.shape(x)[1]))


def _with_another_map(op: str, net: Sketch, x: int) -> int:
    return net.paired(op, x, net.convolution(net.input, 8))


def _with_a_vector(op: str, net: Sketch, x: int) -> int:
    return net.paired(op, x, net.mean(net.plain(x, "ABS"), keep=True))


def _with_drawn(op: str, values: int, edges: tuple[float, float], net: Sketch, x: int) -> int:
    return net.paired(op, x, net.drawn((values,), *edges))


def _activated(op: str, net: Sketch, x: int) -> int:
    return net.plain(x, op)


OPEN: dict[str, Part] = {
    "CONV_2D": lambda net, x: x,
    "DEPTHWISE_CONV_2D": lambda net, x: net.depthwise(x),
    "DEPTHWISE_CONV_2D, two of each": lambda net, x: net.widened(x),
    "FULLY_CONNECTED": lambda net, x: _image(net, net.dense(net.mean(x), 5)),
    "FULLY_CONNECTED behind a flatten": lambda net, x: _image(net, net.dense(net.reshape(x, (1, 128)), 5)),
    "FULLY_CONNECTED in front": lambda net, x: net.reshape(net.dense(net.reshape(x, (1, 128)), 12), (1, 2, 2, 3)),
    "TRANSPOSE_CONV": lambda net, x: net.upsample(x, 6, 2, 2),
    **{f"{op} of two": partial(_with_another_map, op) for op in ("ADD", "SUB", "MUL", "MAXIMUM", "MINIMUM")},
    **{
        f"{op} of a map and a vector": partial(_with_a_vector, op) for op in ("ADD", "SUB", "MUL", "MAXIMUM", "MINIMUM")
    },
    **{f"{op} by channel": partial(_with_drawn, op, 8, (0.5, 1.5)) for op in ("ADD", "SUB", "MUL", "DIV")},
    **{
        f"{op} by one number": partial(_with_drawn, op, 1, edges)
        for op, edges in {"MUL": (0.5, 1), "DIV": (0.5, 1), "MAXIMUM": (-1, -0.5), "MINIMUM": (0.5, 1)}.items()
    },
    "SUB from a constant by channel": lambda net, x: net.paired("SUB", net.drawn((1, 1, 1, 8)), x),
    "CONCATENATION of channels": lambda net, x: net.joined([x, net.plain(x, "TANH"), net.convolution(x, 4)], 3),
    "CONCATENATION of rows": lambda net, x: net.joined([x, net.plain(x, "TANH")], 1),
    "PAD": lambda net, x: net.padded(x, "PAD"),
    "PADV2": lambda net, x: net.padded(x, "PADV2", 0.0),
    "MIRROR_PAD": lambda net, x: net.padded(x, "MIRROR_PAD"),
    "AVERAGE_POOL_2D": lambda net, x: net.pool(x, "AVERAGE_POOL_2D", 3, 2),
    "MAX_POOL_2D": lambda net, x: net.pool(x, "MAX_POOL_2D", 2, 2),
    "MEAN": lambda net, x: net.mean(x, keep=True),
    "MEAN to a vector": lambda net, x: net.expanded(net.mean(x)),
    "SUM": lambda net, x: net.reduced(x, "SUM", 1),
    "REDUCE_MAX": lambda net, x: net.reduced(x, "REDUCE_MAX", 2),
    **{op: partial(_activated, op) for op in ACTIVATIONS},
    "HARD_SWISH": lambda net, x: net.hard_swish(x),
    "LOGISTIC behind a gate": lambda net, x: _gate(net, x),
    "PRELU": lambda net, x: net.prelu(net.plain(x, "NEG")),
    "RESIZE_BILINEAR": lambda net, x: net.resize(x),
    "RESIZE_NEAREST_NEIGHBOR": lambda net, x: net.nearest(x),
    "SPLIT of rows": lambda net, x: net.paired("ADD", *net.halves(x, 1)),
    "SPLIT of channels": lambda net, x: net.paired("MUL", *net.halves(x, 3)),
    "SPLIT_V of channels": lambda net, x: net.joined(net.parts(x, 3)[::-1], 3),
    "SLICE": lambda net, x: net.slice(x),
    "STRIDED_SLICE": lambda net, x: net.stride(x, masked=False),
    "STRIDED_SLICE to the end": lambda net, x: net.stride(x, masked=True),
    "RESHAPE of positions": lambda net, x: net.reshape(x, (1, 2, 8, 8)),
    "PACK": lambda net, x: net.reshape(net.stacked([x, net.plain(x, "TANH")], 1), (1, 8, 4, 8)),
    "SQUEEZE": lambda net, x: net.expanded(net.squeezed(net.mean(x, keep=True))),
}


@pytest.mark.parametrize("name", OPEN)
@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_channels_that_make_nothing_go_through_every_operator(name: str, seed: int) -> None:
    """Not one of these operators freezes what it touches, and what is zero leaves no trace."""
    rng, net = np.random.default_rng(seed), Sketch((1, 4, 4, 3), seed=seed)
    made = OPEN[name](net, net.convolution(net.input, 8))
    model = net.finish(net.convolution(made, 2, relu=False))
    zeroed, pruned, channels = without(model, rng, least=1)
    last = channels.layers[-1].name
    assert list(channels.frozen) == [last], "the network's output alone is frozen"
    assert_same(zeroed, pruned, seed)
    assert layers_of(read_graph(pruned))[0].outputs < 8


def test_a_residual_sum_ties_what_it_adds_and_inner_channels_are_free() -> None:
    channels = Channels(read_graph(load_task("fashion-mnist").network))
    assert [(group.name, group.channels, group.layers) for group in channels.groups] == [
        ("conv_2d_0", 16, ("conv_2d_0", "conv_2d_2")),
        ("conv_2d_1", 16, ("conv_2d_1",)),
        ("conv_2d_3", 32, ("conv_2d_3",)),
        ("conv_2d_4", 32, ("conv_2d_4", "conv_2d_5")),
        ("conv_2d_6", 64, ("conv_2d_6",)),
        ("conv_2d_7", 64, ("conv_2d_7", "conv_2d_8")),
    ]
    assert list(channels.frozen) == ["fully_connected_0"]


def test_halves_of_a_split_lose_the_same_channels() -> None:
    net = Sketch((1, 4, 4, 3))
    one, other = net.halves(net.convolution(net.input, 8), 3)
    model = net.finish(net.convolution(net.paired("ADD", net.plain(one, "RELU"), other), 2))
    (group, *_) = Channels(read_graph(model)).groups
    assert group.channels == 4
    assert layers_of(read_graph(prune(model, {group.name: [0, 3]})))[0].outputs == 4


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (lambda net, x: net.swapped(x), "TRANSPOSE"),
        (lambda net, x: net.plain(x, "COS"), "not 0"),
        (lambda net, x: net.plain(x, "LOGISTIC"), "not 0"),
        (lambda net, x: net.slice(x, channels=2), "SLICE"),
        (lambda net, x: net.strided_channels(x), "STRIDED_SLICE"),
        (lambda net, x: net.padded(x, "PAD", channels=2), "PAD"),
        (lambda net, x: net.padded(x, "PADV2", 1.0), "not 0"),
        (lambda net, x: net.reduced(x, "SUM", 3), "SUM"),
        (lambda net, x: net.softmax(x), "SOFTMAX"),
        (lambda net, x: net.multiplied(x, x), "BATCH_MATMUL"),
        (lambda net, x: net.gathered(x, 1), "GATHER"),
        (lambda net, x: net.grouped(x), "grouped"),
        (lambda net, x: net.reshape(net.stacked([x, x], 4), (1, 4, 4, 8)), "PACK"),
        (lambda net, x: net.paired("ADD", x, net.drawn((1, 1, 1, 1), 0.5)), "not 0"),
        (lambda net, x: net.paired("MAXIMUM", x, net.drawn((1, 1, 1, 1), 0.5)), "not 0"),
        (lambda net, x: net.paired("DIV", x, net.plain(x, "EXP")), "not 0"),
    ],
)
def test_what_is_not_known_to_keep_channels_apart_freezes_them(
    broken: Callable[[Sketch, int], int], reason: str
) -> None:
    net = Sketch((1, 4, 4, 3))
    model = net.finish(net.convolution(broken(net, net.convolution(net.input, 4)), 2))
    channels = Channels(read_graph(model))
    assert channels.groups == ()
    assert reason in channels.frozen["conv_2d_0"]
    with pytest.raises(AutocompressError, match=r"the channels of 'conv_2d_0' must stay: .*; leave it out"):
        prune(model, {"conv_2d_0": [0]})


@pytest.mark.parametrize(
    ("kept", "message"),
    [
        ({"conv_2d_1": []}, "channel group 'conv_2d_1' would lose all its channels; keep at least one"),
        ({"conv_2d_1": [0, 16]}, "channel group 'conv_2d_1' has channels 0 to 15"),
        ({"conv_2d_2": [0]}, "unknown channel group 'conv_2d_2'"),
    ],
)
def test_what_cannot_be_taken_out_is_refused(kept: dict[str, list[int]], message: str) -> None:
    with pytest.raises(AutocompressError, match=message):
        prune(load_task("fashion-mnist").network, kept)
