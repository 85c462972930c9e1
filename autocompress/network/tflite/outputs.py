"""The outputs of a network under one of its signatures, and all of them as one array.

What runs a network gives the outputs *packed*: a single one as it is, several flattened a sample and side by side, so
that whatever carries rows of samples about (early stopping, streams, caches) need not know how many there are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from autocompress.records.output import JudgedOutput

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, kw_only=True)
class Output:
    """One output: its name, its `position` among the outputs of the main graph, its shape (samples first, as in the
    file) and dtype. `kind`: what makes it (see `output_kind.py`), None in studies that say nothing of it. `quantized`:
    scale and zero point of integers that stand for real numbers."""

    name: str
    position: int
    shape: tuple[int, ...]
    dtype: str
    kind: str | None = None
    quantized: tuple[float, int] | None = None

    @property
    def columns(self) -> int:
        """How many values it has a sample."""
        return math.prod(self.shape[1:])


@dataclass(frozen=True, kw_only=True)
class Signature:
    """What a network gives: `outputs` in the order of the signature `key` (None: the file has none), those alone that
    have a row a sample and depend on the inputs; `left_out` names the rest. `judged` is the index of the one that the
    metric looks at, None: all together. `other_keys`: signatures that are not looked at."""

    outputs: tuple[Output, ...]
    judged: int | None
    key: str | None = None
    left_out: tuple[str, ...] = ()
    other_keys: tuple[str, ...] = ()

    @property
    def positions(self) -> tuple[int, ...]:
        """Where the outputs stand among those of the main graph."""
        return tuple(output.position for output in self.outputs)

    @property
    def judged_shape(self) -> tuple[int, ...]:
        """The shape of the judged output, of all packed where it is all."""
        if self.judged is not None:
            return self.outputs[self.judged].shape
        return self.outputs[0].shape if len(self.outputs) == 1 else (1, sum(each.columns for each in self.outputs))

    def parts(self, values: Array) -> tuple[Array, ...]:
        """Packed outputs one by one, each in its own shape (n, ...) and dtype; integers that stand for real numbers as
        these."""
        pieces = zip(self._apart(values), self.outputs, strict=True)
        return tuple(_real(piece, output.quantized) for piece, output in pieces)

    def _apart(self, values: Array) -> tuple[Array, ...]:
        if len(self.outputs) == 1:
            return (values,)
        ends = np.cumsum([output.columns for output in self.outputs])
        pieces = np.split(values, ends[:-1], axis=1)
        return tuple(
            piece.reshape(len(values), *output.shape[1:]).astype(output.dtype, copy=False)
            for piece, output in zip(pieces, self.outputs, strict=True)
        )

    def chosen(self, values: Array) -> Array:
        """Of packed outputs the judged one; all, packed, where it is all."""
        return values if self.judged is None else self.parts(values)[self.judged]

    def of_file(self, outputs: Sequence[Array]) -> Array:
        """This signature's outputs out of all of a file, packed."""
        return packed([outputs[position] for position in self.positions])

    def record(self) -> JudgedOutput:
        """The same for the study's record."""
        at = range(len(self.outputs)) if self.judged is None else [self.judged]
        judged = [self.outputs[i] for i in at]
        return JudgedOutput(
            signature=self.key,
            names=tuple(output.name for output in judged),
            kinds=tuple(output.kind for output in judged),
            shapes=tuple(output.shape[1:] for output in judged),
            positions=tuple(output.position for output in judged),
            others=tuple(output.name for i, output in enumerate(self.outputs) if i not in at),
            other_signatures=self.other_keys,
        )


FIRST = Signature(outputs=(Output(name="", position=0, shape=(), dtype="float32"),), judged=0)


def _real(values: Array, quantized: tuple[float, int] | None) -> Array:
    if quantized is None or np.issubdtype(values.dtype, np.inexact):
        return values
    scale, zero = quantized
    return ((values.astype(np.float64) - zero) * scale).astype(np.float32)


def packed(arrays: Sequence[Array]) -> Array:
    """Several outputs, each (n, ...), as one array (n, values); a single one as it is."""
    if len(arrays) == 1:
        return arrays[0]
    return np.concatenate([array.reshape(len(array), -1) for array in arrays], axis=1)
