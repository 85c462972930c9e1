"""What an inference consists of, in terms whose costs can be measured: what is counted of each kind of operator.

Every operator belongs to a class (how it is computed) and a dtype (float32; dynamic: integer weights and float
activations; int8). The latency of a network is the sum over its operators of what their terms cost in that class and
dtype, and of its own terms. Operators and networks count in ones, all else in millions:

- ops: 1, what any operator of the class costs before it computes anything.
- mmac_by_8, mmac_by_16: multiply-accumulates in integers, with the output channels rounded up to SIMD tiles of 8 and 16
  and the channels that are summed over rounded up to 8 (an integer dot product takes them so). Which tile a device has
  comes out of the fit.
- mmac_in_8, mmac_in_16: the same in floats, all of a layer in one of them: of two kernels a runtime takes that with
  tiles of 8 where these are padded less, and a step of it takes about as long as one of 16 (on x86-64 248 outputs take
  nearly as long as 496). A device with one kernel has the same cost for both.
- inputs, outputs: values read and written. Dynamic kernels quantize each input, integer ones rescale each output.
- rows: output positions. taps: output positions times kernel positions times blocks of 8 output channels (of a
  depthwise convolution: channels do not count), the pointers an indirect convolution follows (arXiv 1907.02129).
- ragged: of integer and depthwise layers whose output channels are no multiple of 8, the steps that fill a last, partly
  masked tile: output positions times what is summed over (of a depthwise convolution: taps).
- elements: values of an operator without weights, the larger of read and written. reads: outputs of a pooling times
  its window.
- once: 1, what an inference costs as such. weights_beyond_l1, weights_beyond_l2: megabytes of all weights beyond 32 KB
  and 400 KB: what does not stay in a cache from one inference to the next is read again. activations_beyond_l2: the
  same of each operator's input and output."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from autocompress.latency.model.operators import Operator, Tensor

Key = tuple[str, str, str]  # dtype, class, term
NETWORK, UNKNOWN = "network", "unknown"
LAYER_CLASSES = ("pointwise", "spatial", "depthwise", "dense", "upsample")
_MILLION = 1e6
_L1_MB, _L2_MB = 0.032, 0.4
_CLASSES = {
    "ADD": "elementwise",
    "SUB": "elementwise",
    "MUL": "elementwise",
    "RELU": "relu",
    "RELU6": "relu",
    "AVERAGE_POOL_2D": "average_pool",
    "MAX_POOL_2D": "max_pool",
    "MEAN": "mean",
    "SOFTMAX": "softmax",
    "LOGISTIC": "logistic",
    "TANH": "tanh",
    "HARD_SWISH": "hard_swish",
    "PAD": "pad",
    "CONCATENATION": "concatenation",
    "RESHAPE": "reshape",
    "DEQUANTIZE": "dequantize",
    "DEPTHWISE_CONV_2D": "depthwise",
    "TRANSPOSE_CONV": "upsample",
}
_ROW_BY_ROW = ("average_pool", "max_pool", "mean", "softmax", "pad", "concatenation")
_LAYER_DTYPES = {("FLOAT32", "FLOAT32"): "float32", ("FLOAT32", "INT8"): "dynamic", ("INT8", "INT8"): "int8"}


@dataclass(frozen=True, kw_only=True)
class Terms:
    """The terms of a network: their sums, and the largest value that one operator has of each. `unknown`: ops of no
    class, which have no cost; `uncalibrated`: layers in a dtype that is none of the three."""

    total: Mapping[Key, float]
    largest: Mapping[Key, float]
    unknown: tuple[str, ...]
    uncalibrated: tuple[str, ...]


def terms_of(operators: Iterable[Operator]) -> Terms:
    """The terms of a network of these operators."""
    operators = tuple(operators)
    total: defaultdict[Key, float] = defaultdict(float)
    largest: defaultdict[Key, float] = defaultdict(float)
    unknown, uncalibrated = set(), set()
    for operator in operators:
        dtype, name = _dtype(operator), _class(operator)
        if dtype is None:
            uncalibrated.add(f"{operator.op} of {operator.weight.kind} weights and {operator.first.kind} inputs")
            continue
        if name == UNKNOWN:
            unknown.add(operator.op)
        for term, value in _terms(operator, dtype, name).items():
            key = (dtype, name, term)
            total[key] += value
            largest[key] = max(largest[key], value)
    for term, value in _of_network(operators).items():
        total["", NETWORK, term] = value
    return Terms(
        total=dict(total),
        largest=dict(largest),
        unknown=tuple(sorted(unknown)),
        uncalibrated=tuple(sorted(uncalibrated)),
    )


def _dtype(operator: Operator) -> str | None:
    """The dtype that the operator computes in; None for a layer in another (int16, 4-bit weights)."""
    kind = operator.first.kind
    if operator.is_layer:
        return _LAYER_DTYPES.get((kind, operator.weight.kind))
    if operator.op == "QUANTIZE":
        kind = operator.output.kind
    return "int8" if kind in ("INT8", "UINT8") else "float32"


def _class(operator: Operator) -> str:
    if operator.op in ("CONV_2D", "FULLY_CONNECTED"):
        if operator.op == "FULLY_CONNECTED":
            return "dense" if _rows(operator.output) == 1 else "pointwise"
        single = operator.weight.shape[1:3] == (1, 1) and operator.first.shape[:3] == operator.output.shape[:3]
        return "pointwise" if single else "spatial"
    if operator.op == "QUANTIZE":
        return "quantize" if operator.first.kind == "FLOAT32" else "requantize"
    return _CLASSES.get(operator.op, UNKNOWN)


def _terms(operator: Operator, dtype: str, name: str) -> dict[str, float]:
    if name == "reshape":
        return {"ops": 1.0}
    if operator.is_layer:
        return {"ops": 1.0, **{k: v / _MILLION for k, v in _of_layer(operator, dtype, name).items()}}
    read, written = operator.first, operator.output
    counts = {"elements": max(read.elements, written.elements)}
    if name in _ROW_BY_ROW:
        counts["rows"] = max(_rows(read), _rows(written))
    if name in ("average_pool", "max_pool"):
        counts["reads"] = written.elements * operator.window
    return {"ops": 1.0, **{term: count / _MILLION for term, count in counts.items()}}


def _of_layer(operator: Operator, dtype: str, name: str) -> dict[str, int]:
    counts = {"inputs": operator.first.elements, "outputs": operator.output.elements}
    if name == "upsample":
        return counts | {"mmac_by_8": operator.macs}
    rows, kernel = _rows(operator.output), math.prod(operator.weight.shape[1:-1])
    if name == "depthwise":
        channels = operator.weight.shape[-1]
        ragged = rows * kernel if channels % 8 else 0
        return counts | {"mmac_by_8": rows * kernel * _up(channels, 8), "taps": rows * kernel, "ragged": ragged}
    channels, depth = operator.weight.shape[0], operator.weight.shape[-1]
    if dtype == "float32":
        steps = rows * kernel * depth
        tile = 8 if _up(channels, 8) < _up(channels, 16) else 16
        counts |= {"mmac_in_8": 0, "mmac_in_16": 0, f"mmac_in_{tile}": steps * _up(channels, tile)}
    else:
        steps = rows * kernel * _up(depth, 8)
        counts["ragged"] = steps if channels % 8 else 0
        counts |= {f"mmac_by_{tile}": steps * _up(channels, tile) for tile in (8, 16)}
    if name != "dense":
        counts["rows"] = rows
    if name == "spatial":
        counts["taps"] = rows * kernel * _up(channels, 8) // 8
    return counts


def _of_network(operators: Iterable[Operator]) -> dict[str, float]:
    weights = sum(o.weight.bits for o in operators if o.is_layer) / 8 / _MILLION
    activations = [(o.first.bits + o.output.bits) / 8 / _MILLION for o in operators if o.op != "RESHAPE"]
    return {
        "once": 1.0,
        "weights_beyond_l1": max(0.0, weights - _L1_MB),
        "weights_beyond_l2": max(0.0, weights - _L2_MB),
        "activations_beyond_l2": sum(max(0.0, each - _L2_MB) for each in activations),
    }


def _rows(tensor: Tensor) -> int:
    """Positions of a tensor: its elements over its channels."""
    return tensor.elements // max(1, tensor.shape[-1]) if tensor.shape else 1


def _up(count: int, tile: int) -> int:
    return -(-count // tile) * tile
