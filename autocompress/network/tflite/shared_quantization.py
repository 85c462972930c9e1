"""Equal quantization vectors of a file, stored once.

A static int8 file has scales and zero points for every tensor, and all zero points of weights are the same zeros. Of
the schema's tables each may point to the same vector, and each tensor to the same table."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


class SharedVectors:
    """The vectors and tables that were written into one file so far."""

    def __init__(self) -> None:
        self._vectors: dict[tuple[str, bytes], int] = {}
        self._tables: dict[tuple[int, int, int], int] = {}

    def vector(self, builder: Any, values: Array) -> int:
        """Where a vector of these values is."""
        key = (values.dtype.str, values.tobytes())
        if key not in self._vectors:
            self._vectors[key] = int(builder.CreateNumpyVector(values))
        return self._vectors[key]

    def table(self, builder: Any, scale: int, zeros: int, dimension: int) -> int:
        """Where a table of these vectors is."""
        key = (scale, zeros, dimension)
        if key not in self._tables:
            self._tables[key] = _table(builder, *key)
        return self._tables[key]


class SharedQuantization:
    """The quantization of a tensor as the generated schema packs it. `own_scale`: its scales stay apart, for somebody
    writes others there."""

    def __init__(self, parameters: Any, shared: SharedVectors, own_scale: bool) -> None:
        self._parameters, self._shared, self._own = parameters, shared, own_scale

    def Pack(self, builder: Any) -> int:  # noqa: N802 - the schema's name
        """Write it; where it is."""
        told = self._parameters
        if any(each is None or not len(each) for each in (told.scale, told.zeroPoint)) or _says_more(told):
            return int(told.Pack(builder))
        zeros = self._shared.vector(builder, np.asarray(told.zeroPoint, np.int64))
        scales = np.asarray(told.scale, np.float32)
        if self._own:
            return _table(builder, int(builder.CreateNumpyVector(scales)), zeros, told.quantizedDimension)
        return self._shared.table(builder, self._shared.vector(builder, scales), zeros, told.quantizedDimension)


def _says_more(parameters: Any) -> bool:
    return parameters.details is not None or any(each is not None for each in (parameters.min, parameters.max))


def _table(builder: Any, scale: int, zeros: int, dimension: int) -> int:
    from ai_edge_litert import schema_py_generated as schema

    schema.QuantizationParametersStart(builder)
    schema.QuantizationParametersAddScale(builder, scale)
    schema.QuantizationParametersAddZeroPoint(builder, zeros)
    schema.QuantizationParametersAddQuantizedDimension(builder, dimension)
    return int(schema.QuantizationParametersEnd(builder))
