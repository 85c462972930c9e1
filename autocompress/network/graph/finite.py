"""Which samples a float network cannot work with: NaN, an infinity, an id outside of a vocabulary.

One silent sample before a logarithm is enough for NaN in every moment of the layers behind it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from autocompress.errors import CandidateError
from autocompress.network.tflite import flatbuffer
from autocompress.network.tflite.interpreter import Runner, in_lanes, interpreter

Array = np.ndarray[Any, Any]


def not_finite(outputs: Array) -> Array:
    """Which samples have NaN or infinite outputs (n, ...), (n,) bool. Where all samples have infinities they are the
    network's way (the logarithm of a mask, say), and only NaN counts."""
    if not np.issubdtype(outputs.dtype, np.floating):
        return np.zeros(len(outputs), bool)
    rows = outputs.reshape(len(outputs), -1)
    bad: Array = ~np.isfinite(rows).all(axis=1)
    return np.asarray(np.isnan(rows).any(axis=1)) if bad.all() else bad


def first_refused(network: bytes, x: Mapping[str, Array]) -> int | None:
    """The first sample of `x` (inputs by name) that the runtime fails on; None where it fails on no single one."""
    samples = len(next(iter(x.values())))
    for start in range(0, samples, 64):
        piece = {name: values[start : start + 64] for name, values in x.items()}
        if _runs(network, piece):
            continue
        for at in range(start, min(start + 64, samples)):
            if not _runs(network, {name: values[at : at + 1] for name, values in x.items()}):
                return at
    return None


def _runs(network: bytes, x: Mapping[str, Array]) -> bool:
    try:
        Runner(network).run(x)
    except CandidateError:
        return False
    return True


def unfit(network: bytes, inner: Iterable[int], inputs: Mapping[int, Array], batch: int, threads: int) -> Array:
    """Which samples of `inputs` (by tensor index) make the runtime fail or a value that is not finite in an output or
    in one of the `inner` tensors, (n,) bool. `batch`: how many samples the network runs at once."""
    graph = flatbuffer.read(network).subgraphs[0]
    first = int(graph.outputs[0])
    watched = [first, *sorted({*inner} - {first} - {int(i) for i in graph.inputs})]
    model, samples = flatbuffer.watched(network, watched), len(next(iter(inputs.values())))

    def lane(number: int) -> Callable[[int], Array]:
        return _Look(model, watched, inputs, batch).at_piece

    found = np.concatenate(in_lanes(-(-samples // batch), threads, lane))[:samples]
    infinite = found == _INFINITE
    return np.asarray((found == _BAD) | (infinite & ~infinite.all()))


_GOOD, _INFINITE, _BAD = range(3)  # of a sample; infinite: in the output alone


class _Look:
    """Runs pieces of the samples, and the samples of a piece that is not all good one by one."""

    def __init__(self, model: bytes, watched: list[int], inputs: Mapping[int, Array], batch: int) -> None:
        self._model, self._watched, self._inputs, self._batch = model, watched, inputs, batch
        self._run: Any = None

    def at_piece(self, piece: int) -> Array:
        start, last = piece * self._batch, len(next(iter(self._inputs.values()))) - 1
        at = np.minimum(np.arange(start, start + self._batch), last)
        found = self._worst(at)
        if found == _GOOD or self._batch == 1:
            return np.full(self._batch, found)
        return np.array([self._worst(np.full(self._batch, sample)) for sample in at])

    def _worst(self, at: Array) -> int:
        """The worst that these samples make."""
        try:
            run = self._filled(at)
            run.invoke()
        except (RuntimeError, ValueError):
            self._run = None  # what a failed run leaves behind is not specified
            return _BAD
        output, *inner = (run.get_tensor(index) for index in self._watched)
        if not all(np.isfinite(values).all() for values in inner if _is_float(values)):
            return _BAD
        if not _is_float(output) or np.isfinite(output).all():
            return _GOOD
        return _BAD if np.isnan(output).any() else _INFINITE

    def _filled(self, at: Array) -> Any:
        if self._run is None:
            self._run = interpreter(self._model, 1, {i: (len(at), *v.shape[1:]) for i, v in self._inputs.items()})
        self._run.reset_all_variables()
        for index, values in self._inputs.items():
            self._run.set_tensor(index, values[at])
        return self._run


def _is_float(values: Array) -> bool:
    return np.issubdtype(values.dtype, np.floating)
