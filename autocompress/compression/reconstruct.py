"""From a configuration to solved layers, in two tiers.

*Independent*: a layer and its choice solved on the float network's inputs, once, whatever the other layers do; a
candidate then only gets its biases corrected, layer after layer on its own activations (mean outputs equal the float
network's).
*Sequential*: layer after layer on the inputs X' that the network compressed so far really gives it. First the weights
and bias that bring W'X' + b' back to the float network's WX + b by ridge least squares (towards W), then the solver
under the constraint with the moment of X'. No labels, no training; candidates that share a prefix of choices share its
work."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from autocompress.compression import definite
from autocompress.compression.solve import Problem, Solution, solve
from autocompress.network.graph import trace
from autocompress.network.graph.layers import Layer
from autocompress.network.graph.segments import Segments, State
from autocompress.network.tflite.graph import graph_of
from autocompress.network.tflite.tree import Tree
from autocompress.records.configuration import Configuration, LayerChoice

Array = np.ndarray[Any, Any]
RIDGE = 0.005  # of the mean diagonal of the moment of X'
_MOST_PATCHES = 12288
# Of the outputs' variance; below it a fit to a few hundred samples brings a fine layer more noise than it mends.
_LEAST_DRIFT = 0.05
_BIAS_SAMPLES = 128
_SCREENING_SWEEPS = 2
_PREFIX_BYTES = 512 * 2**20  # kept states of prefixes; short prefixes are shared most and go last
_WIDE_PREFIX_BYTES = 128 * 2**20  # where one state is larger than that of a small network ever is
_WIDE_STATE_BYTES = 96 * 2**20
_NARROW_PREFIX_BYTES = 64 * 2**20  # of each network that lost channels: there may be several at once


@dataclass(frozen=True, kw_only=True)
class SolvedLayer:
    """A layer as the builder writes it: `weight` float32 in the flatbuffer's shape; for integer layers also `levels`
    (int8, same shape) and `scale` (float32, one an output channel) with weight = levels x scale; `bias` float32 or
    None."""

    weight: Array
    bias: Array | None
    levels: Array | None = None
    scale: Array | None = None


@dataclass(frozen=True, kw_only=True)
class FloatLayer:
    """What calibration showed of a layer of the float network: its weight (G, R, n), bias (outputs,) or None, the
    patches looked at, its products there without bias (G, N, R), the moment and the mean of its inputs (G, n, n) and
    (G, n). The moment is in the precision it was computed in, and None where only products were asked for."""

    layer: Layer
    weight: Array
    bias: Array | None
    patches: trace.Patches | None
    products: Array
    moment: Array | None
    mean: Array

    def problem(self, weight: Array, moment: Array) -> Problem:
        """The solver's problem for these weights and inputs."""
        blocks, padding = trace.blocks_of(self.layer)
        return Problem(weight=weight, moment=moment, shared_scale=blocks > 1, padding=padding)

    @cached_property
    def product_mean(self) -> Array:
        """The mean of the products, (G, R): what every fit aims at."""
        return trace.column_mean(self.products)

    @cached_property
    def own_problem(self) -> Problem:
        """The solver's problem on the float network's inputs, the same for every choice."""
        assert self.moment is not None
        return self.problem(self.weight, self.moment.astype(np.float64))

    def forget(self) -> None:
        """Let go of the problems and what the solver keeps with them, several times the moment."""
        for name in ("own_problem", "centred_problem"):
            self.__dict__.pop(name, None)

    @cached_property
    def centred_problem(self) -> Problem:
        """The same where a bias takes over what is constant, as behind sequential reconstruction."""
        if self.bias is None:
            return self.own_problem
        assert self.moment is not None
        return self.problem(self.weight, self.moment - self.mean[:, :, None] * self.mean[:, None, :])


class Reconstruction:
    """The solver's two tiers on one network and its calibration inputs (arrays by tensor index, samples first).

    `floats`: what the layers shall compute, where that is not what they do compute (in a network that lost channels);
    every layer is then fitted, whatever is chosen for it."""

    def __init__(
        self,
        tree: Tree,
        layers: Sequence[Layer],
        inputs: Mapping[int, Array],
        *,
        chunk: int,
        threads: int,
        floats: Sequence[FloatLayer] | None = None,
    ) -> None:
        self._segments = Segments(tree, layers, inputs, chunk, threads)
        self.layers = tuple(layers)
        self._graph = graph_of(tree)
        self._narrowed, self._kept_bytes = floats is not None, _PREFIX_BYTES if floats is None else _NARROW_PREFIX_BYTES
        self._inputs, self._chunk, self._threads = inputs, chunk, threads
        self.floats = self._trace(self._segments, _MOST_PATCHES) if floats is None else tuple(floats)
        self._independent: dict[tuple[int, LayerChoice], SolvedLayer] = {}
        self._prefixes: dict[tuple[Any, ...], tuple[State, SolvedLayer]] = {}

    def towards(self, tree: Tree, layers: Sequence[Layer], floats: Sequence[FloatLayer]) -> Reconstruction:
        """The same inputs through another network, whose layers shall compute what `floats` say."""
        return Reconstruction(tree, layers, self._inputs, chunk=self._chunk, threads=self._threads, floats=floats)

    def head(
        self, samples: int, patches: int, fewest: int = trace.FEWEST_PATCHES
    ) -> tuple[Segments, tuple[FloatLayer, ...]]:
        """A walk over the first samples only (whole chunks), and the float layers there, of at most `patches` each, of
        the `fewest` where columns are few, without moments."""
        segments = self._segments.head(samples)
        return segments, self._trace(segments, patches, fewest, moments=False)

    def _trace(
        self, segments: Segments, patches: int, fewest: int = trace.FEWEST_PATCHES, moments: bool = True
    ) -> tuple[FloatLayer, ...]:
        state: State = segments.start
        floats = []
        for position, layer in enumerate(self.layers):
            weight = self._graph.constant(layer.weight)
            bias = None if layer.bias is None else self._graph.constant(layer.bias)
            assert weight is not None
            limit = trace.patch_limit(layer, patches, fewest)
            floats.append(_float_layer(layer, weight, bias, state[layer.input], position, limit, moments))
            if position + 1 < len(self.layers):
                state = segments.after(position, state, weight, bias)
        return tuple(floats)

    def independent(self, position: int, choice: LayerChoice) -> SolvedLayer:
        """Layer `position` under `choice`, solved on the float network's inputs; remembered."""
        key = (position, choice)
        if key not in self._independent:
            float_layer = self.floats[position]
            solution = solve(float_layer.own_problem, choice, sweeps=_SCREENING_SWEEPS)
            self._independent[key] = _solved(float_layer, solution, float_layer.bias)
        return self._independent[key]

    def independent_all(self, configuration: Configuration) -> list[SolvedLayer]:
        """All layers of a configuration by the independent tier, biases corrected on the way."""
        segments, floats = self._head
        state, corrected = segments.start, []
        for position, layer in enumerate(self.layers):
            solved = self.independent(position, configuration.layers[layer.name])
            solved = _bias_corrected(floats[position], solved, state[layer.input])
            corrected.append(solved)
            if position + 1 < len(self.layers):
                state = segments.after(position, state, solved.weight, solved.bias)
        return corrected

    @cached_property
    def _head(self) -> tuple[Segments, tuple[FloatLayer, ...]]:
        """A shorter walk for correcting biases: means need fewer samples than moments."""
        return self.head(_BIAS_SAMPLES, _MOST_PATCHES)

    def sequential(
        self, configuration: Configuration, quantize: Callable[[int, Array], Array] | None = None
    ) -> list[SolvedLayer]:
        """All layers of a configuration by sequential reconstruction. `quantize(tensor, values)` gives what static
        activations leave of the values of a tensor; None for float activations."""
        state, solved, changed = self._start(quantize), [], self._narrowed or quantize is not None
        prefix: tuple[Any, ...] = (configuration.activations,)
        for position, layer in enumerate(self.layers):
            choice = configuration.layers[layer.name]
            prefix = (*prefix, choice)
            changed = changed or not choice.is_baseline
            known = self._prefixes.get(prefix) or self._step(position, choice, state, changed, quantize)
            self._remember(prefix, known)
            state, layer_solved = known
            solved.append(layer_solved)
        return solved

    def _start(self, quantize: Callable[[int, Array], Array] | None) -> State:
        return self._segments.start if quantize is None else _quantized(self._segments.start, quantize)

    def _step(
        self,
        position: int,
        choice: LayerChoice,
        state: State,
        changed: bool,
        quantize: Callable[[int, Array], Array] | None,
    ) -> tuple[State, SolvedLayer]:
        """Solve one layer on its real inputs, and walk on to the next layer."""
        float_layer, layer = self.floats[position], self.layers[position]
        solved = _reconstruct(float_layer, choice, state[layer.input]) if changed else untouched(float_layer)
        if position + 1 == len(self.layers):
            return {}, solved
        after: State = self._segments.after(position, state, solved.weight, solved.bias)
        return (after if quantize is None else _quantized(after, quantize, set(state))), solved

    def _remember(self, prefix: tuple[Any, ...], value: tuple[State, SolvedLayer]) -> None:
        self._prefixes.pop(prefix, None)
        self._prefixes[prefix] = value
        if _bytes(value[0]) > _WIDE_STATE_BYTES:
            self._kept_bytes = min(self._kept_bytes, _WIDE_PREFIX_BYTES)
        while sum(_bytes(state) for state, _ in self._prefixes.values()) > self._kept_bytes:
            longest = max(self._prefixes, key=len)  # the oldest of the longest: dict order is age
            del self._prefixes[longest]


def _bytes(state: State) -> int:
    return sum(values.nbytes for values in state.values())


def _quantized(state: State, quantize: Callable[[int, Array], Array], done: Collection[int] = ()) -> State:
    return {i: v if i in done else quantize(i, v) for i, v in state.items()}


def _float_layer(
    layer: Layer, weight: Array, bias: Array | None, inputs: Array, seed: int, limit: int, moments: bool
) -> FloatLayer:
    patches = trace.choose_patches(layer, len(inputs), limit, seed)
    columns = trace.columns_of(layer, inputs, patches)
    matrix = trace.to_matrix(layer, weight)
    return FloatLayer(
        layer=layer,
        weight=matrix.astype(np.float64),
        bias=None if bias is None else bias.astype(np.float64),
        patches=patches,
        products=trace.products_of(columns, matrix),
        moment=trace.second_moment(columns) if moments else None,
        mean=trace.column_mean(columns),
    )


def untouched(float_layer: FloatLayer) -> SolvedLayer:
    """The float layer as it is."""
    weight = trace.from_matrix(float_layer.layer, float_layer.weight).astype(np.float32)
    return SolvedLayer(weight=weight, bias=_float32(float_layer.bias))


def _float32(values: Array | None) -> Array | None:
    return None if values is None else values.astype(np.float32)


def _reconstruct(float_layer: FloatLayer, choice: LayerChoice, inputs: Array) -> SolvedLayer:
    """Ridge fit to the float network's products on the real inputs, then the solver under the constraint."""
    if choice.is_baseline:
        return fitted(float_layer, inputs)
    columns, mean = _centred(float_layer, inputs)
    centred = trace.second_moment(columns).astype(np.float64)
    if _is_fine(choice) and _drift(float_layer, columns) < _LEAST_DRIFT:
        weight, shift = float_layer.weight, _mean_gap(float_layer, float_layer.weight, mean)
    else:
        weight, shift = _ridge_fit(float_layer, columns, centred, mean)
    if float_layer.bias is None:
        whole = centred + mean[:, :, None] * mean[:, None, :]
        return _solved(float_layer, solve(float_layer.problem(weight, whole), choice), None)
    # The bias is fitted again behind the solver, so only what it cannot take over counts: the centred moment.
    solution = solve(float_layer.problem(weight, centred), choice)
    left = np.einsum("grn,gn->gr", weight - solution.values, mean)
    return _solved(float_layer, solution, float_layer.bias + _by_channel(float_layer, shift + left))


def fitted(float_layer: FloatLayer, inputs: Array, scarce: bool = False) -> SolvedLayer:
    """A float layer that stays one, on its real inputs: fitted again where these have changed enough. `scarce`: not to
    fewer columns than it has weights an output, which it could meet whatever they are."""
    columns, mean = _centred(float_layer, inputs)
    if (scarce and columns.shape[1] < columns.shape[2]) or _drift(float_layer, columns) < _LEAST_DRIFT:
        weight, shift = float_layer.weight, _mean_gap(float_layer, float_layer.weight, mean)
    else:
        weight, shift = _ridge_fit(float_layer, columns, trace.second_moment(columns).astype(np.float64), mean)
    bias = None if float_layer.bias is None else float_layer.bias + _by_channel(float_layer, shift)
    found = trace.from_matrix(float_layer.layer, weight).astype(np.float32)
    return SolvedLayer(weight=found, bias=_float32(bias))


def _centred(float_layer: FloatLayer, inputs: Array) -> tuple[Array, Array]:
    """The columns (G, N, n) of a layer's inputs without their mean, and the mean (G, n)."""
    columns = trace.columns_of(float_layer.layer, inputs, float_layer.patches)
    mean = trace.column_mean(columns)
    return columns - mean[:, None, :].astype(np.float32), mean


def _is_fine(choice: LayerChoice) -> bool:
    """Whether the choice itself loses next to nothing, so that a fit could only mend what came before it."""
    return choice.sparsity == 0 and choice.clusters is None and choice.bits >= 8


def _drift(float_layer: FloatLayer, columns: Array) -> float:
    """How far the float weights' outputs on the real inputs (centred `columns`) are from the float network's: the share
    of the variance."""
    rotated = float_layer.weight.transpose(0, 2, 1).astype(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):  # not a number then: that is far
        wanted = float_layer.products - float_layer.products.mean(axis=1, keepdims=True)
        gap = columns @ rotated - wanted
        return float(np.vdot(gap, gap) / max(float(np.vdot(wanted, wanted)), 1e-30))


def _mean_gap(float_layer: FloatLayer, weight: Array, mean: Array) -> Array:
    """The bias shift (G, R) that gives `weight`, on inputs of this mean, the float network's mean outputs."""
    gap: Array = float_layer.product_mean - np.einsum("grn,gn->gr", weight, mean)
    return gap


def _ridge_fit(float_layer: FloatLayer, columns: Array, centred: Array, mean: Array) -> tuple[Array, Array]:
    """Weights (G, R, n) and bias shift (G, R) with the least  |W'x' + b' - Wx|^2 + ridge |(W', b') - (W, 0)|^2.

    `columns` and their moment are centred: single precision is enough for what varies, not for large means."""
    groups, rows, width = float_layer.weight.shape
    sums = float_layer.product_mean[:, None, :]
    crossed = trace.second_moment(columns, float_layer.products) + mean[:, :, None] * sums  # (G, n, R)
    moment = centred + mean[:, :, None] * mean[:, None, :]
    if float_layer.bias is None:
        A, b, start = moment, crossed, float_layer.weight.transpose(0, 2, 1)
    else:
        A = np.ones((groups, width + 1, width + 1))
        A[:, :width, :width], A[:, :width, width], A[:, width, :width] = moment, mean, mean
        b = np.concatenate([crossed, sums], axis=1)
        start = np.concatenate([float_layer.weight.transpose(0, 2, 1), np.zeros((groups, 1, rows))], axis=1)
    ridge = np.maximum(RIDGE * np.einsum("gnn->gn", A).mean(axis=1), 1e-12)[:, None, None]
    fitted = definite.solve(A + ridge * np.eye(A.shape[-1]), b + ridge * start)
    return fitted[:, :width].transpose(0, 2, 1), fitted[:, width] if A.shape[-1] > width else np.zeros((groups, rows))


def _bias_corrected(float_layer: FloatLayer, solved: SolvedLayer, inputs: Array) -> SolvedLayer:
    """The layer with the bias that gives its mean output on `inputs` back the float network's mean
    (Data-Free Quantization, arXiv 1906.04721, sec. 4.2, with the inputs that are really seen)."""
    if float_layer.bias is None:
        return solved
    columns = trace.columns_of(float_layer.layer, inputs, float_layer.patches)
    mean = trace.column_mean(columns)
    weight = trace.to_matrix(float_layer.layer, solved.weight).astype(np.float64)
    gap = _mean_gap(float_layer, weight, mean)
    return replace(solved, bias=_float32(float_layer.bias + _by_channel(float_layer, gap)))


def corrected_bias(float_layer: FloatLayer, weight: Array) -> Array:
    """The bias (outputs,) float32 with which `weight` (G, R, n) has the float layer's mean outputs on its inputs."""
    assert float_layer.bias is not None
    gap = _mean_gap(float_layer, weight, float_layer.mean)
    return (float_layer.bias + _by_channel(float_layer, gap)).astype(np.float32)


def _by_channel(float_layer: FloatLayer, values: Array) -> Array:
    """(G, R) as one value an output channel: column blocks share theirs and add up."""
    blocks, _ = trace.blocks_of(float_layer.layer)
    summed: Array = values.sum(axis=0) if blocks > 1 else values.reshape(-1)
    return summed


def _solved(float_layer: FloatLayer, solution: Solution, bias: Array | None) -> SolvedLayer:
    """A solution and its bias in the flatbuffer's shapes."""
    layer = float_layer.layer
    weight = trace.from_matrix(layer, solution.values).astype(np.float32)
    if solution.levels is None or solution.scale is None:
        return SolvedLayer(weight=weight, bias=_float32(bias))
    return SolvedLayer(
        weight=weight,
        bias=_float32(bias),
        levels=trace.from_matrix(layer, solution.levels).astype(np.int8),
        scale=solution.scale.reshape(-1).astype(np.float32),
    )
