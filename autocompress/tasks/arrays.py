"""Fitting a task's arrays to its network: names, shapes, dtypes, lengths and values, each fault in one
line."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from autocompress.errors import AutocompressError
from autocompress.metrics import Metric
from autocompress.network.tflite.interpreter import TensorSpec
from autocompress.tasks.task import Array, Inputs


def fit_inputs(x: Inputs, specs: tuple[TensorSpec, ...], where: str) -> tuple[dict[str, Array], list[str]]:
    """`x` by input name, in the network's shapes and dtypes, and notes on what was cast.

    Raises AutocompressError, starting with `where`, for other names, shapes, dtypes, lengths, NaN or no
    samples."""
    arrays = _by_name(x, specs, where)
    fitted: dict[str, Array] = {}
    notes: list[str] = []
    for spec in specs:
        label = where if len(specs) == 1 else f"{where}.{spec.name}"
        fitted[spec.name], note = _fit(_plain(arrays[spec.name], label), spec, label)
        notes += [note] if note else []
    lengths = {name: len(array) for name, array in fitted.items()}
    if len(set(lengths.values())) > 1:
        counts = ", ".join(f"'{name}' {n}" for name, n in lengths.items())
        raise AutocompressError(f"{where} holds different numbers of samples: {counts}; give each input the same")
    return fitted, notes


def without_faulty(x: Inputs) -> tuple[Inputs, int]:
    """The inputs without the samples that hold NaN or infinities, and how many these were. As they are where that
    leaves none, or where they are no arrays of one length: `fit_inputs` says what is wrong."""
    try:
        arrays = {name: np.asarray(each) for name, each in (x if isinstance(x, Mapping) else {"": x}).items()}
    except ValueError:  # rows of different lengths
        return x, 0
    lengths = {len(array) if array.ndim else -1 for array in arrays.values()}
    if len(lengths) != 1 or min(lengths) < 1:
        return x, 0
    good = np.ones(max(lengths), bool)
    for array in arrays.values():
        if np.issubdtype(array.dtype, np.inexact):
            good &= np.isfinite(array.reshape(len(array), -1)).all(axis=1)
    if good.all() or not good.any():
        return x, 0
    kept = {name: array[good] for name, array in arrays.items()}
    return (kept if isinstance(x, Mapping) else kept[""]), int((~good).sum())


def fit_labels(y: Array, metric: Metric, x: Mapping[str, Array], output_shape: tuple[int, ...], where: str) -> Array:
    """`y` as the metric takes it; class labels of shape (n, 1), one-hot rows and whole float numbers become the numbers
    of the classes. Raises AutocompressError."""
    first = next(iter(x.values()))
    outputs_shape = (len(first), *output_shape[1:])
    labels = metric.taken(_plain(y, where), outputs_shape)
    metric.check_labels(outputs_shape, labels, where, first.shape)
    return labels


def sha256_of(parts: Iterable[tuple[str, Array]]) -> str:
    """SHA-256 over the names, dtypes, shapes and bytes of arrays."""
    digest = hashlib.sha256()
    for name, array in parts:
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def shape_text(shape: tuple[int, ...]) -> str:
    """A shape with its batch dimension as n: (n, 8, 8, 1)."""
    return f"(n{''.join(f', {size}' for size in shape[1:])}{',' if len(shape) == 1 else ''})"


def _by_name(x: Inputs, specs: tuple[TensorSpec, ...], where: str) -> Mapping[str, Any]:
    wanted = ", ".join(f"'{spec.name}' {shape_text(spec.shape)}" for spec in specs)
    if not isinstance(x, Mapping):
        if len(specs) == 1:
            return {specs[0].name: x}
        keys = ", ".join(f"{where.split()[-1]}.{spec.name}" for spec in specs)
        raise AutocompressError(
            f"{where} is one array, but the network has the inputs {wanted}; "
            f"give a mapping by input name (in an .npz the keys {keys})"
        )
    if set(x) != {spec.name for spec in specs}:
        got = ", ".join(f"'{name}'" for name in x) or "none"
        raise AutocompressError(f"{where} names the inputs {got}; the network has {wanted}")
    return x


def _plain(values: Any, where: str) -> Array:
    try:
        array = np.asarray(values)
    except ValueError as fault:  # rows of different lengths
        raise AutocompressError(f"{where} is no regular array: {fault}; give arrays of one shape") from fault
    if array.dtype == object:
        raise AutocompressError(f"{where} holds Python objects, not numbers; give a numeric array")
    return array


def _fit(array: Array, spec: TensorSpec, where: str) -> tuple[Array, str | None]:
    if np.dtype(spec.dtype).kind in "OSU":
        raise AutocompressError(
            f"{where}: the network's input '{spec.name}' takes text; give the network behind its tokenizer, with the "
            "token ids as its input"
        )
    _check_shape(array, spec, where)
    if len(array) == 0:
        raise AutocompressError(f"{where} holds no samples; give at least one")
    _check_finite(array, where)
    if array.dtype.name == spec.dtype:
        return np.ascontiguousarray(array), None
    cast = _cast(array, np.dtype(spec.dtype))
    if cast is None:
        remedy = _dtype_remedy(array, spec)
        raise AutocompressError(f"{where} is {array.dtype}, the network takes {spec.dtype}; {remedy}")
    return cast, f"{where} was cast from {array.dtype} to {spec.dtype}"


def _check_shape(array: Array, spec: TensorSpec, where: str) -> None:
    wanted = spec.shape[1:]
    if array.ndim > 0 and array.shape[1:] == wanted:
        return
    if array.shape[1:] == spec.shape and len(spec.shape) > 0:
        raise AutocompressError(
            f"{where} has shape {array.shape}, the network's input '{spec.name}' takes {spec.shape}, without an axis "
            f"for samples; convert it again with one: {(1, *spec.shape)}"
        )
    raise AutocompressError(
        f"{where} has shape {array.shape}, the network's input '{spec.name}' takes {shape_text(spec.shape)}; "
        f"{_shape_remedy(array.shape, wanted)}"
    )


def _shape_remedy(given: tuple[int, ...], wanted: tuple[int, ...]) -> str:
    """What makes samples of the wanted shape. Never a reshape that mixes axes: it fits, and means something else."""
    if given == wanted:
        return "it is a single sample: x[None]"
    sample = given[1:]
    lies_flat = [[size for size in shape if size != 1] for shape in (sample, wanted)]
    target = ", ".join(["-1", *map(str, wanted)])
    if lies_flat[0] == lies_flat[1]:
        return f"reshape it: x.reshape({target})"
    if sorted(sample) == sorted(wanted):
        return f"its axes stand in another order: x.transpose({', '.join(map(str, (0, *_order(sample, wanted))))})"
    if np.prod(sample) == np.prod(wanted) and min(map(len, lies_flat)) == 1:
        return f"if its values lie in this order, reshape it: x.reshape({target})"
    return "prepare the inputs as for training"


def _order(sample: tuple[int, ...], wanted: tuple[int, ...]) -> list[int]:
    """Where each wanted axis stands; equal sizes keep their order, as height and width do."""
    left = list(enumerate(sample, 1))
    order = []
    for size in wanted:
        place = next(each for each in left if each[1] == size)
        left.remove(place)
        order.append(place[0])
    return order


def _check_finite(array: Array, where: str) -> None:
    if not np.issubdtype(array.dtype, np.inexact):
        return
    nan, infinite = int(np.isnan(array).sum()), int(np.isinf(array).sum())
    if nan or infinite:
        counts = " and ".join([f"{nan} NaN"] * (nan > 0) + [f"{infinite} infinite"] * (infinite > 0))
        first = int(np.flatnonzero(~np.isfinite(array.reshape(len(array), -1)).all(axis=1))[0])
        raise AutocompressError(
            f"{where} holds {counts} of {array.size} values, the first in sample {first}; remove or fill them"
        )


def _cast(array: Array, dtype: np.dtype[Any]) -> Array | None:
    """`array` as `dtype` where no value changes its meaning: float to float, integer to integer, both in
    range."""
    same_kind = any(np.issubdtype(array.dtype, k) and np.issubdtype(dtype, k) for k in (np.floating, np.integer))
    if not same_kind:
        return None
    limits = np.finfo(dtype) if np.issubdtype(dtype, np.floating) else np.iinfo(dtype)
    if array.min() < limits.min or array.max() > limits.max:
        return None
    return np.ascontiguousarray(array, dtype)


def _dtype_remedy(array: Array, spec: TensorSpec) -> str:
    if array.dtype.kind in "USM":
        return "encode it as for training: its numbers are what the network learned from"
    if np.issubdtype(np.dtype(spec.dtype), np.floating):
        return f"cast it, x.astype('{spec.dtype}'), and scale it as for training: by nothing where a layer does that"
    return f"cast it within that type's range: x.astype('{spec.dtype}')"
