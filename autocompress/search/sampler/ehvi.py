"""How much hypervolume a candidate is expected to add to a front, given normal posteriors of its objectives.

The box up to the reference is cut at every coordinate of the front into cells; a cell is dominated as a whole or not
at all. Of a cell [l, u] a point y dominates prod_d (u_d - max(l_d, y_d))+ , and with independent objectives the
expectation of a product is the product of expectations, so the expected hypervolume improvement is a sum over the
cells that are not dominated (Emmerich, Deutz and Klinkenberg 2011, "Hypervolume-based expected improvement:
monotonicity properties and exact computation", with the normal distribution's closed form in each dimension)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
_MOST_CELLS = 60_000


class CellDecomposition:
    """The cells of a front (n, objectives), every objective minimised, up to `reference` (objectives,).

    Fronts of more than _MOST_CELLS cells are looked at on a coarser grid: coordinates are then rounded up to a kept
    one, so a gain may be counted a little too high, never a dominated cell as free where it is not."""

    def __init__(self, front: Array, reference: Array) -> None:
        inside = front[(front < reference).all(axis=1)]
        most = max(2, int(_MOST_CELLS ** (1 / len(reference))) - 1)
        self._edges = [_edges(inside[:, d], reference[d], most) for d in range(len(reference))]
        free = np.ones([len(edges) for edges in self._edges], dtype=np.float64)
        for point in inside:
            above = tuple(
                slice(int(np.searchsorted(e, value)) + 1, None) for e, value in zip(self._edges, point, strict=True)
            )
            free[above] = 0.0
        self._free = free

    def expected_gain(self, mean: Array, deviation: Array) -> Array:
        """The expected gain of each of n candidates, `mean` and `deviation` (n, objectives); shape (n,)."""
        weights = [_expected_parts(e, mean[:, d], deviation[:, d]) for d, e in enumerate(self._edges)]
        total = np.tensordot(weights[-1], self._free, axes=(1, self._free.ndim - 1))  # (n, k0, ..., k_last-1)
        for weight in reversed(weights[:-1]):
            total = np.einsum("n...k,nk->n...", total, weight)
        gains: Array = total
        return gains


def _edges(values: Array, reference: float, most: int) -> Array:
    """The upper ends of the cells along one objective: the front's coordinates and the reference."""
    unique = np.unique(values)
    if len(unique) > most:
        unique = unique[np.unique(np.linspace(0, len(unique) - 1, most).round().astype(int))]
    return np.append(unique, reference)


def _expected_parts(edges: Array, mean: Array, deviation: Array) -> Array:
    """E[(u - max(l, y))+] for each cell (l, u] and candidate, (n, cells); the first cell has no lower end."""
    below = _expected_below(edges[None, :], mean[:, None], deviation[:, None])
    parts: Array = np.diff(below, axis=1, prepend=0.0)
    return parts


def _expected_below(edge: Array, mean: Array, deviation: Array) -> Array:
    """E[(edge - y)+] for y normal: (edge - mean) Phi(z) + deviation phi(z), z = (edge - mean) / deviation."""
    from scipy.special import ndtr

    spread = np.maximum(deviation, 1e-12)
    z = (edge - mean) / spread
    value: Array = (edge - mean) * ndtr(z) + spread * np.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)
    return np.maximum(value, 0.0)
