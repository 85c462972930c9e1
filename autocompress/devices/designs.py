"""The designed set: small float networks whose latencies tell what each kind of operator costs on a device.

Chains repeat one kind of operator in drawn sizes, so that its cost can be told from that of an inference as such;
whole networks put kinds together as real ones do. Sizes are drawn log-uniformly from a fixed seed: the set is the
same everywhere. No published network is in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from autocompress.network.tflite.builder import NetworkBuilder

Draw = np.random.Generator
_SEED = 20


@dataclass(frozen=True, kw_only=True)
class Design:
    """A float network of the set. `kind`: what it was designed for, a kind of operator or `network`."""

    name: str
    kind: str
    model: bytes


def designed_set(share: float = 1.0) -> tuple[Design, ...]:
    """All designs, or of each kind the first `share` (rounded up): a smaller set is the start of the whole one."""
    made = []
    for kind, (count, draw) in _KINDS.items():
        for number in range(max(1, int(np.ceil(count * share)))):
            rng = np.random.default_rng((_SEED, *kind.encode(), number))
            made.append(Design(name=f"{kind}-{number}", kind=kind, model=draw(rng, number)))
    return tuple(made)


def _size(rng: Draw, low: float, high: float) -> int:
    """A whole number in [low, high], its logarithm uniform."""
    return int(np.round(np.exp(rng.uniform(np.log(low), np.log(high)))))


def _channels(rng: Draw, low: float, high: float) -> int:
    """Channels: mostly multiples of eight, as networks have them, else any number."""
    drawn = _size(rng, low, high)
    return drawn if rng.random() < 0.3 else max(8, (drawn + 4) // 8 * 8)


def _affordable(side: int, channels: int, most_mmac: float, taps: int = 1) -> int:
    """`channels` in and out of a convolution, cut so that it has at most `most_mmac`."""
    return max(4, min(channels, int((most_mmac * 1e6 / (side * side * taps)) ** 0.5)))


def _pointwise(rng: Draw, number: int) -> bytes:
    side = _size(rng, 1, 64)
    net = NetworkBuilder((1, side, side, _affordable(side, _channels(rng, 8, 384), 8)))
    x = net.input
    for _ in range(2 + number % 3):
        x = net.convolution(x, _affordable(side, _channels(rng, 8, 384), 8), (1, 1))
    return net.finish(x)


def _spatial(rng: Draw, number: int) -> bytes:
    side = _size(rng, 6, 64)
    kernel = [(3, 3), (3, 3), (3, 3), (5, 5), (1, 1), (3, 3), (2, 5), (7, 7)][number % 8]
    taps = kernel[0] * kernel[1]
    net = NetworkBuilder((1, side, side, _affordable(side, _channels(rng, 6, 192), 12, taps)))
    x = net.convolution(net.input, _affordable(side, _channels(rng, 8, 192), 12, taps), kernel, 1 + (taps == 1))
    for _ in range(1 + number % 2):
        side = net.shape(x)[1]
        stride = 2 if side > 4 and (taps == 1 or rng.random() < 0.4) else 1
        x = net.convolution(x, _affordable(side, _channels(rng, 8, 192), 12, taps), kernel, stride)
    return net.finish(x)


def _first(rng: Draw, number: int) -> bytes:
    kernel = [(3, 3), (3, 3), (7, 7), (4, 8), (5, 5), (3, 3)][number % 6]
    side = _size(rng, 24, 192 if kernel == (3, 3) else 96)
    net = NetworkBuilder((1, side, side, (3, 1, 3, 1, 2, 4)[number % 6]))
    return net.finish(net.convolution(net.input, _channels(rng, 8, 48), kernel, 1 + (side > 40 or number % 2)))


def _depthwise(rng: Draw, number: int) -> bytes:
    side = _size(rng, 3, 80)
    channels = max(4, min(_channels(rng, 8, 512), int(400_000 / side**2)))
    net = NetworkBuilder((1, side, side, channels))
    x = net.input
    for _ in range(2 + number % 3):
        kernel = (5, 5) if rng.random() < 0.25 else (3, 3)
        x = net.depthwise(x, kernel, 2 if net.shape(x)[1] > 4 and rng.random() < 0.35 else 1)
    return net.finish(x)


def _dense(rng: Draw, number: int) -> bytes:
    net = NetworkBuilder((1, _size(rng, 8, 1024)))
    x = net.input
    for _ in range(1 + number % 6):
        x = net.dense(x, _channels(rng, 4, 768))
    return net.finish(x)


def _volume(rng: Draw, low: float = 500, high: float = 400_000) -> NetworkBuilder:
    """A network of one input, of so many elements in all."""
    elements, channels = _size(rng, low, high), _channels(rng, 8, 128)
    side = max(2, round((elements / channels) ** 0.5))
    return NetworkBuilder((1, side, side, channels))


def _elementwise(rng: Draw, number: int) -> bytes:
    net = _volume(rng)
    x = y = net.input
    for step in range(3 + number % 3):
        op = (number + step) % 3
        made = net.add(x, y) if op < 2 else net.multiply(x, y)
        x, y = made, x
    return net.finish(x)


def _pool(op: str) -> Callable[[Draw, int], bytes]:
    def draw(rng: Draw, number: int) -> bytes:
        net = _volume(rng, 2_000)
        x = net.pool(net.input, op, 2 + number % 2, 1)
        return net.finish(net.pool(x, op, 2 + number % 2, 2))

    return draw


def _mean(rng: Draw, number: int) -> bytes:
    net = _volume(rng, 200, 200_000)
    return net.finish(net.mean(net.input, keep=number % 2 == 0))


def _softmax(rng: Draw, number: int) -> bytes:
    net = NetworkBuilder((1, _size(rng, 2, 10_000)))
    return net.finish(net.softmax(net.softmax(net.input)))


def _curve(op: str) -> Callable[[Draw, int], bytes]:
    def draw(rng: Draw, number: int) -> bytes:
        net = _volume(rng, 200, 100_000)
        x = net.input
        for _ in range(2):
            x = net.hard_swish(x) if op == "HARD_SWISH" else net.unary(x, op)
        return net.finish(x)

    return draw


def _pad(rng: Draw, number: int) -> bytes:
    net = _volume(rng)
    return net.finish(net.pad(net.pad(net.input, number % 2, 1), 1, 1))


def _concatenation(rng: Draw, number: int) -> bytes:
    net = _volume(rng, 500, 150_000)
    x = net.concatenate([net.input, net.input])
    return net.finish(net.concatenate([x, net.input]))


def _reshape(rng: Draw, number: int) -> bytes:
    net = _volume(rng, 200, 100_000)
    _, height, width, depth = net.shape(net.input)
    x = net.reshape(net.input, (1, height * width, depth, 1))
    return net.finish(net.reshape(x, (1, height * width * depth)))


def _upsample(rng: Draw, number: int) -> bytes:
    side = _size(rng, 4, 24)
    net = NetworkBuilder((1, side, side, _channels(rng, 8, 64)))
    x = net.upsample(net.input, _channels(rng, 8, 48), 2 + number % 2, 2)
    return net.finish(x)


# --- whole networks -------------------------------------------------------------------------------


def _network(rng: Draw, number: int) -> bytes:
    body = _BODIES[number % len(_BODIES)]
    return body(rng, number // len(_BODIES))


def _image(rng: Draw, low: int, high: int) -> NetworkBuilder:
    return NetworkBuilder((1, _size(rng, low, high), _size(rng, low, high), (3, 1)[rng.random() < 0.3]))


def _headed(net: NetworkBuilder, x: int, rng: Draw) -> bytes:
    """The usual end of a classifier."""
    x = net.dense(net.mean(x), _size(rng, 2, 100), relu=False)
    return net.finish(net.softmax(x))


def _plain_body(rng: Draw, number: int) -> bytes:
    """Convolutions and pooling, then fully connected layers."""
    net, width = _image(rng, 16, 56), _channels(rng, 8, 32)
    x = net.input
    for step in range(int(rng.integers(2, 4))):
        for _ in range(int(rng.integers(1, 3))):
            x = net.convolution(x, width * 2**step)
        x = net.pool(x, ("MAX_POOL_2D", "AVERAGE_POOL_2D")[number % 2], 2, 2)
    flat = net.reshape(x, (1, int(np.prod(net.shape(x)))))
    x = net.dense(net.dense(flat, _size(rng, 16, 96)), _size(rng, 2, 100), relu=False)
    return net.finish(net.softmax(x))


def _separable_body(rng: Draw, number: int) -> bytes:
    """A depthwise and a pointwise convolution a block."""
    net, width = _image(rng, 24, 144), _channels(rng, 6, 40)
    x = net.convolution(net.input, width, (3, 3) if number % 2 else (5, 5), 2)
    for _ in range(int(rng.integers(3, 13))):
        shrinks = net.shape(x)[1] > 6 and rng.random() < 0.4
        if shrinks and number % 2 == 0:
            x = net.depthwise(net.pad(x, 0, 1), (3, 3), 2, same=False)
        else:
            x = net.depthwise(x, (3, 3), 2 if shrinks else 1)
        width = min(320, int(width * (1.7 if shrinks else 1.0)) // 4 * 4)
        x = net.convolution(x, width, (1, 1))
    return _headed(net, x, rng)


def _inverted_body(rng: Draw, number: int) -> bytes:
    """Pointwise expansion, depthwise, pointwise projection, with shortcuts."""
    net, width = _image(rng, 24, 128), _channels(rng, 8, 20)
    x = net.convolution(net.input, 2 * width, (3, 3), 2)
    for _ in range(int(rng.integers(3, 13))):
        expansion, before = int(rng.integers(2, 7)), x
        h = net.convolution(x, net.shape(x)[3] * expansion, (1, 1))
        stride = 2 if net.shape(h)[1] > 6 and rng.random() < 0.4 else 1
        width = min(96, width * 3 // 2 if stride == 2 else width)
        h = net.depthwise(h, (5, 5) if rng.random() < 0.2 else (3, 3), stride)
        x = net.convolution(h, width, (1, 1), relu=False)
        x = net.add(x, before) if net.shape(x) == net.shape(before) else x
    return _headed(net, net.convolution(x, 4 * width, (1, 1)), rng)


def _residual_body(rng: Draw, number: int) -> bytes:
    """Two convolutions a block, with shortcuts that are projected where the shape changes."""
    net, width = _image(rng, 16, 48), _channels(rng, 8, 32)
    x = net.convolution(net.input, width)
    for _ in range(int(rng.integers(2, 5))):
        stride = 2 if net.shape(x)[1] > 6 and rng.random() < 0.5 else 1
        width = min(96, width * stride)
        h = net.convolution(net.convolution(x, width, (3, 3), stride), width, relu=False)
        x = x if net.shape(x) == net.shape(h) else net.convolution(x, width, (1, 1), stride, relu=False)
        x = net.add(h, x, relu=True)
    return _headed(net, x, rng)


def _gated_body(rng: Draw, number: int) -> bytes:
    """Branches that are joined, and gates."""
    net, width = _image(rng, 16, 64), _channels(rng, 8, 32)
    x = net.convolution(net.input, width, (3, 3), 2)
    for _ in range(int(rng.integers(1, 4))):
        left, right = net.convolution(x, width, (1, 1)), net.convolution(x, width, (3, 3))
        x = net.convolution(net.concatenate([left, right]), width, (1, 1), relu=False)
        x = net.hard_swish(x) if number % 2 else net.multiply(x, net.unary(x, "LOGISTIC"))
    return _headed(net, x, rng)


def _dense_body(rng: Draw, number: int) -> bytes:
    """Fully connected layers, wide, narrow and wide again."""
    width = _size(rng, 8, 700)
    net = NetworkBuilder((1, width))
    inner, narrow = _channels(rng, 8, 300), _size(rng, 2, 24)
    x = net.input
    for units in [inner] * int(rng.integers(1, 5)) + [narrow] + [inner] * int(rng.integers(1, 5)):
        x = net.dense(x, units)
    return net.finish(net.dense(x, width, relu=False))


_BODIES: Sequence[Callable[[Draw, int], bytes]] = (
    _plain_body,
    _separable_body,
    _inverted_body,
    _residual_body,
    _gated_body,
    _dense_body,
)
# How many of each kind, and how one is drawn.
_KINDS: dict[str, tuple[int, Callable[[Draw, int], bytes]]] = {
    "pointwise": (12, _pointwise),
    "spatial": (14, _spatial),
    "first": (6, _first),
    "depthwise": (12, _depthwise),
    "dense": (18, _dense),
    "upsample": (4, _upsample),
    "elementwise": (5, _elementwise),
    "average-pool": (4, _pool("AVERAGE_POOL_2D")),
    "max-pool": (4, _pool("MAX_POOL_2D")),
    "mean": (5, _mean),
    "softmax": (4, _softmax),
    "logistic": (3, _curve("LOGISTIC")),
    "tanh": (2, _curve("TANH")),
    "hard-swish": (3, _curve("HARD_SWISH")),
    "relu": (3, _curve("RELU")),
    "pad": (4, _pad),
    "concatenation": (4, _concatenation),
    "reshape": (3, _reshape),
    "network": (36, _network),
}
