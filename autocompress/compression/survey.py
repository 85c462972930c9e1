"""All choices of one layer solved side by side, for the layer tables: errors and sizes, no weights to export.

The tables need to know how choices compare, not the last percent of each. So every choice gets its mask, its first
scales and levels and one column-wise sweep with error feedback (as `solve` does, without refits and descent), all
choices of a layer in the same NumPy calls. A wide layer is looked at in some of its output channels: its error is a
sum over them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from autocompress.compression import levels as lv
from autocompress.compression.download import coded_bytes
from autocompress.compression.solve import Problem
from autocompress.compression.sparse_storage import sparse_bytes
from autocompress.network.tflite.short_floats import short
from autocompress.records.configuration import LayerChoice

Array = np.ndarray[Any, Any]
_MOST_WEIGHTS = 20_000  # looked at
_MOST_AT_ONCE = 3_000_000  # values of all choices solved together
_KMEANS_STEPS = 6  # to compare choices; the solver takes more
_BLOCK = 32  # columns updated lazily together
_GRID = 16  # rounding looks up its level on a grid so many times finer than the integers


@dataclass(frozen=True, kw_only=True)
class Survey:
    """Of each choice: `error` (C,), the output error as a share of the layer's output energy on calibration data, and
    `bytes` (C,), what its stored weights add to a download (integers in 8-bit containers). Float64, of the whole
    layer."""

    error: Array
    bytes: Array


def survey(
    problem: Problem, choices: Sequence[LayerChoice], sparse: Callable[[LayerChoice], bool] = lambda _: False
) -> Survey:
    """The survey of these choices on the layer's own problem. `sparse`: whether weights of a choice may be stored
    sparse; their bytes are then those of the smaller way."""
    problem = problem.ordinary
    together = max((problem.block(choice) for choice in choices), default=1)
    looked, rows, share = _thinned(problem, together)
    at_once = max(1, _MOST_AT_ONCE // max(1, looked.weight.size))
    parts = []
    for at in range(0, len(choices), at_once):
        some = choices[at : at + at_once]
        masks = [problem.mask(choice) for choice in some]
        parts.append(_surveyed(looked, some, [None if mask is None else mask[rows] for mask in masks], sparse))
    error, sizes = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Survey(error=error, bytes=sizes * share)


def _thinned(problem: Problem, together: int) -> tuple[Problem, Any, float]:
    """The problem with at most about _MOST_WEIGHTS weights, evenly chosen output channels, `together` of them side by
    side (of groups: whole ones), which they are, and by what the sizes grow back."""
    groups, rows, columns = problem.weight.shape
    by_group = groups > 1 and not problem.shared_scale
    total, each = (groups, rows * columns) if by_group else (rows, groups * columns)
    keep = max(1, _MOST_WEIGHTS // max(1, each))
    if keep >= total:
        return problem, slice(None), 1.0
    if together > 1 and not by_group:
        first = np.unique(np.linspace(0, total // together - 1, max(1, keep // together)).astype(int))
        chosen = (first[:, None] * together + np.arange(together)).ravel()
    else:
        chosen = np.unique(np.linspace(0, total - 1, keep).astype(int))
    at = (chosen,) if by_group else (slice(None), chosen)
    thin = Problem(
        weight=problem.weight[at],
        shared_scale=problem.shared_scale,
        padding=problem.padding,
        sound=True,
        moment=problem.semidefinite[chosen] if by_group else problem.semidefinite,
    )
    return thin, at, total / len(chosen)


def _surveyed(
    problem: Problem,
    choices: Sequence[LayerChoice],
    masks: Sequence[Array | None],
    sparse: Callable[[LayerChoice], bool],
) -> tuple[Array, Array]:
    """Errors (C,) and deflated bytes (C,)."""
    groups, _, columns = problem.weight.shape
    keeps, scales, tables = _constraints(problem, choices, masks)
    values, levels = _sweep(problem, keeps, scales, tables)
    gap = problem.weight.astype(np.float32).transpose(0, 2, 1)[None] - values
    moment = problem.semidefinite.astype(np.float32)
    error = np.einsum("cgnr,cgnr->c", gap, moment[None] @ gap).astype(np.float64)
    exists = groups * columns - problem.padding
    stored = [
        _stored(choice, levels[c] if choice.is_integer else values[c], exists) for c, choice in enumerate(choices)
    ]
    sizes = [
        sparse_bytes(each, "download") if choice.sparsity and sparse(choice) else coded_bytes(each.tobytes())
        for choice, each in zip(choices, stored, strict=True)
    ]
    return np.maximum(error, 0.0) / problem.energy, np.array(sizes, np.float64)


def _constraints(
    problem: Problem, choices: Sequence[LayerChoice], masks: Sequence[Array | None]
) -> tuple[Array, Array, list[Array | None]]:
    """For each choice: which weights stay (C, G, R, n), the scales (C, G, R) and the levels; None: any value."""
    weight, importance = problem.weight, np.einsum("gnn->gn", problem.damped)[:, None, :]
    keeps = np.ones((len(choices), *weight.shape), bool)
    scales = np.ones((len(choices), *weight.shape[:2]))
    tables: list[Array | None] = []
    known: dict[tuple[float, str, int, bool], Array] = {}
    # Centres in units of the largest level: they hardly depend on the bits.
    found: dict[tuple[float, str, int], Array] = {}
    for c, (choice, mask) in enumerate(zip(choices, masks, strict=True)):
        if mask is not None:
            keeps[c] = mask
        if not choice.is_integer:
            tables.append(None)
            continue
        limit = 2 ** (choice.bits - 1) - 1
        key = (choice.sparsity, choice.granularity, choice.bits, choice.clusters is not None)
        if key not in known:
            args = (weight, importance, keeps[c], limit, choice.clusters, problem.shared_scale)
            known[key] = short(lv.initial_scale(*args), up=limit > 63)
        scales[c] = known[key][:, :, 0]
        if choice.clusters is None:
            tables.append(lv.all_levels(limit))
            continue
        centres_key = (choice.sparsity, choice.granularity, choice.clusters)
        if centres_key not in found:
            ratios = weight / (known[key] * limit)
            found[centres_key] = lv.centres(ratios, importance, keeps[c], choice.clusters, _KMEANS_STEPS)
        tables.append(lv.rounded_levels(found[centres_key] * limit, limit))
    return keeps, scales, tables


def _sweep(problem: Problem, keeps: Array, scales: Array, tables: Sequence[Array | None]) -> tuple[Array, Array]:
    """Round column after column with error feedback (GPTQ, arXiv 2210.17323, eq. 2-3), all choices at once: values and
    integer levels, (C, G, n, R) each."""
    factor = problem.feedback.astype(np.float32)
    work = np.repeat(problem.weight.astype(np.float32).transpose(0, 2, 1)[None], len(tables), axis=0)
    kept = np.ascontiguousarray(keeps.transpose(0, 1, 3, 2)).astype(np.float32)
    levels = np.zeros(work.shape, np.float32)
    lookup, edge = _lookup(tables)
    unit = scales.astype(np.float32)
    finer = np.float32(_GRID) / unit
    start_of = (np.arange(len(tables)) * lookup.shape[1] + edge)[:, None, None]
    free = np.array([table is None for table in tables])
    columns = work.shape[2]
    for start in range(0, columns, _BLOCK):
        stop = min(start + _BLOCK, columns)
        errors = np.zeros_like(work[:, :, start:stop])
        for j in range(start, stop):
            now = work[:, :, j].copy()
            at = np.clip(np.rint(now * finer), -edge, edge).astype(np.int64) + start_of
            levels[:, :, j] = lookup.ravel()[at] * kept[:, :, j]
            rounded = levels[:, :, j] * unit
            rounded[free] = (now * kept[:, :, j])[free]
            errors[:, :, j - start] = error = (now - rounded) / factor[None, :, j, j, None]
            work[:, :, j] = rounded
            work[:, :, j + 1 : stop] -= factor[None, :, j, j + 1 : stop, None] * error[:, :, None, :]
        if stop < columns:
            work[:, :, stop:] -= factor[None, :, start:stop, stop:].transpose(0, 1, 3, 2) @ errors
    return work, levels


def _lookup(tables: Sequence[Array | None]) -> tuple[Array, int]:
    """For each choice the nearest level at each point of the fine grid, (C, 2 edge + 1) float32, and the edge."""
    edge = _GRID * 128
    grid = np.arange(-edge, edge + 1) / _GRID
    rows = [np.zeros(len(grid)) if table is None else lv.nearest(grid, table) for table in tables]
    return np.stack(rows).astype(np.float32), edge


def _stored(choice: LayerChoice, stored: Array, exists: int) -> Array:
    """A layer's weights (G, n, R) as its container holds them, (R, values of an output channel)."""
    by_row = stored.transpose(2, 0, 1).reshape(stored.shape[2], -1)[:, :exists]
    dtype = np.int8 if choice.is_integer else np.float16 if choice.bits == 16 else np.float32
    with np.errstate(over="ignore"):  # the solver clips what half precision does not hold; bytes are counted here
        return np.ascontiguousarray(by_row.astype(dtype))
