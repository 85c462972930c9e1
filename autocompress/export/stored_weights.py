"""What lies in a `.tflite`, read from the file alone: of each layer its container, zeros and distinct levels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from autocompress.compression.build import decoded
from autocompress.network.tflite.graph import Operator, Tensor, read_graph

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, kw_only=True, eq=False)
class StoredWeight:
    """A layer of a file. `shape` is the weight's, `container` its tensor type, `values` what is stored, flat."""

    name: str
    op: str
    shape: tuple[int, ...]
    container: str
    values: Array

    def to_dict(self) -> dict[str, Any]:
        """What a card says of it."""
        return {
            "name": self.name,
            "op": self.op,
            "shape": list(self.shape),
            "container": self.container,
            "weights": int(self.values.size),
            "zeros": int(np.count_nonzero(self.values == 0)),
            "levels": len(np.unique(self.values)),
        }


def stored_weights(model: bytes) -> tuple[StoredWeight, ...]:
    """Every layer of the main graph with a constant weight, in the file's order; a layer is named as in a
    configuration."""
    graph = read_graph(model)
    return tuple(_stored_weight(operator, graph.tensors[stored]) for operator, stored in graph.weighted)


def _stored_weight(operator: Operator, tensor: Tensor) -> StoredWeight:
    values = tensor.value if tensor.sparsity is not None else None
    if values is None:
        assert tensor.data is not None
        raw = np.frombuffer(bytes(tensor.data), np.uint8)
        values = decoded(raw, tensor.type, math.prod(tensor.shape))
    return StoredWeight(
        name=operator.name, op=operator.op, shape=tensor.shape, container=tensor.type, values=values.reshape(-1)
    )
