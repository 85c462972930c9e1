"""What calibration data shows of a layer: sampled input columns, the Hessian of its inputs, activation ranges.

A layer is seen as G independent products X_g W_g^T: one for a plain convolution or fully connected layer, one a
channel for a depthwise convolution, one a group for a grouped one. Weights are then (G, R, n), inputs (G, N, n),
Hessians (G, n, n) and outputs (G, N, R), with R output channels and n = kernel area x input channels a group."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from autocompress.errors import CandidateError
from autocompress.network.graph.layers import Layer
from autocompress.network.tflite import flatbuffer
from autocompress.network.tflite.batching import WANTED, affordable_batch
from autocompress.network.tflite.interpreter import in_lanes, interpreter
from autocompress.network.tflite.short_floats import short

Array = np.ndarray[Any, Any]
Ranges = dict[str, tuple[float, float]]  # of tensors by name: smallest and largest value
FEWEST_PATCHES = 2048
MAX_COLUMNS = 4096  # wider Hessians are cut into diagonal blocks


@dataclass(frozen=True, kw_only=True)
class Patches:
    """Which output positions of a layer are looked at: sample number and row and column of each kernel tap in the
    input, (N, kh) and (N, kw), with a mask of the taps that hit the input and not its padding."""

    sample: Array
    rows: Array
    columns: Array
    inside: Array | None


def groups_of(layer: Layer) -> int:
    """How many independent products the layer is, before wide Hessians are cut."""
    if layer.op == "DEPTHWISE_CONV_2D":
        return layer.input_shape[-1]
    if layer.op == "CONV_2D":
        return layer.input_shape[-1] // layer.shape[3]
    return 1


def blocks_of(layer: Layer) -> tuple[int, int]:
    """(number of column blocks, zero columns that pad the last): wide products are cut, their Hessian is then block
    diagonal. (1, 0) for layers of at most MAX_COLUMNS columns and for grouped ones."""
    columns = math.prod(layer.shape) // layer.outputs
    if groups_of(layer) > 1 or columns <= MAX_COLUMNS:
        return 1, 0
    blocks = -(-columns // MAX_COLUMNS)
    return blocks, -columns % blocks


def to_matrix(layer: Layer, weight: Array) -> Array:
    """The weight (as in the flatbuffer) as (G, R, n)."""
    groups = groups_of(layer)
    if layer.op == "DEPTHWISE_CONV_2D":  # (1, kh, kw, channels * multiplier), multiplier fastest
        area = layer.shape[1] * layer.shape[2]
        return weight.reshape(area, groups, -1).transpose(1, 2, 0)
    return _cut_columns(layer, weight.reshape(groups, layer.shape[0] // groups, -1))


def _cut_columns(layer: Layer, matrix: Array) -> Array:
    """(1, R, n) as (blocks, R, columns of a block), zero padded."""
    blocks, padding = blocks_of(layer)
    if blocks == 1:
        return matrix
    padded = np.pad(matrix[0], ((0, 0), (0, padding)))
    return np.ascontiguousarray(padded.reshape(len(padded), blocks, -1).transpose(1, 0, 2))


def from_matrix(layer: Layer, matrix: Array) -> Array:
    """The inverse of `to_matrix`."""
    if layer.op == "DEPTHWISE_CONV_2D":
        return np.ascontiguousarray(matrix.transpose(2, 0, 1)).reshape(layer.shape)
    blocks, padding = blocks_of(layer)
    if blocks > 1:
        joined = matrix.transpose(1, 0, 2).reshape(layer.outputs, -1)
        matrix = joined[:, : joined.shape[1] - padding]
    return matrix.reshape(layer.shape)


def choose_patches(layer: Layer, samples: int, limit: int, seed: int) -> Patches | None:
    """At most `limit` output positions of `samples` inputs, drawn without replacement; None for fully connected."""
    if layer.op == "FULLY_CONNECTED":
        return None
    height, width = layer.output_shape[1:3]
    total = samples * height * width
    chosen = np.random.default_rng(seed).choice(total, min(total, limit), replace=False, shuffle=False)
    sample, position = np.divmod(np.sort(chosen), height * width)
    taps = [_taps(layer, axis, np.asarray(at)) for axis, at in enumerate(np.divmod(position, width))]
    (rows, rows_in), (columns, columns_in) = taps
    inside = rows_in[:, :, None] & columns_in[:, None, :]
    return Patches(sample=sample, rows=rows, columns=columns, inside=None if inside.all() else inside)


def _taps(layer: Layer, axis: int, at: Array) -> tuple[Array, Array]:
    """Input positions (N, k) along one spatial axis that output position `at` (N,) reads, and which of them exist."""
    size_in, size_out = layer.input_shape[1 + axis], layer.output_shape[1 + axis]
    kernel, stride, dilation = layer.shape[1 + axis], layer.geometry.stride[axis], layer.geometry.dilation[axis]
    reach = (kernel - 1) * dilation + 1
    offsets = np.arange(kernel) * dilation
    if layer.op == "TRANSPOSE_CONV":  # output = input * stride + tap - padding
        padding = max((size_in - 1) * stride + reach - size_out, 0) // 2 if layer.geometry.same_padding else 0
        spread = at[:, None] + padding - offsets
        position, exact = spread // stride, spread % stride == 0
    else:
        padding = max((size_out - 1) * stride + reach - size_in, 0) // 2 if layer.geometry.same_padding else 0
        position, exact = at[:, None] * stride + offsets - padding, np.True_
    inside = exact & (position >= 0) & (position < size_in)
    return np.clip(position, 0, size_in - 1), np.broadcast_to(inside, position.shape)


def columns_of(layer: Layer, inputs: Array, patches: Patches | None) -> Array:
    """The layer's inputs at `patches` as (G, N, n) float32; what is not finite counts as zero."""
    return _finite(_columns_of(layer, inputs, patches))


def _finite(values: Array) -> Array:
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(values.sum()):  # one pass without a copy; sums of huge values are looked at twice
            return values
    return np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)


def _columns_of(layer: Layer, inputs: Array, patches: Patches | None) -> Array:
    if patches is None:
        return _cut_columns(layer, inputs.reshape(1, -1, layer.shape[1]).astype(np.float32, copy=False))
    at = (patches.sample[:, None, None], patches.rows[:, :, None], patches.columns[:, None, :])
    taken = inputs[at]  # (N, kh, kw, channels)
    if patches.inside is not None:
        taken *= patches.inside[..., None]
    groups = groups_of(layer)
    if groups == 1:
        return _cut_columns(layer, taken.reshape(1, len(taken), -1))
    split = taken.reshape(len(taken), -1, groups, taken.shape[-1] // groups)
    return np.ascontiguousarray(split.transpose(2, 0, 1, 3)).reshape(groups, len(taken), -1)


def column_mean(columns: Array) -> Array:
    """(G, n) float64: the mean over the N columns (float32), to about six digits. As a matrix product: a sum over the
    middle axis of narrow columns takes ten times as long."""
    ones = np.ones((1, columns.shape[1]), np.float32)
    mean: Array = _product(ones, columns)[:, 0].astype(np.float64) / columns.shape[1]
    return mean


def _product(left: Array, right: Array) -> Array:
    """The matrix product in single precision; in double where it overflows that."""
    with np.errstate(over="ignore", invalid="ignore"):
        found: Array = np.matmul(left, right)
    if np.isfinite(found).all():
        return found
    exact: Array = np.matmul(left.astype(np.float64), right.astype(np.float64))
    return exact


def products_of(columns: Array, matrix: Array) -> Array:
    """What a layer of this weight (G, R, n) makes of the columns (G, N, n): (G, N, R) float32, the largest number for
    what overflows."""
    most = np.finfo(np.float32).max
    found = _product(columns, matrix.transpose(0, 2, 1))
    return found if found.dtype == np.float32 else np.clip(found, -most, most).astype(np.float32)


def second_moment(columns: Array, others: Array | None = None) -> Array:
    """(G, n, m): the mean of x y^T over the N columns x of `columns` and y of `others` (default: the same).

    For the squared error of the layer's outputs this is half the Hessian in its weights, the same for each output
    channel (OBS: Hassibi and Stork 1992; Optimal Brain Compression, arXiv 2208.11580, eq. 2)."""
    others = columns if others is None else others
    moment: Array = _product(columns.transpose(0, 2, 1), others)
    moment /= np.float32(columns.shape[1])
    return moment


def patch_limit(layer: Layer, most: int, fewest: int = FEWEST_PATCHES) -> int:
    """How many output positions are enough: a multiple of the columns, between `fewest` and `most`."""
    columns = math.prod(layer.shape) // layer.outputs
    return int(min(max(fewest, 40 * columns), most))


def activation_ranges(
    model: bytes, inputs: Mapping[int, Array], chunk: int, threads: int
) -> dict[str, tuple[float, float]]:
    """Smallest and largest value of every float tensor of the main graph over `inputs` (by tensor index), by name;
    infinite or NaN where one was. CandidateError where the runtime fails.

    A network whose inner tensors are large runs on the delegate's kernels, each tensor one of its outputs: the built-in
    ones, which keep tensors readable by themselves, take ten times as long."""
    samples, large = len(next(iter(inputs.values()))), affordable_batch(model) < WANTED
    shapes = {i: (chunk, *v.shape[1:]) for i, v in inputs.items()}
    made = _made(model)
    watched = flatbuffer.watched(model, made) if large else model

    def lane(number: int) -> Callable[[int], Ranges]:
        run = interpreter(watched, 1 if large else threads, shapes, keep_all=not large)
        named = {d["index"]: d["name"] for d in run.get_tensor_details() if d["dtype"] is np.float32 and d["name"]}
        computed = {index: named[index] for index in (*inputs, *made) if index in named}

        def of_piece(piece: int) -> Ranges:
            _run_piece(run, {i: v[piece * chunk :][:chunk] for i, v in inputs.items()})
            return _ranges_of(run, computed if piece else named)  # constants once

        return of_piece

    ranges: Ranges = {}
    for found in in_lanes(samples // chunk, threads if large else 1, lane):
        for name, (low, high) in found.items():
            _widen(ranges, name, np.array([low, high]))
    return ranges


def _made(model: bytes) -> list[int]:
    """What the main graph gives, then all else that its operators make."""
    graph = flatbuffer.read(model).subgraphs[0]
    made = (i for operator in graph.operators for i in operator.outputs)
    return list(dict.fromkeys(int(i) for i in (*graph.outputs, *made)))


def _run_piece(run: Any, values: Mapping[int, Array]) -> None:
    run.reset_all_variables()
    for index, chunk in values.items():
        run.set_tensor(index, chunk)
    try:
        run.invoke()
    except (RuntimeError, ValueError) as fault:
        raise CandidateError(f"the runtime fails on the model: {' '.join(str(fault).split())}") from fault


def _ranges_of(run: Any, named: Mapping[int, str]) -> Ranges:
    """The ranges of those of these tensors (by index: their names) that can be read."""
    ranges: Ranges = {}
    for index, name in named.items():
        _widen(ranges, name, _values(run, index))
    return ranges


def _values(run: Any, tensor: int) -> Array | None:
    try:
        values: Array = run.get_tensor(tensor)
    except ValueError:  # never made: a result of a loop that nobody reads, for one
        return None
    return values


def _widen(ranges: Ranges, name: str, values: Array | None) -> None:
    if values is not None and values.size:
        low, high = ranges.get(name, (np.inf, -np.inf))
        ranges[name] = (float(np.minimum(low, values.min())), float(np.maximum(high, values.max())))  # NaN stays


def is_bounded(ranges: Mapping[str, tuple[float, float]], name: str) -> bool:
    """Whether the range of this tensor is known and finite: another has no scale, and stays float."""
    return name in ranges and all(map(math.isfinite, ranges[name]))


def static_quantizer(low: float, high: float, activations: str) -> Callable[[Array], Array]:
    """What static activations leave of values seen within [low, high]: rounded to the int8 (asymmetric) or int16
    (symmetric) grid and clipped, as TFLite's quantization specification defines the two."""
    if activations == "int16":
        scale, zero, least, most = max(abs(low), abs(high), 1e-12) / 32767, 0.0, -32767, 32767
    else:
        low, high = min(low, 0.0), max(high, 0.0)
        scale = max(high - low, 1e-12) / 255
        zero, least, most = float(np.rint(-128 - low / scale)), -128, 127
    return lambda values: _on_grid(values, np.float32(short(scale, up=True)), np.float32(zero), least, most)


def _on_grid(values: Array, scale: np.float32, zero: np.float32, least: int, most: int) -> Array:
    grid = values / scale
    np.rint(grid, out=grid)
    np.clip(grid, least - zero, most - zero, out=grid)
    grid *= scale
    return grid
