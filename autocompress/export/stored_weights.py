"""What lies in a `.tflite`, read from the file alone: of each layer its container, zeros and distinct levels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from autocompress.compression.build import decoded
from autocompress.network.graph.layers import INPUTS, LAYER_OPS, makers_of, stored_tensor
from autocompress.network.tflite import flatbuffer

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
    tree, counts, found = flatbuffer.read(model), dict.fromkeys(LAYER_OPS, 0), []
    makers = makers_of(tree)
    for operator in tree.subgraphs[0].operators:
        op = flatbuffer.op_name(tree, operator)
        if op not in counts:
            continue
        number, counts[op] = counts[op], counts[op] + 1
        weight = _weight(tree, makers, int(operator.inputs[INPUTS[op][1]]))
        if weight is not None:
            shape, container, values = weight
            name = f"{op.lower()}_{number}"
            found.append(StoredWeight(name=name, op=op, shape=shape, container=container, values=values))
    return tuple(found)


def _weight(tree: Any, makers: dict[int, Any], index: int) -> tuple[tuple[int, ...], str, Array] | None:
    """Shape, container and values of the constant behind tensor `index`; None where there is none."""
    stored = stored_tensor(tree, makers, index)
    if stored is None:
        return None
    tensor = tree.subgraphs[0].tensors[stored]
    shape, container = tuple(int(n) for n in tensor.shape), flatbuffer.type_name(tensor.type)
    if tensor.sparsity is not None and (dense := flatbuffer.constant(tree, stored)) is not None:
        return shape, container, dense.reshape(-1)
    raw = np.frombuffer(bytes(tree.buffers[tensor.buffer].data), np.uint8)
    return shape, container, decoded(raw, container, math.prod(shape))
