"""Running a network in batches with the LiteRT interpreter."""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from autocompress.errors import CandidateError
from autocompress.network.tflite.outputs import FIRST, Signature, packed

Array = np.ndarray[Any, Any]
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class TensorSpec:
    """Name, shape (batch first, as in the file) and dtype of an input or output."""

    name: str
    shape: tuple[int, ...]
    dtype: str


class Runner:
    """A network ready to run on one machine. CandidateError where the runtime refuses it.

    `signature`: which outputs it gives. Networks that fix their batch (a constant RESHAPE, ...) are run in batches of
    that size."""

    def __init__(self, model: bytes, threads: int = 1, signature: Signature = FIRST) -> None:
        self._model, self._threads = model, threads
        self._interpreter = interpreter(model, 1)
        names = _signature_names(self._interpreter)
        self._inputs = self._interpreter.get_input_details()
        self.inputs = tuple(_spec(detail, names) for detail in self._inputs)
        details = self._interpreter.get_output_details()
        self.outputs = tuple(_spec(detail, {}) for detail in details)
        self._wanted = [int(details[position]["index"]) for position in signature.positions]
        self._batch, self._fixed = 0, False

    @property
    def input_indices(self) -> dict[str, int]:
        """Tensor index of each input by its name."""
        return {s.name: int(d["index"]) for s, d in zip(self.inputs, self._inputs, strict=True)}

    def run(self, x: Mapping[str, Array], batch_size: int = 64) -> Array:
        """The signature's outputs for all samples of `x` (arrays by input name), batch first; several are packed."""
        samples = len(next(iter(x.values())))
        batch = self._allocate(min(batch_size, samples))

        def lane(number: int) -> Callable[[int], Array]:
            run = self._another(batch) if number else self._interpreter
            return lambda piece: self._invoke(run, {n: a[piece * batch :][:batch] for n, a in x.items()}, batch)

        try:
            parts = in_lanes(-(-samples // batch), self._threads, lane)
        except (RuntimeError, ValueError) as fault:
            raise CandidateError(f"the runtime fails on the model: {' '.join(str(fault).split())}") from fault
        return np.concatenate(parts)[:samples]

    def _invoke(self, run: Any, x: Mapping[str, Array], batch: int) -> Array:
        run.reset_all_variables()  # recurrent layers would start from the samples before
        for detail, spec in zip(self._inputs, self.inputs, strict=True):
            run.set_tensor(detail["index"], _padded(x[spec.name], batch))
        run.invoke()
        outputs: list[Array] = [run.get_tensor(index) for index in self._wanted]
        for output in outputs:
            if output.ndim == 0 or len(output) != batch:
                raise CandidateError(f"an output has shape {output.shape} for a batch of {batch}, not a row a sample")
        return packed(outputs)

    def _allocate(self, batch: int) -> int:
        """Resize to `batch` samples where the network allows it, else to its own; the batch that holds."""
        if batch == self._batch or self._fixed:
            return self._batch
        try:
            self._resize(batch)
            dry = {s.name: np.zeros((batch, *s.shape[1:]), s.dtype) for s in self.inputs}
            self._invoke(self._interpreter, dry, batch)
            self._batch = batch
        except (RuntimeError, ValueError, CandidateError):  # a batch fixed inside the network
            self._interpreter = interpreter(self._model, 1)
            self._batch, self._fixed = self.inputs[0].shape[0], True
        return self._batch

    def _resize(self, batch: int) -> None:
        for index, shape in self._shapes(batch).items():
            self._interpreter.resize_tensor_input(index, shape)
        self._interpreter.allocate_tensors()

    def _shapes(self, batch: int) -> dict[int, tuple[int, ...]]:
        pairs = zip(self._inputs, self.inputs, strict=True)
        return {int(detail["index"]): (batch, *spec.shape[1:]) for detail, spec in pairs}

    def _another(self, batch: int) -> Any:
        return interpreter(self._model, 1, None if self._fixed else self._shapes(batch))


def in_lanes(pieces: int, threads: int, lane: Callable[[int], Callable[[int], T]]) -> list[T]:
    """The results of pieces of work 0, 1, ..., in order, from at most `threads` lanes side by side.

    `lane(number)` opens one: an interpreter of one thread, and what it does with a piece. Running lets go of Python's
    lock, and samples side by side scale better than one sample on several threads."""
    lanes = max(1, min(threads, pieces))

    def work(number: int) -> list[T]:
        run = lane(number)
        return [run(piece) for piece in range(number, pieces, lanes)]

    if lanes == 1:
        return work(0)
    with ThreadPoolExecutor(lanes) as pool:
        done = list(pool.map(work, range(lanes)))
    return [done[piece % lanes][piece // lanes] for piece in range(pieces)]


def _padded(values: Array, batch: int) -> Array:
    """`values` with its last sample repeated up to `batch` samples."""
    short = batch - len(values)
    return values if short <= 0 else np.concatenate([values, np.repeat(values[-1:], short, axis=0)])


def interpreter(
    model: bytes, threads: int, shapes: Mapping[int, tuple[int, ...]] | None = None, keep_all: bool = False
) -> Any:
    """An allocated LiteRT interpreter, its inputs resized to `shapes` (by tensor index), `keep_all`: with every tensor
    readable after a run. CandidateError with the runtime's words where it refuses the model."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    # Reading every tensor is meant for the kernels that no delegate has fused away.
    kernels = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES if keep_all else OpResolverType.AUTO
    try:
        with _first_one_quiet(), _unwarned() if keep_all else contextlib.nullcontext():
            made = Interpreter(
                model_content=model,
                num_threads=threads,
                experimental_preserve_all_tensors=keep_all,
                experimental_op_resolver_type=kernels,
            )
            for index, shape in (shapes or {}).items():
                made.resize_tensor_input(index, shape)
            made.allocate_tensors()
    except (RuntimeError, ValueError) as fault:
        raise CandidateError(f"the runtime refuses the model: {' '.join(str(fault).split())}") from fault
    return made


@contextlib.contextmanager
def _unwarned() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # keeping all tensors warns of the memory it takes
        yield


_announced = False


@contextlib.contextmanager
def _first_one_quiet() -> Iterator[None]:
    """The runtime announces its delegate once, from C++, on file descriptor 2: keep that off people's screens. What
    goes wrong comes as an exception all the same."""
    global _announced
    if _announced:
        yield
        return
    _announced = True
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _signature_names(made: Any) -> dict[int, str]:
    """Input tensor index -> its name in the first signature."""
    signatures = made.get_signature_list()
    if len(signatures) != 1:
        return {}
    (key,) = signatures
    details = made.get_signature_runner(key).get_input_details()
    return {detail["index"]: name for name, detail in details.items()}


def _spec(detail: Mapping[str, Any], names: Mapping[int, str]) -> TensorSpec:
    name = names.get(detail["index"], detail["name"])
    return TensorSpec(name=name, shape=tuple(int(n) for n in detail["shape"]), dtype=np.dtype(detail["dtype"]).name)
