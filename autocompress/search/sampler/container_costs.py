"""What patterns of containers cost, told from few of them: latency or size of a network by its layers' containers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from autocompress.errors import CandidateError

Array = np.ndarray[Any, Any]
Of = Callable[[str, Array], float]  # (activations, containers (L,)) -> a cost as a share of the float network's
_MOST_ASKED = 16  # layers that are asked one by one; of deeper networks _SPREAD, evenly
_SPREAD = 10


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What patterns of containers cost, as a share of the float network's: `base` (A,) of the usual containers, `extra`
    (A, L, C) of each choice beyond that; `doubt` (A, L, C), the standard deviation of `extra`. `weights` (L,): what
    share of the network each layer is; `fixed` (A,): what would be left of a cost without any layer."""

    base: Array
    extra: Array
    doubt: Array
    weights: Array
    fixed: Array


def pattern_cost(
    activations: Sequence[str],
    container: Array,
    weights: Array,
    of: Of | None,
    doubt: float,
    fixed: Sequence[float] | None = None,
    traits: Array | None = None,
) -> Cost:
    """The cost of container patterns. `container` (A, L, C), `weights` (L,) what share of the network each layer is.

    `of` is asked once for the usual pattern of each activations and once for each layer that deviates from it alone.
    With `traits` (L, K), of which a deviation's cost is nearly a linear function, only some layers of deep networks are
    asked. `of` None: nothing is known, each layer's deviation is 0 give or take its share. `doubt` is relative."""
    usual = np.array([usual_pattern(kind) for kind in container])
    base, extra = np.ones(len(activations)), np.zeros(container.shape)
    if of is not None:
        for a, kind in enumerate(activations):
            base[a] = _asked(of, kind, usual[a], 1.0)
            extra[a] = _extra(of, kind, container[a], usual[a], base[a], traits)
    differs = container != usual[:, :, None]
    doubts = np.where(differs, np.maximum(weights[None, :, None] * doubt, 1e-4), 1e-6)
    left = np.zeros(len(activations)) if fixed is None else np.array(fixed)
    return Cost(base=base, extra=extra, doubt=doubts, weights=weights, fixed=left)


def _extra(of: Of, kind: str, container: Array, usual: Array, base: float, traits: Array | None) -> Array:
    """What each choice's container costs beyond the usual one in that layer alone, (L, C)."""
    found = np.zeros(container.shape)
    for bits in sorted(set(container.ravel().tolist()) - {0}):
        able = np.flatnonzero((container == bits).any(axis=1) & (usual != bits))
        asked = able if traits is None or len(able) <= _MOST_ASKED else _spread(able)
        costs = np.array([_asked(of, kind, np.where(np.arange(len(usual)) == n, bits, usual), base) for n in asked])
        row = np.zeros(len(usual))
        if traits is not None and len(asked) < len(able):
            row[able] = traits[able] @ np.linalg.lstsq(traits[asked], costs - base, rcond=None)[0]
        row[asked] = costs - base
        found += np.where(container == bits, row[:, None], 0.0)
    return found


def _spread(able: Array) -> Array:
    """_SPREAD of them, the first and the last included."""
    spread: Array = able[np.unique(np.linspace(0, len(able) - 1, _SPREAD).round().astype(int))]
    return spread


def _asked(of: Of, kind: str, pattern: Array, otherwise: float) -> float:
    try:
        return of(kind, pattern)
    except CandidateError:  # a pattern that cannot be built costs nothing: it never will be a candidate
        return otherwise


def usual_pattern(container: Array) -> Array:
    """The container that most choices of each layer have, (L,), of one kind of activations (L, C)."""
    return np.array([_most_common(row) for row in container])


def _most_common(values: Array) -> int:
    found, counts = np.unique(values[values > 0], return_counts=True)
    return int(found[counts.argmax()]) if len(found) else 0


def with_doubt(cost: Cost, faster: Array) -> Cost:
    """The cost where each layer's share may be up to `faster` (L, C) of it away."""
    return replace(cost, doubt=np.maximum(cost.doubt, faster[None] * cost.weights[None, :, None]))


def less(cost: Cost, saved: Array) -> Cost:
    """The cost without `saved` (A, L, C), give or take a tenth of it."""
    return replace(cost, extra=cost.extra - saved, doubt=np.maximum(cost.doubt, saved / 10))
