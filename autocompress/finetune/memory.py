"""What memory a training takes, before it is taken, and what is said where it runs out all the same."""

from __future__ import annotations

import math
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from autocompress.errors import AutocompressError, CandidateError
from autocompress.network.tflite.graph import Graph

_FLOAT_BYTES = 4
_COPIES = 3  # of a batch's tensors: forward, gradients, scratch
_LEAST_BATCH = 8
_TENSORFLOW_BYTES = 256 * 2**20  # what its kernels and graphs take besides


def fitting_batch(graph: Graph, samples: int, batch: int, available: int | None) -> int:
    """The largest batch, `batch` halved as often as need be, whose training fits into `available` bytes (None: not
    known). AutocompressError where not even small ones do."""
    while available is not None and needed_bytes(graph, samples, batch) > available:
        if batch <= _LEAST_BATCH:
            raise AutocompressError(
                f"fine-tuning needs about {needed_bytes(graph, samples, batch) / 2**20:,.0f} MB of memory, "
                f"{available / 2**20:,.0f} MB are free; close other programs or give fewer training samples"
            )
        batch = max(_LEAST_BATCH, batch // 2)
    return batch


@contextmanager
def out_of_memory_told() -> Iterator[None]:
    """CandidateError where memory runs out within: other programs may take it after `fitting_batch` looked."""
    import tensorflow as tf

    try:
        yield
    except (MemoryError, tf.errors.ResourceExhaustedError) as fault:
        raise CandidateError(
            "memory ran out while fine-tuning; what was trained up to the last look is kept: close other programs and "
            "run it again, it goes on"
        ) from fault


def needed_bytes(graph: Graph, samples: int, batch: int) -> int:
    """An estimate from the shapes of the float network: tensors of a batch, the teacher's outputs for all samples,
    weights with their gradients and moments."""
    values = sum(math.prod(graph.tensors[i].shape) for i in graph.makers)
    weights = sum(len(tensor.data) for tensor in graph.tensors if tensor.data is not None)
    outputs = sum(math.prod(graph.tensors[i].shape) for i in graph.outputs)
    return _TENSORFLOW_BYTES + 8 * weights + _FLOAT_BYTES * (_COPIES * batch * values + samples * outputs)


def available_bytes() -> int | None:
    """Memory that a training may take now: what the machine has free, and what the limits of the container (cgroup) and
    of the process (`ulimit -v`) leave; None where the system says nothing."""
    found = [each for each in (_free_bytes(), _container_bytes(), _address_bytes()) if each is not None]
    return min(found, default=None)


def _free_bytes() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")), None)


def _container_bytes() -> int | None:
    most, now = (_number(Path("/sys/fs/cgroup", name)) for name in ("memory.max", "memory.current"))
    return None if most is None or now is None else max(0, most - now)


def _address_bytes() -> int | None:
    most, _ = resource.getrlimit(resource.RLIMIT_AS)
    if most == resource.RLIM_INFINITY:
        return None
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except OSError:
        return None
    return max(0, most - pages * resource.getpagesize())


def _number(path: Path) -> int | None:
    if not os.access(path, os.R_OK):
        return None
    text = path.read_text().strip()
    return int(text) if text.isdecimal() else None
