"""The guided sampler: layer tables as a prior, corrected by every trial, the greatest expected hypervolume gain next.

A stock sampler learns each layer's sensitivity by trial and error; layer tables know it before the first trial, but
not what sequential reconstruction mends, nor how the metric answers. So the tables are the prior of a model with few
parameters, and trials correct those. Everything that a suggestion depends on is the seed, the trial's number and the
trials stored: an uninterrupted study repeats bit for bit, and storage, resuming and parallel workers stay Optuna's.
Trials that run already count as what is expected of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from autocompress import pareto
from autocompress.records import Constraint, Evaluation, Importance, value_name
from autocompress.search.beliefs import MOST_TRIALS, Beliefs, Trials
from autocompress.search.importance import importance_of
from autocompress.search.improvement import Cells
from autocompress.search.landscape import Landscape, width_parameter
from autocompress.search.place import place_of
from autocompress.search.propose import Goal, Limit, Proposer, Row

Array = np.ndarray[Any, Any]
ACTIVATIONS = "activations"
# The first suggestions are the tables' own, for corrections learned from corners alone do not carry to the front; later
# every other one is, as long as they have new ones: a hedge against what was learned from noise.
_FROM_TABLES = 16
_EXPLORED = 0.1  # of the suggestions look for what one draw of the beliefs promises, farther out than the reference
_FARTHER = 1.3
_VALUES = {
    "accuracy": "loss", "latency_ms": "latency", "energy_mj": "latency", "download_bytes": "download", "file_bytes":
    "file", "peak_memory_bytes": "memory",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Reference:
    """What values are compared with: the baseline's, the plain int8 file's download, and which way the metric goes."""

    baseline: Evaluation
    int8_download_bytes: int | None
    higher_is_better: bool

    def unit(self, name: str) -> float:
        """What one of the values called `name` (an evaluation's) is divided by; 1 where it is missing."""
        if name == "accuracy":
            return 1.0
        if name == "download_bytes":
            return float(self.int8_download_bytes or self.baseline.download_bytes / 4)
        return float(self.baseline.value(name) or 1.0)

    def share(self, evaluation: Evaluation, name: str) -> float:
        """The value of an evaluation in these units, NaN where missing; of the metric, what it lost."""
        value = evaluation.value(name)
        if value is None or not math.isfinite(value):
            return math.nan
        return self.loss(value) if name == "accuracy" else value / self.unit(name)

    def loss(self, accuracy: float) -> float:
        """How much worse than the baseline a value of the metric is."""
        lost = self.baseline.accuracy - accuracy
        return lost if self.higher_is_better else -lost


@dataclass(frozen=True, kw_only=True)
class _Known:
    """A trial as the sampler sees it: `values` in the order of `Trials`; `feasible` and complete ones form the
    front."""

    row: Row | None
    values: tuple[float, ...]
    objectives: tuple[float, ...] | None
    failed: bool


class GuidedSampler(BaseSampler):
    """See the module. `landscape` is asked for the tables at the first suggestion that is no corner."""

    def __init__(
        self, *, seed: int, landscape: Callable[[], Landscape], reference: Callable[[], Reference],
        objectives: Sequence[str], size: str, constraints: Sequence[Constraint],
    ) -> None:  # fmt: skip
        self._seed, self._landscape, self._reference = seed, landscape, reference
        self._objectives = tuple(value_name(name, size) for name in objectives)
        self._constraints = tuple(constraints)
        self._finished: dict[int, _Known] = {}  # by trial number: what is finished does not change

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """All parameters, drawn together; none for a trial whose parameters are all given."""
        fixed = trial.system_attrs.get("fixed_params")
        if fixed and "retry_of" not in trial.user_attrs:
            return {}
        land = self._landscape()
        space: dict[str, BaseDistribution] = {}
        if len(land.activations) > 1:
            space[ACTIVATIONS] = CategoricalDistribution(land.activations)
        for name, row in land.choices.items():
            if len(row) > 1:
                space[name] = CategoricalDistribution([choice.to_json() for choice in row])
        for name, counts in land.widths.items():
            space[width_parameter(name)] = CategoricalDistribution(counts)
        # Of a trial that died while its parameters were drawn, those that it had are given: the rest is drawn again.
        return {} if fixed and set(space) <= set(fixed) else space

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The configuration to try next. Where every configuration has been tried: the one of the first trial."""
        if not search_space:
            return {}
        others = [t for t in study.get_trials(deepcopy=False) if t.number != trial.number]
        rng = np.random.default_rng((self._seed, place_of(trial, others)))
        row = self.proposal(others, rng)
        land = self._landscape()
        chosen = land.configuration(row if row is not None else (0,) * len(land.counts))
        values: dict[str, Any] = {ACTIVATIONS: land.activations[row[0]] if row is not None else land.activations[0]}
        values |= {name: choice.to_json() for name, choice in chosen.layers.items()}
        values |= {width_parameter(name): chosen.channels.get(name, row[0]) for name, row in land.widths.items()}
        return {name: values[name] for name in search_space}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """A parameter that was not drawn with the others (one a queued trial left out): the first value."""
        assert isinstance(param_distribution, CategoricalDistribution)
        return param_distribution.choices[0]

    def proposal(self, trials: Sequence[FrozenTrial], rng: np.random.Generator) -> Row | None:
        """The row to evaluate next, given all other trials; None where every row has been tried."""
        land, known = self._landscape(), [self._known(trial) for trial in trials]
        rows = {row for row in (*(k.row for k in known), self._float_row(land)) if row is not None}
        done = [k for k in known if k.row is not None and not k.failed]
        beliefs = self._beliefs(done, rng)
        running = [t for t in trials if t.state in (TrialState.RUNNING, TrialState.WAITING)]
        pending = [row for t in running if (row := self._row(t, land)) is not None]
        explores = bool(rng.random() < _EXPLORED)
        goal = self._goal(land, beliefs, known, pending, explores)
        proposer = Proposer(land, beliefs, goal, rows, rng)
        proposed = sum("fixed_params" not in trial.system_attrs for trial in trials)
        # Where a constraint must hold, what is known of the candidate counts more than what the tables say.
        by_tables = not self._constraints and (proposed < _FROM_TABLES or proposed % 2 == 0)
        found = proposer.of_tables() if by_tables else None
        return proposer.best(self._elites(done, land, rng)) if found is None else found

    def _beliefs(self, done: Sequence[_Known], rng: np.random.Generator) -> Beliefs:
        land, unit = self._landscape(), self._reference().unit("download_bytes")
        return Beliefs(
            land, _arrays(done[-MOST_TRIALS:], land), download_unit=unit, scale=pareto.ACCURACY_SCALE, rng=rng
        )

    def importance(self, trials: Sequence[FrozenTrial], number: int) -> tuple[Importance, ...]:
        """What each technique does in each layer of the configuration of trial `number`, by all trials."""
        known = {t.number: self._known(t) for t in trials}
        row, land = known[number].row, self._landscape()
        if row is None:
            return ()
        beliefs = self._beliefs([k for k in known.values() if k.row is not None and not k.failed],
                                np.random.default_rng((self._seed, number)))  # fmt: skip
        return importance_of(land, beliefs, row, self._reference().unit("download_bytes"))

    def exhausted(self, trials: Sequence[FrozenTrial]) -> bool:
        """Whether every configuration of the space has been tried."""
        land = self._landscape()
        rows = {k.row for t in trials if (k := self._known(t)).row is not None}
        return len(rows | {self._float_row(land)}) >= land.configurations + (self._float_row(land) is None)

    def _float_row(self, land: Landscape) -> Row | None:
        """The row of the float network, which is no candidate; None where it is not in the space."""
        places = [next((n for n, c in enumerate(row) if c.is_baseline), None) for row in land.rows]
        whole = (0,) * len(land.widths)
        return None if None in places else (0, *(int(n) for n in places if n is not None), *whole)

    def _row(self, trial: FrozenTrial, land: Landscape) -> Row | None:
        return land.row_of(trial.system_attrs.get("fixed_params", {}) | trial.params, ACTIVATIONS)

    def _known(self, trial: FrozenTrial) -> _Known:
        if trial.number in self._finished:
            return self._finished[trial.number]
        land, reference = self._landscape(), self._reference()
        stored, nothing = trial.user_attrs.get("evaluation"), (math.nan,) * 6
        values: tuple[float, ...] = nothing
        objectives = None
        if stored is not None and trial.state == TrialState.COMPLETE:
            evaluation = Evaluation.from_dict(stored)
            names = ("accuracy", "latency_ms", "file_bytes", "download_bytes", "peak_memory_bytes")
            loss, *shares = (reference.share(evaluation, name) for name in names)
            values = (loss, _doubt(evaluation), *shares)
            objectives = self._front_point(evaluation)
        elif (seen := trial.user_attrs.get("seen", {})).get("latency_ms") is not None:  # screened: no metric, no front
            shares = [seen[name] / reference.unit(name) for name in ("latency_ms", "file_bytes", "download_bytes")]
            values = (math.nan, math.nan, *shares, math.nan)
        divergence = float(trial.user_attrs.get("divergence", math.nan))
        # A trained candidate is a point of the front, but teaches nothing about untrained ones of its configuration.
        trained = "finetuned_from" in trial.user_attrs
        known = _Known(
            row=None if trained else self._row(trial, land), values=(divergence, *values), objectives=objectives,
            failed=trial.state == TrialState.FAIL,
        )  # fmt: skip
        if trial.state.is_finished():
            self._finished[trial.number] = known
        return known

    def _front_point(self, evaluation: Evaluation) -> tuple[float, ...] | None:
        """An evaluation's objectives in units of the hypervolume; None where it violates a constraint or lacks one."""
        for constraint in self._constraints:
            value = evaluation.value(constraint.name)
            if value is None or (value > constraint.bound if constraint.relation == "<=" else value < constraint.bound):
                return None
        point = [self._reference().share(evaluation, name) / _scale(name) for name in self._objectives]
        return None if any(map(math.isnan, point)) else tuple(point)

    def _goal(
        self, land: Landscape, beliefs: Beliefs, known: Sequence[_Known], pending: Sequence[Row], explores: bool
    ) -> Goal:
        names = tuple(_VALUES[name] for name in self._objectives)
        units = np.array([_scale(name) for name in self._objectives])
        points = [k.objectives for k in known if k.objectives is not None]
        front = np.array(points).reshape(len(points), len(names))
        if pending:
            expected = beliefs.predict(np.array(pending))
            waiting = np.stack([expected.mean[name] for name in names], axis=1) / units
            front = np.concatenate([front, waiting])
        reference = _reference_point(front) * (_FARTHER if explores else 1.0)
        front = front[pareto.non_dominated(front)] if len(front) else front
        return Goal(
            objectives=names,
            units=units,
            cells=Cells(front, reference),
            limits=self._limits(),
            fails=_fails(known, land),
        )

    def _limits(self) -> tuple[Limit, ...]:
        reference = self._reference()
        limits = []
        for constraint in self._constraints:
            name, least = constraint.name, constraint.relation == ">="
            bound = reference.loss(constraint.bound) if name == "accuracy" else constraint.bound / reference.unit(name)
            turned = name == "accuracy" and reference.higher_is_better
            limits.append(Limit(name=_VALUES[name], bound=bound, least=least != turned))
        return tuple(limits)

    def _elites(self, done: Sequence[_Known], land: Landscape, rng: np.random.Generator) -> Array:
        """The rows on the front, at most 48; where none is feasible, those of the least loss."""
        having = [k for k in done if k.objectives is not None]
        if having:
            mask = pareto.non_dominated([k.objectives for k in having if k.objectives is not None])
            rows = [k.row for k, on in zip(having, mask, strict=True) if on]
        else:
            rows = [k.row for k in sorted(done, key=lambda k: (math.isnan(k.values[1]), k.values[1]))[:12]]
        if len(rows) > 48:
            rows = [rows[n] for n in np.sort(rng.choice(len(rows), 48, replace=False))]
        return np.array(rows, dtype=np.int64).reshape(len(rows), len(land.counts))


def _scale(name: str) -> float:
    return pareto.ACCURACY_SCALE if name == "accuracy" else 1.0


def _doubt(evaluation: Evaluation) -> float:
    """The standard deviation of the metric's difference to the baseline, from its 95 % interval."""
    ends = evaluation.accuracy_delta_ci
    return 0.0 if ends is None else (ends[1] - ends[0]) / (2 * 1.96)


def _arrays(done: Sequence[_Known], land: Landscape) -> Trials:
    x = np.array([k.row for k in done], dtype=np.int64).reshape(len(done), len(land.counts))
    values = np.array([k.values for k in done]).reshape(len(done), 7)
    names = ("divergence", "loss", "doubt", "latency", "file", "download", "memory")
    return Trials(x=x, **dict(zip(names, values.T, strict=True)))


def _reference_point(front: Array) -> Array:
    """Ones, as the design defines the hypervolume; where no point lies within them, as far as the front reaches."""
    ones = np.ones(front.shape[1])
    if not len(front) or (front < 1).all(axis=1).any():
        return ones
    reach: Array = np.maximum(ones, 1.05 * front[pareto.non_dominated(front)].max(axis=0))
    return reach


def _fails(known: Sequence[_Known], land: Landscape) -> Array:
    """The chance (A, L, C) that a choice cannot be built: it grows with every failed trial that had its container,
    until one with it has succeeded."""
    fails = np.zeros(land.container.shape)
    layers = np.arange(len(land.rows))
    if not any(k.failed for k in known):
        return fails
    bad, good = np.zeros(fails.shape), np.zeros(fails.shape, bool)
    for k in known:
        if k.row is not None and (k.failed or k.objectives is not None or not math.isnan(k.values[1])):
            held = land.container[k.row[0], layers, np.array(k.row[1 : 1 + len(layers)])]
            same = land.container[k.row[0]] == held[:, None]
            if k.failed:
                bad[k.row[0]] += same
            else:
                good[k.row[0]] |= same
    suspected: Array = np.where(good, 0.0, 1.0 - 0.5**bad)
    return suspected
