"""The network cut at its layers, so that a change to one layer re-runs only what follows it up to the next.

Sequential reconstruction needs each layer's inputs in the network compressed so far. Segment k holds layer k and the
operators up to layer k + 1; segment 0 what comes before the first layer. Samples walk through in chunks of one size;
what depends on shapes alone (the target of a TRANSPOSE_CONV, say) is the same for every chunk and kept once."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from autocompress.errors import CandidateError
from autocompress.network.graph.layers import Layer
from autocompress.network.tflite import flatbuffer
from autocompress.network.tflite.graph import graph_of
from autocompress.network.tflite.interpreter import in_lanes, interpreter
from autocompress.network.tflite.outputs import FIRST, Signature, packed
from autocompress.network.tflite.tree import OperatorTree, SubgraphTree, Tree

Array = np.ndarray[Any, Any]
# Tensor index -> values of all samples, samples along axis 0; or the one value of all chunks.
State = Mapping[int, Array]
STAGE = 4  # layers that run together where none of them changes


class Patchable:
    """A serialised flatbuffer whose constants and scales are written in place: no packing for a new candidate."""

    def __init__(self, model: bytes) -> None:
        from ai_edge_litert.schema_py_generated import Model

        self._bytes = bytearray(model)
        self._model = Model.GetRootAs(self._bytes, 0)
        self._graph = self._model.Subgraphs(0)

    def constant(self, tensor: int) -> Array:
        """A writable byte view (uint8) of the constant of `tensor`."""
        view: Array = self._model.Buffers(self._graph.Tensors(tensor).Buffer()).DataAsNumpy()
        return view

    def span(self, tensor: int) -> slice:
        """Which bytes of the flatbuffer are the constant of `tensor`."""
        view, whole = self.constant(tensor), np.frombuffer(self._bytes, np.uint8)
        start = view.__array_interface__["data"][0] - whole.__array_interface__["data"][0]
        return slice(start, start + len(view))

    def scales(self, tensor: int) -> Array:
        """A writable float32 view of the quantization scales of `tensor`."""
        view: Array = self._graph.Tensors(tensor).Quantization().ScaleAsNumpy()
        return view

    def write(self, tensor: int, value: Array) -> None:
        """Overwrite the constant of `tensor` by the bytes of `value`, which must be as many."""
        self.constant(tensor)[:] = np.frombuffer(np.ascontiguousarray(value).tobytes(), np.uint8)

    @property
    def size(self) -> int:
        """Bytes of the flatbuffer."""
        return len(self._bytes)

    def snapshot(self) -> bytes:
        """The flatbuffer as it stands."""
        return bytes(self._bytes)


class Segment:
    """One piece of the main graph: `reads` and `makes` are the tensors that cross its borders. One without a `layer`
    of its own never changes; `stays`: its interpreters are kept from run to run."""

    def __init__(
        self,
        tree: Tree,
        operators: slice,
        later: set[int],
        layer: Layer | None,
        fixed: frozenset[int],
        stays: bool = False,
    ) -> None:
        graph = tree.subgraphs[0]
        ops = graph.operators[operators]
        made = {int(i) for op in ops for i in op.outputs}
        read = {int(i) for op in ops for i in op.inputs if i >= 0} - made
        self.reads = tuple(sorted(read & _computed(graph)))
        self.makes = tuple(sorted(made & later))
        self._layer, self._fixed, self._stays = layer, fixed, stays
        self._opened: dict[Any, Any] = {}
        self._local = _local(ops)
        self._patch = Patchable(flatbuffer.write(_cut(tree, ops, self._local, self.reads, self.makes))) if ops else None

    @property
    def file_bytes(self) -> int:
        """What this piece takes as a network of its own."""
        return 0 if self._patch is None else self._patch.size

    def run(
        self, state: State, weight: Array | None, bias: Array | None, chunks: int, threads: int
    ) -> dict[int, Array]:
        """The tensors this segment makes, with its layer's `weight` and `bias` (as in the float network) in place."""
        if self._patch is None or not self.makes:
            return {}
        if self._layer is not None and weight is not None:
            self._patch.write(self._local[self._layer.weight], weight.astype(np.float32))
        if self._layer is not None and bias is not None and self._layer.bias is not None:
            self._patch.write(self._local[self._layer.bias], bias.astype(np.float32))
        return self._invoke(self._patch.snapshot(), state, chunks, threads)

    def _invoke(self, model: bytes, state: State, chunks: int, threads: int) -> dict[int, Array]:
        made = {i: _Rows(1 if i in self._fixed else chunks) for i in self.makes}

        def lane(number: int) -> Callable[[int], None]:
            shapes = {self._local[i]: self._chunk(state, i, 0, chunks).shape for i in self.reads}
            key = (number, *shapes.values())
            run = self._opened.get(key) or interpreter(model, 1, shapes)
            if self._stays:
                self._opened[key] = run

            def of_chunk(chunk: int) -> None:
                values = self._invoke_chunk(run, {i: self._chunk(state, i, chunk, chunks) for i in self.reads})
                for i, rows in zip(self.makes, values, strict=True):
                    made[i].put(chunk, rows)

            return of_chunk

        try:
            in_lanes(chunks, threads, lane)
        except RuntimeError as fault:
            raise CandidateError(f"the runtime fails on a part of the network: {_line(fault)}") from fault
        return {i: rows.whole for i, rows in made.items()}

    def _invoke_chunk(self, run: Any, values: State) -> tuple[Array, ...]:
        run.reset_all_variables()
        for i, chunk in values.items():
            run.set_tensor(self._local[i], chunk)
        run.invoke()
        return tuple(run.get_tensor(self._local[i]) for i in self.makes)

    def _chunk(self, state: State, tensor: int, chunk: int, chunks: int) -> Array:
        return state[tensor] if tensor in self._fixed else _chunk(state[tensor], chunk, chunks)


class _Rows:
    """The values of one tensor, written chunk by chunk into one array, without a second copy of all of them. One chunk
    alone is what there is."""

    whole: Array

    def __init__(self, chunks: int) -> None:
        self._chunks, self._lock = chunks, threading.Lock()

    def put(self, chunk: int, rows: Array) -> None:
        """Write the rows of chunk number `chunk`, as many as those of any other."""
        with self._lock:
            if self._chunks == 1:
                self.whole = rows
                return
            if not hasattr(self, "whole"):
                self.whole = np.empty((self._chunks * len(rows), *rows.shape[1:]), rows.dtype)
        self.whole[chunk * len(rows) : (chunk + 1) * len(rows)] = rows


def _line(fault: Exception) -> str:
    return " ".join(str(fault).split())


def _chunk(values: Array, chunk: int, chunks: int) -> Array:
    size = len(values) // chunks
    return values[chunk * size : (chunk + 1) * size]


def _local(operators: Sequence[OperatorTree]) -> dict[int, int]:
    """The tensors of these operators, numbered anew."""
    used = {int(i) for op in operators for i in (*op.inputs, *op.outputs, *_inner(op)) if i >= 0}
    return {index: number for number, index in enumerate(sorted(used))}


def _cut(
    tree: Tree, operators: Sequence[OperatorTree], local: Mapping[int, int], reads: Sequence[int], makes: Sequence[int]
) -> Tree:
    """A network of only these operators, their tensors and constants, the tensors numbered as `local` says."""
    cut, graph = copy.copy(tree), copy.copy(tree.subgraphs[0])
    graph.operators = [_renumbered(operator, local) for operator in operators]
    graph.inputs, graph.outputs = [local[i] for i in reads], [local[i] for i in makes]
    graph.tensors = [copy.copy(tree.subgraphs[0].tensors[index]) for index in local]
    # Bodies of loops and branches are called by number, so all of them come along.
    bodies = tree.subgraphs[1:] if any(map(_calls_a_body, operators)) else []
    cut.subgraphs = [graph, *map(_copied, bodies)]
    cut.metadata, cut.signatureDefs, cut.appended = None, None, None
    cut.buffers = list(tree.buffers)
    flatbuffer.compact_buffers(cut)
    return cut


def _renumbered(operator: OperatorTree, local: Mapping[int, int]) -> OperatorTree:
    found = copy.copy(operator)
    found.inputs = [local.get(int(i), -1) for i in operator.inputs]
    found.outputs = [local[int(i)] for i in operator.outputs]
    found.intermediates = [local.get(int(i), -1) for i in _inner(operator)]
    return found


def _inner(operator: OperatorTree) -> Sequence[int]:
    """The tensors that an operator (a recurrent one) keeps for itself."""
    return operator.intermediates if operator.intermediates is not None else ()


def _calls_a_body(operator: OperatorTree) -> bool:
    options = (operator.builtinOptions, operator.builtinOptions2)
    return any("subgraph" in field.lower() for each in options if each is not None for field in vars(each))


def _copied(graph: SubgraphTree) -> SubgraphTree:
    found = copy.copy(graph)
    found.tensors = [copy.copy(tensor) for tensor in graph.tensors]
    return found


class Segments:
    """All segments of a network and the walk through them on a set of samples."""

    def __init__(
        self, tree: Tree, layers: Sequence[Layer], inputs: Mapping[int, Array], chunk: int, threads: int
    ) -> None:
        self.layers = tuple(layers)
        samples = len(next(iter(inputs.values())))
        self._chunk, self._chunks, self.threads = chunk, max(1, samples // chunk), threads
        kept = self._chunks * chunk
        self._fixed = graph_of(tree).fixed
        self._outputs = [int(i) for i in tree.subgraphs[0].outputs]
        self._pieces = _pieces(tree, self.layers, self._fixed, set(self._outputs))
        self._needed = _needed(self._pieces, set(self._outputs))
        self._stages = _Stages(tree, self.layers, self._fixed, set(self._outputs))
        start = {i: np.ascontiguousarray(values[:kept]) for i, values in inputs.items()}
        self.start = self._step(0, start, None, None)

    def run_through(self) -> None:
        """Run all pieces as the float network has them: whether the runtime survives them."""
        state: State = self.start
        for piece in range(1, len(self._pieces)):
            state = self._step(piece, state, None, None)

    @property
    def file_bytes(self) -> int:
        """What all pieces take: each constant is held once."""
        return sum(piece.file_bytes for piece in self._pieces)

    def head(self, samples: int) -> Segments:
        """The same walk over the first `samples` samples only (whole chunks, at least one)."""
        part = copy.copy(self)
        part._chunks = max(1, min(self._chunks, samples // self._chunk))
        part.start = {i: v if i in self._fixed else part._kept(v, self._chunks) for i, v in self.start.items()}
        return part

    def _kept(self, values: Array, chunks: int) -> Array:
        """The values of this walk's chunks out of those of `chunks`."""
        return values[: len(values) // chunks * self._chunks]

    def after(self, position: int, state: State, weight: Array, bias: Array | None) -> dict[int, Array]:
        """The state before layer `position + 1`, given the state before layer `position` and that layer's values."""
        return self._step(position + 1, state, weight, bias)

    def outputs(self, state: State, weight: Array, bias: Array | None, signature: Signature = FIRST) -> Array:
        """The signature's outputs, packed, given the state before the last layer and that layer's values."""
        found = self._step(len(self.layers), state, weight, bias)
        return packed([found[self._outputs[position]] for position in signature.positions])

    def finish(self, position: int, state: State, signature: Signature = FIRST) -> Array:
        """The signature's outputs, packed, given the state before layer `position`, a multiple of STAGE; this layer and
        all behind it are as in the float network."""
        while position < len(self.layers):
            made = self._stages.piece(position).run(state, None, None, self._chunks, self.threads)
            position = min(position + STAGE, len(self.layers))
            state = {i: v for i, v in (dict(state) | made).items() if i in self._needed[position]}
        return packed([state[self._outputs[at]] for at in signature.positions])

    def _step(self, piece: int, state: State, weight: Array | None, bias: Array | None) -> dict[int, Array]:
        made = self._pieces[piece].run(state, weight, bias, self._chunks, self.threads)
        return {i: v for i, v in (dict(state) | made).items() if i in self._needed[piece]}


class _Stages:
    """The float network in pieces of STAGE layers, each cut at its first use."""

    def __init__(self, tree: Tree, layers: Sequence[Layer], fixed: frozenset[int], outputs: set[int]) -> None:
        self._tree, self._layers, self._fixed, self._outputs = tree, tuple(layers), fixed, outputs
        self._made: dict[int, Segment] = {}

    def piece(self, position: int) -> Segment:
        """What runs from layer `position` up to STAGE layers further on."""
        if position not in self._made:
            operators, behind = self._tree.subgraphs[0].operators, self._layers[position + STAGE :]
            start, stop = self._layers[position].operator, behind[0].operator if behind else len(operators)
            later = {int(i) for op in operators[stop:] for i in op.inputs if i >= 0} | self._outputs
            self._made[position] = Segment(self._tree, slice(start, stop), later, None, self._fixed, stays=True)
        return self._made[position]


def _pieces(tree: Tree, layers: Sequence[Layer], fixed: frozenset[int], outputs: set[int]) -> list[Segment]:
    operators = tree.subgraphs[0].operators
    cuts = [0, *(layer.operator for layer in layers), len(operators)]
    pieces = []
    for number in range(len(layers) + 1):
        start, stop = cuts[number], cuts[number + 1]
        later = {int(i) for op in operators[stop:] for i in op.inputs if i >= 0} | outputs
        pieces.append(Segment(tree, slice(start, stop), later, layers[number - 1] if number else None, fixed))
    return pieces


def _computed(graph: SubgraphTree) -> set[int]:
    """The graph's inputs and what its operators make; every other tensor is a constant or a variable."""
    return {int(i) for op in graph.operators for i in op.outputs} | {int(i) for i in graph.inputs}


def _needed(pieces: Sequence[Segment], outputs: set[int]) -> list[set[int]]:
    """For each piece the tensors that later pieces still read, and the network's outputs."""
    return [outputs | {i for later in pieces[n + 1 :] for i in later.reads} for n in range(len(pieces))]
