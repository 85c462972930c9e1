"""What the guided sampler knows of a study's trials. A finished trial does not change: each is read once, so that a
suggestion after ten thousand trials costs little more than one after ten."""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from optuna.trial import FrozenTrial

from autocompress.evaluate.early_stopping import Screened
from autocompress.records.constraint import meets
from autocompress.records.hypervolume import Reference
from autocompress.records.study import Constraint, Evaluation
from autocompress.search.sampler.attempts import first_try
from autocompress.search.sampler.encoding import ACTIVATIONS, EncodedSpace, Key, Row, key_of
from autocompress.search.storage.stored_trial import StoredTrial, stored_trial

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, kw_only=True)
class KnownTrial:
    """A trial as the sampler sees it: `values` in the order of `Trials`, NaN where it has none; `objectives` of a
    complete one that meets the constraints. `row`: None where it is not of this space, or was trained."""

    number: int
    row: Row | None
    values: tuple[float, ...]
    objectives: tuple[float, ...] | None
    failed: bool


class History:
    """The trials of a study, as far as `update` has seen them."""

    def __init__(
        self,
        encoded_space: EncodedSpace,
        reference: Reference,
        objectives: Sequence[str],
        constraints: Sequence[Constraint],
    ) -> None:
        self._space, self._reference = encoded_space, reference
        self._objectives, self._constraints = tuple(objectives), tuple(constraints)
        self._settled = 0  # so many first trials are finished, and known
        self._finished: set[int] = set()
        self._bad, self._good = np.zeros(encoded_space.container.shape), np.zeros(encoded_space.container.shape, bool)
        self._keys: set[Key] = set()  # of the rows of finished trials
        self._proposed = 0  # of the finished ones
        self.done: list[KnownTrial] = []  # with a row and not failed, by number
        self.front = StrictFront()  # of all that have objectives
        self.untrained = StrictFront()  # of those with a row
        self.pending: list[Row] = []
        self.proposed = 0  # how many trials were not queued with given parameters

    def update(self, trials: Sequence[FrozenTrial], but: int | None = None) -> None:
        """Learn what has finished among the trials (all of the study, by number), and which others run or wait, without
        the one of number `but`."""
        self.pending, unfinished = [], 0
        for trial in trials[self._settled :]:
            if trial.number == but or trial.number in self._finished:
                continue
            stored = stored_trial(trial)
            if trial.state.is_finished():
                self._proposed += stored.was_proposed
                self._learn(self.known(stored))
                continue
            unfinished += stored.was_proposed
            if (row := self._row(stored)) is not None:
                self.pending.append(row)
        while self._settled < len(trials) and trials[self._settled].number in self._finished:
            self._settled += 1
        self.proposed = self._proposed + unfinished - _counted_before(trials, but)

    def tried(self, *others: Row) -> set[Key]:
        """The keys of all rows that were tried, run or wait, and of the others."""
        return self._keys.union(map(key_of, self.pending), map(key_of, others))

    def fails(self) -> Array:
        """The chance (A, L, C) that a choice cannot be built: it grows with every failed trial that had its container,
        until one with it has succeeded."""
        suspected: Array = np.where(self._good, 0.0, 1.0 - 0.5**self._bad)
        return suspected

    def known(self, trial: StoredTrial) -> KnownTrial:
        """What a trial says."""
        objectives: tuple[float, ...] | None = None
        values: tuple[float, ...] = (math.nan,) * 6
        if trial.state == "complete" and (evaluation := trial.evaluation) is not None:
            compiled = evaluation.measurement.flash_bytes is not None
            sized = ("flash_bytes", "ram_bytes") if compiled else ("download_bytes", "peak_memory_bytes")
            names = ("accuracy", "latency_ms", "file_bytes", *sized)
            loss, *shares = (self._reference.share(evaluation, name) for name in names)
            values = (loss, _doubt(evaluation) / self._reference.metric_scale, *shares)
            objectives = self._front_point(evaluation)
        elif isinstance(stop := trial.stop, Screened):  # no metric, no front
            predicted = {
                "latency_ms": stop.latency_ms,
                "file_bytes": stop.file_bytes,
                "download_bytes": stop.download_bytes,
            }
            shares = [value / self._reference.unit(name) for name, value in predicted.items()]
            values = (math.nan, math.nan, *shares, math.nan)
        # A trained candidate is a point of the front, but teaches nothing about untrained ones of its configuration.
        return KnownTrial(
            number=trial.number,
            row=None if trial.finetuned_from is not None else self._row(trial),
            values=(trial.divergence, *values),
            objectives=objectives,
            failed=trial.state == "failed",
        )

    def _learn(self, known: KnownTrial) -> None:
        self._finished.add(known.number)
        if known.objectives is not None:
            self.front.add(known)
        if known.row is None:
            return
        self._keys.add(key_of(known.row))
        self._count_failure(known, known.row)
        if not known.failed:
            bisect.insort(self.done, known, key=lambda each: each.number)
            if known.objectives is not None:
                self.untrained.add(known)

    def _count_failure(self, known: KnownTrial, row: Row) -> None:
        layers = np.arange(len(self._space.rows))
        held = self._space.container[row[0], layers, np.array(row[1 : 1 + len(layers)])]
        same = self._space.container[row[0]] == held[:, None]
        if known.failed:
            self._bad[row[0]] += same
        elif not math.isnan(known.values[1]):
            self._good[row[0]] |= same

    def _row(self, trial: StoredTrial) -> Row | None:
        return self._space.row_of(trial.parameters, ACTIVATIONS)

    def _front_point(self, evaluation: Evaluation) -> tuple[float, ...] | None:
        """An evaluation's objectives on the hypervolume's scales; None where it violates a constraint or lacks one."""
        if not meets(evaluation, self._constraints):
            return None
        point = self._reference.points([evaluation], self._objectives)[0]
        return None if np.isnan(point).any() else tuple(point.tolist())


class StrictFront:
    """What no other one dominates, by number; of equal ones the first. By the values as they are: the expected gain of
    hypervolume takes noise into account, and the same seed keeps its study. What is reported is `records/front.py`."""

    def __init__(self) -> None:
        self.members: list[KnownTrial] = []
        self.points: Array = np.empty((0, 0))  # their objectives, (n, objectives)

    def add(self, known: KnownTrial) -> None:
        """Take one in, if it belongs there, and put out what it dominates."""
        point = np.array(known.objectives)
        points = self.points.reshape(len(self.members), len(point))
        no_worse = (points <= point).all(axis=1)
        equal = no_worse & (points == point).all(axis=1)
        if (no_worse & ~equal).any() or any(self.members[n].number < known.number for n in np.flatnonzero(equal)):
            return
        stays = ~(points >= point).all(axis=1)
        self.members = [each for each, keep in zip(self.members, stays, strict=True) if keep]
        place = bisect.bisect([each.number for each in self.members], known.number)
        self.members.insert(place, known)
        self.points = np.insert(points[stays], place, point, axis=0)


def _counted_before(trials: Sequence[FrozenTrial], number: int | None) -> int:
    """1 where this trial runs again what was proposed and died: that was counted, and is no other suggestion."""
    if number is None or stored_trial(trials[number]).retry_of is None:
        return 0
    return int(stored_trial(first_try(trials[number], trials)).was_proposed)


def _doubt(evaluation: Evaluation) -> float:
    """The standard deviation of the metric's difference to the baseline, from its 95 % interval."""
    ends = evaluation.accuracy_delta_ci
    return 0.0 if ends is None else (ends[1] - ends[0]) / (2 * 1.96)
