"""Running a network in batches with the LiteRT interpreter."""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from autocompress.errors import CandidateError

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, kw_only=True)
class TensorSpec:
    """Name, shape (batch first, as in the file) and dtype of an input or output."""

    name: str
    shape: tuple[int, ...]
    dtype: str


class Runner:
    """A network ready to run on one machine. CandidateError where the runtime refuses it.

    Networks that fix their batch (a constant RESHAPE, ...) are run sample by sample."""

    def __init__(self, model: bytes, threads: int = 1) -> None:
        self._model, self._threads = model, threads
        self._interpreter = interpreter(model, threads)
        names = _signature_names(self._interpreter)
        self._inputs = self._interpreter.get_input_details()
        self._output = self._interpreter.get_output_details()[0]
        self.inputs = tuple(_spec(detail, names) for detail in self._inputs)
        self.outputs = tuple(_spec(detail, {}) for detail in self._interpreter.get_output_details())
        self._batch = 0

    @property
    def input_indices(self) -> dict[str, int]:
        """Tensor index of each input by its name."""
        return {s.name: int(d["index"]) for s, d in zip(self.inputs, self._inputs, strict=True)}

    def largest_batch(self, wanted: int) -> int:
        """`wanted` where the network runs that many samples at once, else 1."""
        return self._allocate(wanted)

    def run(self, x: Mapping[str, Array], batch_size: int = 128) -> Array:
        """The first output for all samples of `x` (arrays by input name), batch first."""
        samples = len(next(iter(x.values())))
        batch = self._allocate(min(batch_size, samples))
        parts = []
        for start in range(0, samples, batch):
            parts.append(self._invoke({n: a[start : start + batch] for n, a in x.items()}, batch))
        return np.concatenate(parts)[:samples]

    def _invoke(self, x: Mapping[str, Array], batch: int) -> Array:
        for detail, spec in zip(self._inputs, self.inputs, strict=True):
            self._interpreter.set_tensor(detail["index"], _padded(x[spec.name], batch))
        self._interpreter.invoke()
        output: Array = self._interpreter.get_tensor(self._output["index"])
        return output

    def _allocate(self, batch: int) -> int:
        """Resize to `batch` samples where the network allows it, else to one; the batch that holds."""
        if batch == self._batch or self._batch == 1:
            return self._batch
        try:
            self._resize(batch)
            dry = {s.name: np.zeros((batch, *s.shape[1:]), s.dtype) for s in self.inputs}
            if len(self._invoke(dry, batch)) == batch:
                self._batch = batch
                return batch
        except (RuntimeError, ValueError):
            pass  # a batch fixed inside the network: the loop over single samples below is the answer
        self._interpreter = interpreter(self._model, self._threads)
        self._batch = 1
        return 1

    def _resize(self, batch: int) -> None:
        for detail, spec in zip(self._inputs, self.inputs, strict=True):
            self._interpreter.resize_tensor_input(detail["index"], (batch, *spec.shape[1:]))
        self._interpreter.allocate_tensors()


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
        with _first_one_quiet(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # keeping all tensors warns of its memory
            made = Interpreter(
                model_content=model, num_threads=threads, experimental_preserve_all_tensors=keep_all,
                experimental_op_resolver_type=kernels,
            )  # fmt: skip
            for index, shape in (shapes or {}).items():
                made.resize_tensor_input(index, shape)
            made.allocate_tensors()
    except (RuntimeError, ValueError) as fault:
        raise CandidateError(f"the runtime refuses the model: {' '.join(str(fault).split())}") from fault
    return made


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
