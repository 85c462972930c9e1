"""Small networks whose converter wrote a batch of 1 into constants, and their outputs one sample at a time."""

from __future__ import annotations

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from autocompress.network.tflite.builder import NetworkBuilder
from tests.builders.arrays import Array

SHAPE = (8, 8, 4)


class _Converted(NetworkBuilder):
    """A network builder with the operators that converters write a batch into."""

    def slice(self, x: int, begin: tuple[int, ...], size: tuple[int, ...]) -> int:
        """SLICE by constants."""
        places = [self._constant(np.array(values, np.int32)) for values in (begin, size)]
        return self._op("SLICE", [x, *places], size, self._schema.SliceOptionsT(), "SliceOptions")


def slice_gate(batch: int = 1) -> bytes:
    """a * sigmoid(a[..., :1]) with a SLICE of one sample, whatever the batch."""
    net = _Converted((batch, *SHAPE))
    h = net.convolution(net.input, 8)
    gate = net.unary(net.slice(h, (0, 0, 0, 0), (1, *SHAPE[:2], 1)), "LOGISTIC")
    h = net.convolution(net.multiply(h, gate), 8)
    return net.finish(net.dense(net.mean(h), 6, relu=False))


def upsampled() -> bytes:
    """TRANSPOSE_CONV to a constant shape of one sample."""
    net = _Converted((1, *SHAPE))
    h = net.upsample(net.convolution(net.input, 8), 6, 3, 2)
    return net.finish(net.dense(net.mean(net.convolution(h, 8)), 6, relu=False))


def reshaped() -> bytes:
    """A RESHAPE to one sample: no other batch runs."""
    net = _Converted((1, *SHAPE))
    h = net.reshape(net.convolution(net.input, 3), (1, SHAPE[0] * SHAPE[1] * 3))
    return net.finish(net.dense(net.dense(h, 12), 6, relu=False))


def free() -> bytes:
    """No constant holds a batch."""
    net = _Converted((1, *SHAPE))
    return net.finish(net.dense(net.mean(net.convolution(net.input, 8)), 6, relu=False))


FIXED = {"slice": slice_gate, "transpose-conv": upsampled, "reshape": reshaped}


def samples(count: int, seed: int = 0) -> Array:
    """Standard normal inputs (count, 8, 8, 4), each of its own scale."""
    rng = np.random.default_rng(seed)
    scales = rng.uniform(0.3, 2.0, (count, 1, 1, 1))
    return (rng.standard_normal((count, *SHAPE)) * scales).astype(np.float32)


def one_by_one(model: bytes, x: Array) -> Array:
    """The outputs of a network for `x`, by plain LiteRT, a sample at a time."""
    plain = Interpreter(model_content=model)
    plain.allocate_tensors()
    found = []
    for sample in x:
        plain.set_tensor(plain.get_input_details()[0]["index"], sample[None])
        plain.invoke()
        found.append(plain.get_tensor(plain.get_output_details()[0]["index"])[0])
    return np.array(found)
