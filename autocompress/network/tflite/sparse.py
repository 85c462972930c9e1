"""TFLite's sparse storage of constants: zeros are left out, indices say where the others are.

A constant (O, ..., I) is kept as rows over its last axis: dense in all axes but the last, which holds for each row the
indices of its nonzeros (SPARSE_CSR). With blocks of outputs a row stands for `block` outputs and an index for the
values of all of them. The operator DENSIFY turns it into the dense constant when the file is loaded."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
BLOCKS = (4, 2, 1)  # output channels that XNNPACK's sparse kernels take together, the widest first
_INDEX_TYPES = (("Uint8Vector", np.uint8), ("Uint16Vector", np.uint16), ("Int32Vector", np.int32))


def block_of(outputs: int) -> int:
    """How many of `outputs` output channels are pruned together: the widest block that divides them."""
    return next(block for block in BLOCKS if outputs % block == 0)


def widest_block(values: Array) -> int:
    """The widest block of outputs (axis 0) that holds no zero beside a nonzero. `values`: (O, ..., I)."""
    for block in BLOCKS:
        if values.shape[0] % block == 0:
            kept = values.reshape(-1, block, *values.shape[1:]) != 0
            if bool((kept.any(axis=1) == kept.all(axis=1)).all()):
                return block
    return 1


def encode(values: Array, block: int) -> tuple[Array, Any]:
    """`values` (O, ..., I) without what is zero in blocks of `block` outputs: the stored values, flat, and their
    `SparsityParametersT`."""
    from ai_edge_litert.schema_py_generated import SparsityParametersT

    axes = values.ndim
    blocks = np.moveaxis(values.reshape(-1, block, *values.shape[1:]), 1, -1)  # (O / block, ..., I, block)
    kept = (blocks != 0).any(axis=-1)
    rows = kept.reshape(-1, values.shape[-1])
    segments = np.concatenate([[0], np.cumsum(rows.sum(axis=1))])
    sparsity = SparsityParametersT()
    sparsity.traversalOrder = list(range(axes + (block > 1)))
    sparsity.blockMap = [0] if block > 1 else None
    sparsity.dimMetadata = [
        *(_dense(size) for size in blocks.shape[: axes - 1]),
        _compressed(segments, np.nonzero(rows)[1]),
        *([_dense(block)] if block > 1 else []),
    ]
    return np.ascontiguousarray(blocks[kept]).reshape(-1), sparsity


def index_bytes(columns: int) -> int:
    """The bytes of an index into rows of so many columns."""
    return next(np.dtype(dtype).itemsize for _, dtype in _INDEX_TYPES if columns - 1 <= np.iinfo(dtype).max)


def _dense(size: int) -> Any:
    from ai_edge_litert.schema_py_generated import DimensionMetadataT, DimensionType

    made = DimensionMetadataT()
    made.format, made.denseSize = DimensionType.DENSE, size
    return made


def _compressed(segments: Array, indices: Array) -> Any:
    from ai_edge_litert.schema_py_generated import DimensionMetadataT, DimensionType

    made = DimensionMetadataT()
    made.format = DimensionType.SPARSE_CSR
    made.arraySegmentsType, made.arraySegments = _vector(segments)
    made.arrayIndicesType, made.arrayIndices = _vector(indices)
    return made


def _vector(values: Array) -> tuple[int, Any]:
    """The values in the narrowest vector of the schema that holds them: its type and the vector."""
    from ai_edge_litert import schema_py_generated as schema

    largest = int(values.max(initial=0))
    name, dtype = next(each for each in _INDEX_TYPES if largest <= np.iinfo(each[1]).max)
    vector = getattr(schema, f"{name}T")()
    vector.values = values.astype(dtype)
    return int(getattr(schema.SparseIndexVector, name)), vector


def decode(sparsity: Any, stored: Array, shape: tuple[int, ...]) -> Array:
    """The dense constant behind stored values and a `SparsityParametersT` of any traversal order and blocks.

    LookupError or ValueError where they do not fit each other or `shape`."""
    at, coordinates = np.zeros(1, np.int64), dict[int, Array]()
    sizes, most = {}, math.prod(shape)
    for axis, dimension in zip(map(int, sparsity.traversalOrder), sparsity.dimMetadata, strict=True):
        counts, found, at = _children(dimension, at, most)
        coordinates = {known: np.repeat(values, counts) for known, values in coordinates.items()}
        coordinates[axis], sizes[axis] = found, int(dimension.denseSize)
    for n, axis in enumerate([] if sparsity.blockMap is None else map(int, sparsity.blockMap)):
        inner = len(shape) + n
        coordinates[axis] = coordinates[axis] * sizes[inner] + coordinates[inner]
    dense = np.zeros(shape, stored.dtype)
    if any((values < 0).any() for values in coordinates.values()):
        raise ValueError("a stored value has a negative index")
    if len(at) != len(stored):
        raise ValueError(f"{len(stored)} stored values where their indices ask for {len(at)}")
    dense[tuple(coordinates[axis] for axis in range(len(shape)))] = stored[at]
    return dense


def _children(dimension: Any, at: Array, most: int) -> tuple[Array, Array, Array]:
    """Of each place `at` in a level how many places of the next level belong to it; their coordinates along this
    dimension, and where they are. ValueError for more than `most` of them."""
    from ai_edge_litert.schema_py_generated import DimensionType

    if dimension.format == DimensionType.DENSE:
        size = int(dimension.denseSize)
        if not 0 <= size * len(at) <= most:
            raise ValueError(f"a dimension of {size} is more than the shape has")
        along = np.tile(np.arange(size), len(at))
        return np.full(len(at), size), along, np.repeat(at, size) * size + along
    segments = np.asarray(dimension.arraySegments.values).astype(np.int64)
    indices = np.asarray(dimension.arrayIndices.values).astype(np.int64)
    starts, counts = segments[at], segments[at + 1] - segments[at]
    if (counts < 0).any() or counts.sum() > most:
        raise ValueError("segments that fall, or hold more than the shape has")
    before = np.repeat(np.cumsum(counts) - counts, counts)
    where = np.repeat(starts, counts) + np.arange(int(counts.sum())) - before
    return counts, indices[where], where


def index_views(tensor: Any) -> list[Array]:
    """The index vectors of a tensor (as the schema reads it in place), views of the file's bytes."""
    sparsity = tensor.Sparsity()
    dimensions = [] if sparsity is None else map(sparsity.DimMetadata, range(sparsity.DimMetadataLength()))
    found = []
    for dimension in dimensions:
        for kind, table in (
            (dimension.ArraySegmentsType(), dimension.ArraySegments()),
            (dimension.ArrayIndicesType(), dimension.ArrayIndices()),
        ):
            if table is not None:
                vector = _index_vectors()[kind]()
                vector.Init(table.Bytes, table.Pos)
                found.append(vector.ValuesAsNumpy())
    return [view for view in found if isinstance(view, np.ndarray)]


@functools.cache
def _index_vectors() -> dict[int, Any]:
    from ai_edge_litert import schema_py_generated as schema

    return {int(getattr(schema.SparseIndexVector, name)): getattr(schema, name) for name, _ in _INDEX_TYPES}
