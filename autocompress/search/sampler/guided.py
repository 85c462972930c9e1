"""The guided sampler: layer tables as a prior, corrected by every trial, the greatest expected hypervolume gain next.

A stock sampler learns each layer's sensitivity by trial and error; layer tables know it before the first trial, but not
what sequential reconstruction makes up for, nor how the metric answers. So the tables are the prior of a model with few
parameters, and trials correct those. Everything that a suggestion depends on is the seed, the trial's number and the
trials stored: an uninterrupted study repeats bit for bit, and storage, resuming and parallel workers stay Optuna's.
Trials that run already count as what is expected of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial
from threadpoolctl import ThreadpoolController

from autocompress import pareto
from autocompress.records.hypervolume import Reference
from autocompress.records.study import Constraint, Importance, value_name
from autocompress.search.sampler.acquisition import (
    Acquisition,
    AcquisitionOptimizer,
    HypervolumeScale,
    PredictedConstraint,
)
from autocompress.search.sampler.attempts import Places
from autocompress.search.sampler.ehvi import CellDecomposition
from autocompress.search.sampler.encoding import ACTIVATIONS, EncodedSpace, Key, Row, key_of, width_parameter
from autocompress.search.sampler.history import History, KnownTrial
from autocompress.search.sampler.importance import alternatives_of, importance_of
from autocompress.search.sampler.posterior import MOST_TRIALS, Posterior, Trials
from autocompress.search.storage.stored_trial import stored_trial

Array = np.ndarray[Any, Any]
# The first suggestions are the tables' own, for corrections learned from uniform baselines alone do not carry to the
# front; later every other one is, as long as they have new ones: a hedge against what was learned from noise.
_FROM_TABLES = 6
OWN_BETWEEN = 2  # suggestions between two uniform baselines: a uniform baseline seldom stays on the front
_EXPLORED = 0.1  # of the suggestions look for what one draw of the posterior promises, farther out than the reference;
_UNEXPLORED = 16  # but not of the first
_FARTHER = 0.3
_VALUES = {
    "accuracy": "loss",
    "latency_ms": "latency",
    "energy_mj": "latency",
    "download_bytes": "download",
    "file_bytes": "file",
    "flash_bytes": "download",  # of a device with a compiler, which codes the weights itself
    "ram_bytes": "memory",
    "peak_memory_bytes": "memory",
}


class GuidedSampler(BaseSampler):
    """See the module. `encoded_space` is asked for the tables at the first suggestion. `uniform_baselines`: the
    parameters of uniform configurations, which stand among the first suggestions, one behind each OWN_BETWEEN
    others."""

    def __init__(
        self,
        *,
        seed: int,
        encoded_space: Callable[[], EncodedSpace],
        reference: Callable[[], Reference],
        objectives: Sequence[str],
        size: str,
        constraints: Callable[[], Sequence[Constraint]],
        uniform_baselines: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        self._seed, self._encoded_space, self._reference = seed, encoded_space, reference
        self._objectives = tuple(value_name(name, size) for name in objectives)
        self._bounds, self._uniform_baselines, self._places = constraints, tuple(uniform_baselines), Places()

    @cached_property
    def _constraints(self) -> tuple[Constraint, ...]:
        """Known with the float network's values."""
        return tuple(self._bounds())

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """All parameters, drawn together; none for a trial whose parameters are all given."""
        stored = stored_trial(trial)
        if stored.given and stored.retry_of is None:
            return {}
        drawn = self._distributions
        # Of a trial that died while its parameters were drawn, those that it had are given: the rest is drawn again.
        return {} if stored.given and set(drawn) <= set(stored.given) else drawn

    @cached_property
    def _distributions(self) -> dict[str, BaseDistribution]:
        """What is drawn: all that has more than one value."""
        space = self._encoded_space()
        found: dict[str, BaseDistribution] = {}
        if len(space.activations) > 1:
            found[ACTIVATIONS] = CategoricalDistribution(space.activations)
        for name, row in space.choices.items():
            if len(row) > 1:
                found[name] = CategoricalDistribution([choice.to_json() for choice in row])
        for name, counts in space.widths.items():
            found[width_parameter(name)] = CategoricalDistribution(counts)
        return found

    @cached_property
    def _blas(self) -> ThreadpoolController:
        return ThreadpoolController()

    @cached_property
    def _history(self) -> History:
        return History(self._encoded_space(), self._reference(), self._objectives, self._constraints)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The configuration to try next. Where every configuration has been tried: the one of the first trial."""
        if not search_space:
            return {}
        trials = study.get_trials(deepcopy=False)
        rng = np.random.default_rng((self._seed, self._places.of(trial, trials)))
        self._history.update(trials, but=trial.number)
        space = self._encoded_space()
        with self._blas.limit(limits=1):  # its matrices are small: threads only wait for each other
            row = self._proposal(rng)
        chosen = space.configuration(row if row is not None else (0,) * len(space.counts))
        values: dict[str, Any] = {ACTIVATIONS: space.activations[row[0]] if row is not None else space.activations[0]}
        values |= {name: choice.to_json() for name, choice in chosen.layers.items()}
        values |= {width_parameter(name): chosen.channels.get(name, row[0]) for name, row in space.widths.items()}
        return {name: values[name] for name in search_space}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """A parameter that was not drawn with the others (one a queued trial left out): the first value."""
        assert isinstance(param_distribution, CategoricalDistribution)
        return param_distribution.choices[0]

    def _proposal(self, rng: np.random.Generator) -> Row | None:
        """The row to evaluate next, given all other trials; None where every row has been tried."""
        space, history = self._encoded_space(), self._history
        tried = self._tried()
        turns, place = divmod(history.proposed, OWN_BETWEEN + 1)
        if place == OWN_BETWEEN and (uniform_baseline := self._next_uniform_baseline(tried)) is not None:
            return uniform_baseline
        own = history.proposed - min(turns, len(self._uniform_baselines))
        posterior = self._posterior(rng)
        explores = bool(rng.random() < _EXPLORED) and own >= _UNEXPLORED
        goal = self._goal(posterior, explores)
        proposer = AcquisitionOptimizer(space, posterior, goal, tried, rng)
        # Where a constraint must hold, what is known of the candidate counts more than what the tables say.
        by_tables = not self._constraints and (own < _FROM_TABLES or own % 2 == 0)
        found = proposer.of_tables() if by_tables else None
        return proposer.best(self._elites(space, rng)) if found is None else found

    def _next_uniform_baseline(self, tried: set[Key]) -> Row | None:
        """The next uniform baseline that has not been tried; None where all have."""
        rows = (self._encoded_space().row_of(each, ACTIVATIONS) for each in self._uniform_baselines)
        return next((row for row in rows if row is not None and key_of(row) not in tried), None)

    def _posterior(self, rng: np.random.Generator) -> Posterior:
        space, unit = self._encoded_space(), self._reference().unit("download_bytes")
        trials = _arrays(self._history.done[-MOST_TRIALS:], space)
        return Posterior(space, trials, download_unit=unit, scale=pareto.ACCURACY_SCALE, rng=rng)

    def importance(self, trials: Sequence[FrozenTrial], number: int) -> tuple[Importance, ...]:
        """What each technique does in each layer and group of channels of the configuration of trial `number`, by all
        trials. Of a trained candidate: what it does in the same one untrained."""
        return self._around(importance_of, trials, number)

    def alternatives(self, trials: Sequence[FrozenTrial], number: int) -> tuple[Importance, ...]:
        """What each layer's other choices would do in the configuration of trial `number`, one technique changed."""
        return self._around(alternatives_of, trials, number)

    def _around(
        self, look: Callable[..., tuple[Importance, ...]], trials: Sequence[FrozenTrial], number: int
    ) -> tuple[Importance, ...]:
        self._history.update(trials)
        space, reference = self._encoded_space(), self._reference()
        trial = next(trial for trial in trials if trial.number == number)
        row = space.row_of(trial.params, ACTIVATIONS)
        if row is None:
            return ()
        full = [known.row for known in self._history.done if known.row is not None and math.isfinite(known.values[1])]
        units = {name: reference.unit(name) for name in ("download_bytes", "latency_ms", "accuracy")}
        return look(space, self._posterior(np.random.default_rng((self._seed, number))), row, full, units)

    def exhausted(self, trials: Sequence[FrozenTrial]) -> bool:
        """Whether every configuration of the space has been tried."""
        self._history.update(trials)
        space = self._encoded_space()
        return len(self._tried()) >= space.configurations

    def _tried(self) -> set[Key]:
        """The keys of the rows that must not be proposed."""
        whole = self._float_row(self._encoded_space())
        return self._history.tried() if whole is None else self._history.tried(whole)

    def _float_row(self, space: EncodedSpace) -> Row | None:
        """The row of the float network, which is no candidate; None where it is not in the space."""
        places = [next((n for n, c in enumerate(row) if c.is_baseline), None) for row in space.rows]
        whole = (0,) * len(space.widths)
        return None if None in places else (0, *(int(n) for n in places if n is not None), *whole)

    def _goal(self, posterior: Posterior, explores: bool) -> Acquisition:
        names = tuple(_VALUES[name] for name in self._objectives)
        scale = HypervolumeScale(self._reference(), self._objectives)
        front = self._history.front.points.reshape(-1, len(names))
        if self._history.pending:
            expected = posterior.predict(np.array(self._history.pending))
            waiting, _ = scale(*expected.columns(names))
            front = np.concatenate([front, waiting])
        reference = _reference_point(front) + (_FARTHER if explores else 0.0)
        front = front[pareto.non_dominated(front)] if len(front) else front
        return Acquisition(
            objectives=names,
            scale=scale,
            cells=CellDecomposition(front, reference),
            limits=self._limits(),
            fails=self._history.fails(),
        )

    def _limits(self) -> tuple[PredictedConstraint, ...]:
        reference = self._reference()
        limits = []
        for constraint in self._constraints:
            name, least = constraint.name, constraint.relation == ">="
            bound = reference.loss(constraint.bound) if name == "accuracy" else constraint.bound / reference.unit(name)
            turned = name == "accuracy" and reference.higher_is_better
            limits.append(PredictedConstraint(name=_VALUES[name], bound=bound, least=least != turned))
        return tuple(limits)

    def _elites(self, space: EncodedSpace, rng: np.random.Generator) -> Array:
        """The rows on the front, at most 48; where none is feasible, those of the least loss."""
        best = self._history.untrained.members
        if not best:
            best = sorted(self._history.done, key=lambda k: (math.isnan(k.values[1]), k.values[1]))[:12]
        rows = [known.row for known in best]
        if len(rows) > 48:
            rows = [rows[n] for n in np.sort(rng.choice(len(rows), 48, replace=False))]
        return np.array(rows, dtype=np.int64).reshape(len(rows), len(space.counts))


def _arrays(done: Sequence[KnownTrial], space: EncodedSpace) -> Trials:
    rows = chain.from_iterable(k.row for k in done if k.row is not None)
    x = np.fromiter(rows, np.int64).reshape(len(done), len(space.counts))
    values = np.fromiter(chain.from_iterable(k.values for k in done), np.float64).reshape(len(done), 7)
    names = ("divergence", "loss", "doubt", "latency", "file", "download", "memory")
    return Trials(x=x, **dict(zip(names, values.T, strict=True)))


def _reference_point(front: Array) -> Array:
    """Ones, as the hypervolume has it; where no point lies within them, as far as the front reaches."""
    ones = np.ones(front.shape[1])
    if not len(front) or (front < 1).all(axis=1).any():
        return ones
    reach: Array = np.maximum(ones, 0.05 + front[pareto.non_dominated(front)].max(axis=0))
    return reach
