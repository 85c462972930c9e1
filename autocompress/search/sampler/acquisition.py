"""The configuration worth evaluating next: the greatest expected gain in hypervolume among thousands of predicted ones.

Candidates come from four places: members of the front, solutions of the tables for many prices of a byte (argmin over
each layer's choices of sensitivity + price x bytes + price x latency, as in SPDY and OBC), crossings and mutations of
both; then the best of them climb over all their neighbours, one layer changed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from autocompress import pareto
from autocompress.records.hypervolume import Reference
from autocompress.search.sampler.ehvi import CellDecomposition
from autocompress.search.sampler.encoding import EncodedSpace, Key, Row, key_of, keys_of
from autocompress.search.sampler.posterior import Posterior, Prediction

Array = np.ndarray[Any, Any]
_PRICES = 48  # of a byte, for each kind of activations
_TABLE_PRICES = 300
_MUTANTS, _CROSSINGS = 96, 64
_CLIMBERS, _ROUNDS, _NEIGHBOURS = 3, 3, 160
_LEAST_SHARE = 1e-3  # of its reference, for a latency or size that is predicted smaller, or negative
_ENUMERATED = 1500  # spaces up to this size are looked at whole


@dataclass(frozen=True, kw_only=True)
class PredictedConstraint:
    """A hard constraint on a predicted value: `name` as in `Prediction`, at most (or, `least`, at least) `bound`."""

    name: str
    bound: float
    least: bool = False


class HypervolumeScale:
    """From what is believed of values (named as in an evaluation), in the units of `reference`, to the scales of the
    hypervolume: (n, names) each."""

    def __init__(self, reference: Reference, names: Sequence[str]) -> None:
        self._reference, self._names = reference, tuple(names)

    def __call__(self, mean: Array, deviation: Array) -> tuple[Array, Array]:
        """Means and deviations. A value with a logarithmic scale is taken as log-normal with the same mean and
        variance: log y has the variance log(1 + (deviation / mean)^2) and half of that less than the logarithm of the
        mean (Aitchison and Brown 1957, equations 2.7 and 2.8)."""
        found = [self._column(name, mean[:, k], deviation[:, k]) for k, name in enumerate(self._names)]
        means, deviations = zip(*found, strict=True)
        return np.stack(means, axis=1), np.stack(deviations, axis=1)

    def _column(self, name: str, mean: Array, deviation: Array) -> tuple[Array, Array]:
        if name == "accuracy":
            return self._reference.scaled(name, mean), deviation / pareto.ACCURACY_SCALE
        mean = np.maximum(mean, _LEAST_SHARE)
        variance = np.log1p((deviation / mean) ** 2)
        middle = self._reference.scaled(name, mean * np.exp(-variance / 2))
        return middle, np.sqrt(variance) / math.log(pareto.RATIO_SCALE)


@dataclass(frozen=True, kw_only=True)
class Acquisition:
    """What is sought: `objectives`, names as in `Prediction`; their `scale`, and the cells of the front on it; hard
    limits; and `fails` (A, L, C), the chance that a choice cannot be built."""

    objectives: tuple[str, ...]
    scale: HypervolumeScale
    cells: CellDecomposition
    limits: tuple[PredictedConstraint, ...]
    fails: Array

    def gain(self, encoded_space: EncodedSpace, prediction: Prediction, x: Array) -> Array:
        """The expected gain of rows x (n,): that of the hypervolume times the chance to be buildable and feasible."""
        mean, deviation = self.scale(*prediction.columns(self.objectives))
        chance = np.prod(1.0 - encoded_space.gather_kind(self.fails, x), axis=1)
        gain: Array = self.cells.expected_gain(mean, deviation) * chance * feasibility(self.limits, prediction)
        return gain


def feasibility(limits: Sequence[PredictedConstraint], prediction: Prediction) -> Array | float:
    """The chance that all limits hold, taken as independent."""
    from scipy.special import ndtr

    chance: Array | float = 1.0
    for limit in limits:
        gap = limit.bound - prediction.mean[limit.name]
        z = gap / np.maximum(prediction.deviation[limit.name], 1e-12)
        chance = chance * ndtr(-z if limit.least else z)
    return chance


class AcquisitionOptimizer:
    """Looks for the best next row. `known` holds the keys of all rows that must not be proposed again."""

    def __init__(
        self,
        encoded_space: EncodedSpace,
        posterior: Posterior,
        goal: Acquisition,
        known: set[Key],
        rng: np.random.Generator,
    ) -> None:
        self._space, self._posterior, self._goal, self._known, self._rng = encoded_space, posterior, goal, known, rng
        self._value = posterior.parts[0]
        efficient = [
            _efficient(self._value[n, : len(row)], encoded_space.bytes[n, : len(row)], encoded_space.container[:, n])
            for n, row in enumerate(encoded_space.rows)
        ]
        widths = [np.arange(len(row)) for row in encoded_space.widths.values()]
        values = [np.arange(len(encoded_space.activations)), *efficient, *widths]
        self._counts = np.array([len(each) for each in values])
        # The efficient values of all places of a row, (place, value), those of a place one behind the other.
        self._changes = np.stack([np.repeat(np.arange(len(values)), self._counts), np.concatenate(values)], axis=1)
        self._starts = self._counts.cumsum() - self._counts

    def best(self, elites: Array) -> Row | None:
        """The row with the greatest expected gain that is not known; None where every row is. `elites` (m, 1 + L)."""
        if self._space.configurations <= _ENUMERATED:
            return self._best_of(np.array(list(self._space.all_rows())))
        seeds = [elites, self._priced()]
        pool = np.concatenate([part for part in seeds if len(part)])
        pool = self._new(np.concatenate([pool, self._mutants(pool), self._crossings(pool)]))
        gains = self._gains(pool)
        for _ in range(_ROUNDS):
            top = pool[np.argsort(-gains, kind="stable")[:_CLIMBERS]]
            around = self._new(np.concatenate([self._neighbours(row) for row in top]), pool)
            if not len(around):
                break
            pool, gains = np.concatenate([pool, around]), np.concatenate([gains, self._gains(around)])
        return _row(pool[gains.argmax()]) if len(pool) else self._anything()

    def of_tables(self) -> Row | None:
        """The row with the greatest expected gain among what the tables choose, uncorrected, for many prices of a byte;
        None where all of these are known."""
        sensitivity = np.exp(self._space.seen.log_sensitivity)[None]
        prices = self._typical * np.logspace(-2.5, 2.5, _TABLE_PRICES)
        kinds = range(len(self._space.activations))
        return self._best_of(np.concatenate([self._cheapest(kind, sensitivity, prices) for kind in kinds]))

    def _best_of(self, rows: Array) -> Row | None:
        rows = self._new(rows)
        return _row(rows[self._gains(rows).argmax()]) if len(rows) else None

    def _gains(self, x: Array) -> Array:
        gains = self._goal.gain(self._space, self._posterior.predict(x), x)
        # Where nothing is expected to be gained, the least sensitivity decides, and among equals the order of making.
        ranked: Array = gains + 1e-12 / (1.0 + self._posterior.sensitivity(x).sum(axis=1))
        return ranked

    def _new(self, x: Array, but: Array | None = None) -> Array:
        """The canonical rows of x, each once, without known ones and those of `but`."""
        x = self._space.canonical(x)
        skip = set() if but is None else set(keys_of(but))
        first: dict[Key, int] = {}
        for n, key in enumerate(keys_of(x)):
            first.setdefault(key, n)
        new: Array = x[[n for key, n in first.items() if key not in self._known and key not in skip]]
        return new

    def _priced(self) -> Array:
        """What the corrected tables choose for many prices of a byte, with parameters drawn from the posterior."""
        kinds, posterior = len(self._space.activations), self._posterior
        prices = self._typical * 10.0 ** self._rng.uniform(-2.5, 2.5, (kinds, _PRICES))
        found = []
        for kind in range(kinds):
            slowness = float(self._rng.choice((0.0, 10.0)))
            draws = posterior.parts[self._rng.integers(len(posterior.parts), size=_PRICES)]
            found.append(self._cheapest(kind, draws, prices[kind], slowness))
        return np.concatenate(found)

    @property
    def _typical(self) -> float:
        """A price of a byte at which sensitivity and bytes weigh about as much."""
        return float(np.median(self._value)) / max(1.0, float(np.median(self._space.bytes)))

    def _cheapest(self, kind: int, sensitivity: Array, prices: Array, slowness: float = 0.0) -> Array:
        """The rows of the least sensitivity (P, L, C) + price (P,) x (bytes + slowness x latency), for one kind of
        activations."""
        sizes = np.concatenate([self._space.bytes, self._space.width_bytes])
        slow = np.zeros_like(sizes)
        slow[: len(self._space.rows)] = self._space.latency.extra[kind] * float(np.median(self._space.largest))
        chosen = (sensitivity + prices[:, None, None] * (sizes + slowness * slow)).argmin(axis=2)
        rows = np.concatenate([np.full((len(prices), 1), kind), chosen], axis=1)
        return np.minimum(rows, self._space.counts - 1)

    def _mutants(self, pool: Array) -> Array:
        """Rows of the pool with one to three places changed."""
        parents = pool[self._rng.integers(len(pool), size=_MUTANTS)]
        changes = self._rng.integers(1, 4, size=_MUTANTS)
        places = self._rng.integers(parents.shape[1], size=(3, _MUTANTS))
        for n, place in enumerate(places):
            changed = np.flatnonzero(changes > n)
            parents[changed, place[changed]] = self._others(place[changed])
        mutants: Array = parents
        return mutants

    def _others(self, places: Array) -> Array:
        """A value for each of these places of a row, mostly one of the efficient choices."""
        share = self._rng.random(len(places))
        any_value = (share * self._space.counts[places]).astype(np.int64)
        efficient = self._changes[self._starts[places] + (share * self._counts[places]).astype(np.int64), 1]
        others: Array = np.where(self._rng.random(len(places)) < 0.2, any_value, efficient)
        return others

    def _crossings(self, pool: Array) -> Array:
        one, other = (pool[self._rng.integers(len(pool), size=_CROSSINGS)] for _ in range(2))
        return np.where(self._rng.random(one.shape) < 0.5, one, other)

    def _neighbours(self, row: Array) -> Array:
        """Rows that differ from `row` in one place, by efficient choices; a sample of them where there are many."""
        changes = self._changes
        if len(changes) > _NEIGHBOURS:
            changes = changes[self._rng.choice(len(changes), _NEIGHBOURS, replace=False)]
        around = np.repeat(row[None], len(changes), axis=0)
        around[np.arange(len(changes)), changes[:, 0]] = changes[:, 1]
        return around

    def _anything(self) -> Row | None:
        """Any row that is not known."""
        for _ in range(10_000):
            row = self._rng.integers(self._space.counts)[None]
            if len(new := self._new(row)):
                return _row(new[0])
        return next((row for row in self._space.all_rows() if key_of(row) not in self._known), None)


def _row(x: Array) -> Row:
    return tuple(x.tolist())


def _efficient(sensitivity: Array, sizes: Array, container: Array) -> Array:
    """The choices of one layer for which no other of the same containers has less sensitivity (by a tenth) and fewer
    bytes."""
    better = (sensitivity[:, None] * 1.1 < sensitivity[None, :]) & (sizes[:, None] < sizes[None, :])
    same = (container[:, : len(sensitivity), None] == container[:, None, : len(sensitivity)]).all(axis=0)
    kept: Array = np.flatnonzero(~(better & same).any(axis=0))
    return kept
