"""Which sets of zeros a choice allows in a layer, and of those the one that takes the smallest weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
_GROUP, _GONE = 4, 2


@dataclass(frozen=True, kw_only=True)
class ZeroPattern:
    """At least `zeros` zeros in a matrix (G, R, n) of output channels R and inputs n, by whole blocks of `block` output
    channels on one input, or, `two_of_four`, two at most of each four neighbouring inputs. `joined`: the G products are
    column blocks of the same outputs, so that inputs go on from one to the next."""

    zeros: int
    block: int = 1
    two_of_four: bool = False
    joined: bool = False

    def smallest(self, values: Array, exists: Array) -> Array:
        """The positions (flat) of the smallest magnitudes among those that exist (of blocks: the smallest sums of
        squares), at least `zeros` of them where the pattern has as many."""
        if self.two_of_four:
            return self._of_fours(values, exists)
        if self.block > 1:
            return self._blocks(values, exists)
        return _lowest(np.where(exists, np.abs(values), np.inf).ravel(), self.zeros)

    def _blocks(self, values: Array, exists: Array) -> Array:
        groups, rows, columns = values.shape
        squares = np.where(exists, values * values, np.inf)
        scores = squares.reshape(groups, rows // self.block, self.block, columns).sum(axis=2)
        chosen = _lowest(scores.ravel(), -(-self.zeros // self.block))
        group, row, column = np.unravel_index(chosen, scores.shape)
        first = (group * rows + row * self.block) * columns + column
        found: Array = (first[:, None] + np.arange(self.block) * columns).ravel()
        return found

    def _of_fours(self, values: Array, exists: Array) -> Array:
        sizes = self._fours(np.where(exists, np.abs(values), np.inf), np.inf)
        places = self._fours(np.arange(values.size).reshape(values.shape), 0)
        two = np.argpartition(sizes, _GONE - 1, axis=1)[:, :_GONE]
        sizes, places = (np.take_along_axis(each, two, axis=1).ravel() for each in (sizes, places))
        there = np.isfinite(sizes)
        found: Array = places[there][_lowest(sizes[there], min(self.zeros, int(there.sum())))]
        return found

    def _fours(self, matrix: Array, fill: float) -> Array:
        """A matrix (G, R, n) as its fours of neighbouring inputs, (., 4)."""
        rows = matrix.transpose(1, 0, 2) if self.joined else matrix
        rows = rows.reshape(rows.shape[0] if self.joined else -1, -1 if self.joined else matrix.shape[2])
        found: Array = np.pad(rows, ((0, 0), (0, -rows.shape[1] % _GROUP)), constant_values=fill).reshape(-1, _GROUP)
        return found


def is_two_of_four(weight: Array) -> bool:
    """Whether of each four neighbouring inputs (the last axis) of a weight two are zero, at least."""
    if weight.shape[-1] % _GROUP:
        return False
    return bool(((weight.reshape(-1, _GROUP) == 0).sum(axis=1) >= _GONE).all())


def _lowest(scores: Array, count: int) -> Array:
    return np.argpartition(scores, count - 1)[:count]
