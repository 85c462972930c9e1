"""A search space as arrays: configurations as rows of integers, and what the layer tables say of every choice.

A row x of a configuration has 1 + L + G integers: which activations, which choice of each layer in layer order, which
width of each group of channels that may lose some. Tables of all layers are padded to the longest row of choices,
(L, C, ...). The tables are of the whole network: of one with fewer channels a layer weighs and works in proportion."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from autocompress.compression.tables import Tables
from autocompress.evaluate.networks import WidthEffects
from autocompress.records.configuration import Configuration, LayerChoice
from autocompress.search.sampler.container_costs import Cost
from autocompress.search.sampler.surrogate import ChoiceFeatures

Array = np.ndarray[Any, Any]
Row = tuple[int, ...]
Choices = Mapping[str, tuple[LayerChoice, ...]]
ACTIVATIONS = "activations"  # the name of the parameter
_LEAST_SENSITIVITY = 1e-9


@dataclass(frozen=True, kw_only=True)
class EncodedSpace:
    """`container` (A, L, C) bits, 0 where there is no kernel; `latency`, `file`: what containers cost there; `around`
    (A,): the bytes of a download that are not the layers' weights."""

    activations: tuple[str, ...]
    choices: Mapping[str, tuple[LayerChoice, ...]]
    tables: Tables
    container: Array
    latency: Cost
    file: Cost
    around: Array
    width_effects: WidthEffects | None = None

    @cached_property
    def rows(self) -> tuple[tuple[LayerChoice, ...], ...]:
        """The choices of each layer."""
        return tuple(self.choices.values())

    @cached_property
    def counts(self) -> Array:
        """How many values each place of a row has, (1 + L + G,)."""
        return np.array([len(self.activations), *map(len, self.rows), *map(len, self.widths.values())])

    @property
    def widths(self) -> Mapping[str, tuple[int, ...]]:
        """How many channels each group may keep, all first."""
        return self.width_effects.widths if self.width_effects is not None else {}

    @property
    def configurations(self) -> int:
        """How many distinct configurations there are."""
        return configurations(self.activations, self.choices, self.widths)

    @cached_property
    def integer(self) -> Array:
        """Whether a choice stores integers, (L, C)."""
        return self._padded([[c.is_integer for c in row] for row in self.rows])

    @cached_property
    def sparsity(self) -> Array:
        """(L, C)."""
        return self._padded([[c.sparsity for c in row] for row in self.rows])

    @cached_property
    def clustered(self) -> Array:
        """Whether a choice has clusters, (L, C)."""
        return self._padded([[c.clusters is not None for c in row] for row in self.rows])

    @cached_property
    def bytes(self) -> Array:
        """Deflated bytes of the weights by the tables, (L, C)."""
        return self._padded([row.bytes for row in self.tables.layers])

    def download(self, x: Array) -> Array:
        """The predicted download sizes of rows x in bytes, (n,): layers are coded apart, so their sizes add up."""
        sizes: Array = self.sizes(x).sum(axis=1) + self.around[x[:, 0]]
        return sizes

    def sizes(self, x: Array) -> Array:
        """The deflated bytes of each layer in rows x by the tables, (n, L)."""
        return self.gather(self.bytes, x) * self.share(x)

    def share(self, x: Array) -> Array:
        """What share of each layer's weights, and of its work, is left of the whole network's, (n, L)."""
        if self.width_effects is None:
            return np.ones((len(x), len(self.rows)))
        gone = 1.0 - np.take_along_axis(self._kept_shares.T, x[:, 1 + len(self.rows) :], axis=0)  # (n, G)
        share: Array = (1.0 - gone @ self.width_effects.made.T) * (1.0 - gone @ self.width_effects.read.T)
        return share

    @cached_property
    def _kept_shares(self) -> Array:
        """The share of its channels that each group keeps, (G, C)."""
        return self._padded([np.array(row) / row[0] for row in self.widths.values()])

    def work(self, x: Array, cost: Cost) -> Array:
        """What is left of a cost in rows x because channels are gone, as a share, (n,)."""
        fixed = cost.fixed[x[:, 0]]
        left: Array = fixed + (1.0 - fixed) * (self.share(x) @ cost.weights)
        return left

    @cached_property
    def width_bytes(self) -> Array:
        """Deflated bytes of all layers with a group alone at each of its widths, (G, C): of usual choices."""
        found = np.zeros((len(self.widths), self.container.shape[2]))
        typical = np.median(self.bytes, axis=1)
        for group, row in enumerate(self.widths.values()):
            x = np.zeros((len(row), len(self.counts)), dtype=np.int64)
            x[:, 1 + len(self.rows) + group] = np.arange(len(row))
            found[group] = np.append(self.share(x) @ typical, np.full(found.shape[1] - len(row), np.inf))
        return found

    @cached_property
    def largest(self) -> Array:
        """Each layer's bytes at its largest choice, (L,)."""
        largest: Array = self.bytes.max(axis=1)
        return largest

    @cached_property
    def seen(self) -> ChoiceFeatures:
        """The features of every choice for the sensitivity model, (L, C, ...)."""
        sensitivity = np.maximum(self._padded([row.sensitivity for row in self.tables.layers]), _LEAST_SENSITIVITY)
        shared = self._padded([[_shared(c) for c in row] for row in self.rows])
        logs, zeros = np.log(sensitivity), self.sparsity
        if self.width_effects is not None:  # groups stand behind the layers; one more feature is theirs alone
            found = self._padded([*self.width_effects.sensitivity.values()])
            logs = np.concatenate([logs, np.log(np.maximum(found, _LEAST_SENSITIVITY))])
            zeros = np.concatenate([zeros, 1.0 - self._kept_shares])
            groups = np.zeros((*found.shape, shared.shape[-1] + 1))
            groups[..., -1] = 1.0
            shared = np.concatenate([np.append(shared, np.zeros((*shared.shape[:2], 1)), axis=2), groups])
        return ChoiceFeatures(
            log_sensitivity=logs,
            own=np.stack([np.ones_like(zeros), zeros], axis=-1),
            shared=np.concatenate([np.ones_like(logs)[..., None], (logs - math.log(1e-3))[..., None], shared], axis=-1),
        )

    def _padded(self, rows: Sequence[Any]) -> Array:
        arrays = [np.asarray(row, dtype=np.float64) for row in rows]
        longest = self.container.shape[2]
        return np.stack([np.concatenate([a, np.repeat(a[-1:], longest - len(a), axis=0)]) for a in arrays])

    def gather(self, table: Array, x: Array) -> Array:
        """The entries of a table (L, C, ...), or (L + G, C, ...), for rows x: (n, L, ...)."""
        found: Array = table[np.arange(len(table)), x[:, 1 : 1 + len(table)]]
        return found

    def gather_kind(self, table: Array, x: Array) -> Array:
        """The entries of a table (A, L, C) for rows x: (n, L)."""
        layers = len(self.rows)
        found: Array = table[x[:, :1], np.arange(layers), x[:, 1 : 1 + layers]]
        return found

    def canonical(self, x: Array) -> Array:
        """The rows with the first activations where no layer is integer: equal configurations are equal rows."""
        integer = self.gather(self.integer, x).any(axis=1)
        same = x.copy()
        same[:, 0] = np.where(integer, x[:, 0], 0)
        return same

    def row_of(self, parameters: Mapping[str, Any], activations_name: str) -> Row | None:
        """The canonical row of a trial's parameters; None where they are not of this space."""
        try:
            found = [self.activations.index(parameters.get(activations_name, self.activations[0]))]
            for (name, row), known in zip(self.choices.items(), self._positions, strict=True):
                found.append(0 if len(row) == 1 else known[parameters[name]])
            found += [row.index(parameters[width_parameter(name)]) for name, row in self.widths.items()]
        except (KeyError, ValueError):
            return None
        return tuple(map(int, self.canonical(np.array([found]))[0]))

    @cached_property
    def _positions(self) -> tuple[dict[str, int], ...]:
        return tuple({choice.to_json(): n for n, choice in enumerate(row)} for row in self.rows)

    def configuration(self, row: Sequence[int]) -> Configuration:
        """The configuration of a row."""
        layers = {name: choices[n] for (name, choices), n in zip(self.choices.items(), row[1:], strict=False)}
        behind = row[1 + len(layers) :]
        kept = {name: counts[n] for (name, counts), n in zip(self.widths.items(), behind, strict=True) if n}
        return Configuration(activations=self.activations[row[0]], layers=layers, channels=kept)

    def all_rows(self) -> Iterator[Row]:
        """Every canonical row."""
        for row in itertools.product(*(range(int(n)) for n in self.counts)):
            if row[0] == 0 or any(self.integer[layer, row[1 + layer]] for layer in range(len(self.rows))):
                yield row


def _shared(choice: LayerChoice) -> list[float]:
    """What may make a choice better or worse than its table, in every layer alike: zeros, few bits, few clusters."""
    few_bits = float(max(0, 5 - choice.bits))
    clusters = choice.clusters or 256
    return [choice.sparsity, few_bits, float(clusters <= 16), float(clusters <= 8)]


def width_parameter(group: str) -> str:
    """The name of the parameter that says how many channels a group keeps."""
    return f"channels.{group}"


def configurations(
    activations: Sequence[str],
    choices: Mapping[str, Sequence[LayerChoice]],
    widths: Mapping[str, Sequence[int]] | None = None,
) -> int:
    """How many distinct configurations a space has; all layers float is one whatever the activations."""
    floats = math.prod(sum(not c.is_integer for c in row) for row in choices.values())
    of_layers = math.prod(map(len, choices.values())) * len(activations) - (len(activations) - 1) * floats
    return of_layers * math.prod(map(len, (widths or {}).values()))


Key = bytes  # a row as what sets of thousands hold


def key_of(row: Row) -> Key:
    """The key of one row."""
    return np.array(row, dtype=np.int64).tobytes()


def keys_of(x: Array) -> list[Key]:
    """The keys of rows x (n, 1 + L)."""
    whole = np.ascontiguousarray(x, dtype=np.int64)
    keys: list[Key] = whole.view(np.dtype((np.void, whole.itemsize * whole.shape[1]))).ravel().tolist()
    return keys


Widths = Mapping[str, tuple[int, ...]]  # by channel group: how many channels it may keep, all first


WHOLE: Widths = {}
