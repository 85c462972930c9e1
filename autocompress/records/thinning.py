"""The Pareto front under noise: a kernel of the dominance graph.

One point *beats* another where it is better beyond noise in an objective and worse beyond noise in none; two are
*level* where neither is better beyond noise in any. The front is a set of points of which

(a) none beats another or is level with another, and
(b) each point that is left out is beaten by one of them, or level with it.

That is a kernel of the graph of beating (von Neumann and Morgenstern 1944). It is built from the points that nobody
beats on: take one, strike out what it beats and what is level with it, go on with what nobody left beats. So each step
along the front is one beyond noise, and whatever is not on it has someone there that is no worse as far as anyone can
tell. What beats a point of the front may itself be beaten: .98 at 5 KB gives way to .96 at 3 KB where these two
accuracies are level, and .99 at 20 KB stays, because it is better than .96.

With three objectives points can beat each other in a ring (a is smaller than b and b faster than c and c more accurate
than a, all else level). No set has (a) and (b) then: one of the ring stands for it, (a) holds, and (b) by way of the
ring.

Points that another one surely beats are left out first, so that thousands cost little: one that is no worse in value
nor at the upper end of its noise beats whatever they beat, and what covers it covers them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from autocompress import pareto
from autocompress.records.noise import Bools, Column, Indices

_CHUNK = 1 << 22  # comparisons at once
Choose = Callable[[Indices], int]


def thinned(columns: Sequence[Column], among: Indices, choose: Choose) -> Indices:
    """The front of the evaluations `among`, none of which lacks a value, in ascending order. `choose` takes one of
    those that nobody beats, and so one of those that are level."""
    left = unbeaten(columns, among)
    beating, level = _relations(columns, left)
    index = {int(each): k for k, each in enumerate(left)}
    alive, taken = np.ones(len(left), dtype=np.bool_), []
    while alive.any():
        one = index[choose(left[_sources(beating, alive)])]
        taken.append(int(left[one]))
        alive &= ~(beating[one] | level[one] | beating[:, one])
    return np.array(sorted(taken), dtype=np.intp)


def unbeaten(columns: Sequence[Column], among: Indices) -> Indices:
    """Those of `among` that none surely beats: is no worse in value and at the upper end of its noise, and beats."""
    if len(among) == 0:
        return among
    parts = [p for c in columns for p in (c.values, c.values + c.up, c.values + c.least)]
    ends = np.column_stack(parts)[among]
    left = np.arange(len(among))
    for each in np.flatnonzero(pareto.non_dominated(ends)):
        worse = np.flatnonzero((ends[each] <= ends[left]).all(axis=1))
        beaten = np.zeros(len(worse), dtype=np.bool_)
        for column in columns:
            beaten |= column.beats(among[[each]], among[left[worse]])[0]
        left = np.delete(left, worse[beaten])
    found: Indices = among[left]
    return found


def _relations(columns: Sequence[Column], among: Indices) -> tuple[Bools, Bools]:
    """Who beats whom of `among`, and who is level with whom (each with itself), (n, n)."""
    n = len(among)
    better = np.zeros((n, n), dtype=np.bool_)
    for rows in np.array_split(np.arange(n), 1 + n * n // _CHUNK):
        for column in columns:
            better[rows] |= column.beats(among[rows], among)
    return better & ~better.T, ~(better | better.T)


def _sources(beating: Bools, alive: Bools) -> Bools:
    """Those alive whom nobody alive beats; where all are beaten, those of rings that nobody outside of them beats."""
    found: Bools = alive & ~(beating & alive[:, None]).any(axis=0)
    if found.any() or not alive.any():
        return found
    members = np.flatnonzero(alive)
    reach = _reach(beating[np.ix_(members, members)])
    found[members[(reach >= reach.T).all(axis=1)]] = True
    return found


def _reach(edges: Bools) -> Bools:
    """Who comes to whom along edges, (n, n): by squaring until nothing is added."""
    reach = edges | np.eye(len(edges), dtype=np.bool_)
    while True:
        counts = reach.astype(np.float32) @ reach.astype(np.float32)
        further: Bools = counts > 0
        if (further == reach).all():
            return reach
        reach = further
