"""A file in TensorFlow Lite Micro, the runtime of microcontrollers: its outputs, its arena, or why it refuses.

It runs in a child process (its faults end a process). The arena is that of a 64-bit host: the pointers in its
persistent part are half as long on a 32-bit target."""

from __future__ import annotations

import importlib.util
import os
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import numpy as np

from autocompress.errors import CandidateError
from autocompress.network.tflite.isolated import in_child

PACKAGE = "tflite-micro"
_AGREES = 1e-3  # of the largest output: int8 agrees to the bit, float and int16 round elsewhere
_ARENA_BYTES = 1 << 20  # and ten times the file: more than a microcontroller has
_LINE = re.compile(r"Arena allocation (total|head|tail) (\d+) bytes")
Array = np.ndarray[Any, Any]


@dataclass(frozen=True, kw_only=True)
class MicroRun:
    """`outputs`: of each sample those of the network, in the file's order. `arena_bytes` in all; `persistent_bytes` of
    them hold until the end, the rest is written over by layer after layer."""

    outputs: tuple[tuple[Array, ...], ...]
    arena_bytes: int
    persistent_bytes: int
    version: str


def is_installed() -> bool:
    """Whether TensorFlow Lite Micro can be run here."""
    return importlib.util.find_spec("tflite_micro") is not None


def run_in_micro(model: bytes, samples: Sequence[Sequence[Array]]) -> MicroRun:
    """Run samples, each the inputs in the file's order with a batch of 1. CandidateError where the runtime refuses the
    file, with its message."""
    return in_child(lambda: _run(model, samples))


def run_drawn(model: bytes, count: int = 1, seed: int = 0) -> MicroRun:
    """Run inputs drawn from `seed`. CandidateError as `run_in_micro`."""
    return run_in_micro(model, in_child(lambda: _drawn(model, count, seed)))


def check_in_micro(model: bytes, count: int = 8, seed: int = 0) -> MicroRun:
    """Run a file in TensorFlow Lite Micro and under LiteRT's reference kernels, on inputs drawn from `seed` (uniform in
    [0, 1), zeros for integers). CandidateError where it is refused, or its outputs are others."""
    samples = in_child(lambda: _drawn(model, count, seed))
    found, wanted = run_in_micro(model, samples), in_child(lambda: _reference(model, samples))
    for outputs, references in zip(found.outputs, wanted, strict=True):
        for output, reference in zip(outputs, references, strict=True):
            scale = float(np.abs(reference).max(initial=0.0)) or 1.0
            apart = float(np.abs(output.astype(np.float64) - reference).max(initial=0.0))
            if not apart <= _AGREES * scale:
                raise CandidateError(
                    f"{PACKAGE} {found.version} computes something else than LiteRT's reference kernels: outputs up to "
                    f"{apart:.3g} apart, of {scale:.3g}"
                )
    return found


def _run(model: bytes, samples: Sequence[Sequence[Array]]) -> MicroRun:
    from tflite_micro import runtime

    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 2)  # the runtime writes its messages, and its allocations, to C's standard error
        try:
            interpreter = runtime.Interpreter.from_bytes(model, arena_size=_ARENA_BYTES + 10 * len(model))
            outputs = tuple(_outputs(interpreter, sample) for sample in samples)
        except Exception as fault:  # of the binding, which raises RuntimeError for most
            raise CandidateError(f"{PACKAGE} {_version()} refuses the file: {_message(said, fault)}") from None
        interpreter.print_allocations()
        arena = {name: int(size) for name, size in _LINE.findall(_text(said))}
    return MicroRun(outputs=outputs, arena_bytes=arena["total"], persistent_bytes=arena["tail"], version=_version())


def _outputs(interpreter: Any, sample: Sequence[Array]) -> tuple[Array, ...]:
    for index, value in enumerate(sample):
        interpreter.set_input(value, index)
    interpreter.invoke()
    found: list[Array] = []
    while True:  # there is no count of outputs
        try:
            found.append(np.array(interpreter.get_output(len(found))))
        except IndexError:
            return tuple(found)


def _version() -> str:
    return metadata.version(PACKAGE)


def _text(said: Any) -> str:
    said.seek(0)
    return str(said.read().decode("utf-8", "replace"))


def _message(said: Any, fault: Exception) -> str:
    """What the runtime wrote, in one line; else what the binding says."""
    lines = [line.strip() for line in _text(said).splitlines() if line.strip()]
    return "; ".join(lines[:2]) or f"{fault}".partition("\n")[0]


def _drawn(model: bytes, count: int, seed: int) -> list[list[Array]]:
    rng = np.random.default_rng(seed)
    details = _interpreter(model).get_input_details()
    return [[_value(rng, each["shape"], each["dtype"]) for each in details] for _ in range(count)]


def _value(rng: np.random.Generator, shape: Array, dtype: Any) -> Array:
    values = rng.random(tuple(shape))
    return values.astype(dtype) if np.issubdtype(dtype, np.floating) else np.zeros(tuple(shape), dtype)


def _reference(model: bytes, samples: Sequence[Sequence[Array]]) -> list[list[Array]]:
    interpreter = _interpreter(model)
    found = []
    for sample in samples:
        for detail, value in zip(interpreter.get_input_details(), sample, strict=True):
            interpreter.set_tensor(detail["index"], value)
        interpreter.invoke()
        found.append([interpreter.get_tensor(each["index"]) for each in interpreter.get_output_details()])
    return found


def _interpreter(model: bytes) -> Any:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    interpreter = Interpreter(model_content=model, experimental_op_resolver_type=OpResolverType.BUILTIN_REF)
    interpreter.allocate_tensors()
    return interpreter
