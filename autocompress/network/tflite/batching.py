"""How many samples a network runs at once without mixing them.

Converters may write a batch of 1 into constants (the sizes of a SLICE, the shape of a RESHAPE): such a network still
takes 64 samples, and some of them get values of others without any error. So a batch is proven: rows of it are
compared with the same samples run one by one, on samples that differ. Nor do more run at once than memory is for: a
network whose inner tensors take megabytes gains nothing from large batches."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from autocompress.errors import CandidateError
from autocompress.network.tflite import flatbuffer
from autocompress.network.tflite.interpreter import Runner, interpreter

Array = np.ndarray[Any, Any]
WANTED = 64
_AT_ONCE_BYTES = 128 * 2**20  # of inner tensors of all samples that run at once
_ROWS = 8  # of a batch that are compared
# Sums in another order differ by some 1e-7 a layer; a value that came from another sample by as much as samples do.
_OF_SPREAD, _OF_SIZE = 1e-4, 1e-5
_FLIPS = 0.01  # of whole numbers: an argmax may fall to the other side


@dataclass(frozen=True, kw_only=True)
class Batch:
    """How many samples run at once: `size`, or fewer unless it is `fixed` in the file."""

    size: int = WANTED
    fixed: bool = False

    def of(self, samples: int) -> int:
        """The batch that so many samples run in."""
        return self.size if self.fixed else min(self.size, samples)


def inner_bytes(model: bytes) -> float:
    """What all computed tensors of the main graph take for one sample."""
    run, graph = interpreter(model, 1), flatbuffer.read(model).subgraphs[0]
    made = {int(i) for operator in graph.operators for i in operator.outputs}
    details = [detail for detail in run.get_tensor_details() if detail["index"] in made]
    taken = sum(math.prod(map(int, each["shape"])) * np.dtype(each["dtype"]).itemsize for each in details)
    return float(taken / max(1, int(run.get_input_details()[0]["shape"][0])))


def affordable_batch(model: bytes) -> int:
    """How many samples may run at once, a power of two: WANTED unless inner tensors are large."""
    samples = max(1, int(_AT_ONCE_BYTES / max(1.0, inner_bytes(model))))
    return min(WANTED, 1 << (samples.bit_length() - 1))


def proven_batch(model: bytes, x: Mapping[str, Array], wanted: int = WANTED, slow: int = WANTED) -> Batch:
    """The largest batch up to `wanted`, halved until it is right, whose rows are what the samples of `x` (arrays by
    input name) give one by one, under the delegate's kernels and under the built-in ones.

    `slow`: how many samples the built-in kernels, which are slow, run at most; 0: they are not used. CandidateError
    where the runtime fails on the network, and where not even the batch in the file keeps samples apart."""
    indices, distinct = Runner(model, 1).input_indices, _distinct(x)
    values = {indices[name]: array for name, array in distinct.items()}
    fast, builtin = _Proof(model, values, False), _Proof(model, values, True) if slow else None
    for size in _sizes(wanted, fast.own) if fast.samples > 1 else [fast.own]:
        slower = size if size == fast.own else min(size, max(2, slow))
        if fast.holds(size) and (builtin is None or builtin.holds(slower)):
            return Batch(size=size, fixed=size == fast.own > 1 and not fast.takes(1))
    raise CandidateError(
        f"its outputs for a sample depend on the others in its batch of {fast.own}; convert it with a batch of 1"
    )


def _sizes(wanted: int, own: int) -> list[int]:
    """Batches to try, the largest first."""
    return sorted({max(1, wanted >> n) for n in range(wanted.bit_length())} | {own}, reverse=True)


def _distinct(x: Mapping[str, Array]) -> dict[str, Array]:
    """The first samples that differ from each other, as many as a batch."""
    seen: dict[tuple[bytes, ...], int] = {}
    for n in range(len(next(iter(x.values())))):
        seen.setdefault(tuple(values[n].tobytes() for values in x.values()), n)
        if len(seen) == WANTED:
            break
    return {name: values[list(seen.values())] for name, values in x.items()}


class _Proof:
    """One network under one set of kernels, with the samples to compare on (by tensor index)."""

    def __init__(self, model: bytes, x: Mapping[int, Array], keep_all: bool) -> None:
        self._model, self._x, self._keep_all = model, x, keep_all
        self.own = int(interpreter(model, 1).get_input_details()[0]["shape"][0])
        self.samples = len(next(iter(x.values())))
        self._alone: dict[int, list[Array]] = {}

    def holds(self, batch: int) -> bool:
        """Whether every row that is looked at is what its sample gives alone."""
        order = np.arange(batch) % self.samples
        try:
            together = self._outputs(self._opened(batch), order)
        except _FAULTS as fault:
            if batch == self.own:
                raise CandidateError(f"the runtime fails on the model: {' '.join(str(fault).split())}") from fault
            return False
        rows = sorted({int(row) for row in np.linspace(0, batch - 1, min(batch, _ROWS))})
        alone = [self._by_itself(int(order[row])) for row in rows]
        pairs = zip(together, zip(*alone, strict=True), strict=True)
        return all(len(values) == batch and _same(values[rows], np.concatenate(each)) for values, each in pairs)

    def takes(self, batch: int) -> bool:
        """Whether the runtime runs the network on so many samples, a row of outputs each."""
        try:
            return all(len(values) == batch for values in self._outputs(self._opened(batch), np.zeros(batch, int)))
        except _FAULTS:
            return False

    def _by_itself(self, sample: int) -> list[Array]:
        """The outputs of one sample: in a batch of 1 or, where there is none, in a batch of nothing else."""
        if sample not in self._alone:
            run, batch = self._single
            self._alone[sample] = [values[:1] for values in self._outputs(run, np.full(batch, sample))]
        return self._alone[sample]

    @cached_property
    def _single(self) -> tuple[Any, int]:
        batch = 1 if self.own == 1 or self.takes(1) else self.own
        return self._opened(batch), batch

    def _opened(self, batch: int) -> Any:
        shapes = {index: (batch, *values.shape[1:]) for index, values in self._x.items()}
        return interpreter(self._model, 1, shapes, keep_all=self._keep_all)

    def _outputs(self, run: Any, order: Array) -> list[Array]:
        """All outputs that have a first axis, for these samples."""
        run.reset_all_variables()
        for index, values in self._x.items():
            run.set_tensor(index, values[order])
        run.invoke()
        found = [run.get_tensor(detail["index"]) for detail in run.get_output_details()]
        return [values for values in found if values.ndim]


_FAULTS = (RuntimeError, ValueError, CandidateError)


def _same(together: Array, alone: Array) -> bool:
    """Whether rows of a batch (n, ...) are what the samples give alone, but for the order of sums."""
    if together.shape != alone.shape:
        return False
    if not np.issubdtype(alone.dtype, np.inexact):
        return bool((together != alone).mean() <= _FLIPS)
    a, b = (values.reshape(len(values), -1).astype(np.float64) for values in (together, alone))
    finite = np.isfinite(b)
    if not np.array_equal(a[~finite], b[~finite], equal_nan=True) or not np.isfinite(a[finite]).all():
        return False
    a, b = np.where(finite, a, 0.0), np.where(finite, b, 0.0)
    apart = np.sqrt(np.mean((a - b) ** 2, axis=1)).max()
    spread, size = (np.sqrt(np.mean(each**2)) for each in (b - b.mean(axis=0), b))
    return bool(apart <= _OF_SPREAD * spread + _OF_SIZE * size)
