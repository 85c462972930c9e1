"""What the guided sampler keeps of the trials is what a fresh look at all of them finds."""

from __future__ import annotations

import random
from collections.abc import Iterable

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import FrozenTrial, TrialState

from autocompress import pareto
from autocompress.search.sampler.history import History, KnownTrial, StrictFront
from autocompress.search.storage import patient
from tests.builders.made_up_network import guided, new_study, objective, world

points = st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(0, 4))


@settings(deadline=None)
@given(st.lists(points, max_size=30), st.randoms(use_true_random=False))
def test_a_front_in_any_order_is_what_nothing_dominates(values: list[tuple[int, ...]], order: random.Random) -> None:
    members = [
        KnownTrial(number=n, row=(n,), values=(), objectives=tuple(map(float, value)), failed=False)
        for n, value in enumerate(values)
    ]
    front, shuffled = StrictFront(), list(members)
    order.shuffle(shuffled)
    for each in shuffled:
        front.add(each)
    kept: Iterable[bool] = pareto.non_dominated(values).tolist() if values else []
    assert front.members == [each for each, on in zip(members, kept, strict=True) if on]
    assert [tuple(point) for point in front.points] == [each.objectives for each in front.members]


def state(history: History) -> tuple[object, ...]:
    """All that a suggestion depends on."""
    return (
        [k.number for k in history.done],
        [k.row for k in history.done],
        [k.number for k in history.front.members],
        [k.number for k in history.untrained.members],
        history.tried(),
        history.proposed,
        history.fails().tolist(),
        np.nan_to_num([k.values for k in history.done]).tolist(),
        sorted(history.pending),
    )


@pytest.mark.parametrize("seed", range(4))
def test_trials_that_finish_in_any_order_are_known_as_if_read_at_once(seed: int) -> None:
    where = world()
    sampler = guided(where, seed)
    study = new_study(sampler)
    study.optimize(
        objective(where, broken=lambda c: sum(choice.bits < 8 for choice in c.layers.values()) > 2),
        n_trials=25,
        catch=(ValueError,),
    )
    trials = study.get_trials(deepcopy=False)
    assert any(t.state == TrialState.FAIL for t in trials)

    def fresh() -> History:
        return History(where.encoded_space, sampler._reference(), sampler._objectives, ())

    rng = np.random.default_rng(seed)
    ends = rng.permutation(len(trials))  # when each finishes
    grown = fresh()
    for now in range(0, len(trials) + 1, 3):
        there = [running(t) if end >= now else t for t, end in zip(trials, ends, strict=True)]
        grown.update(there, but=4)
        whole = fresh()
        whole.update(there, but=4)
        assert state(grown) == state(whole)
    assert grown.proposed == sum("fixed_params" not in t.system_attrs for t in trials if t.number != 4)


@pytest.mark.parametrize("drawn", [0, 1, 5])
def test_what_died_and_runs_again_counts_as_one_suggestion(drawn: int) -> None:
    """A study that was killed asks the tables as often, and in the same turns, as one that was not."""
    where = world()
    sampler = guided(where, 0)
    study = new_study(sampler)
    study.optimize(objective(where), n_trials=4)

    def proposed_before(trial: optuna.Trial) -> int:
        history = History(where.encoded_space, sampler._reference(), sampler._objectives, ())
        history.update(study.get_trials(deepcopy=False), but=trial.number)
        return history.proposed

    dying = study.ask()
    before = proposed_before(dying)
    for name, distribution in list(sampler._distributions.items())[:drawn]:
        dying._suggest(name, distribution)
    study.tell(dying, state=TrialState.FAIL)
    patient.retry(study, study.get_trials(deepcopy=False)[dying.number])
    again = study.ask()
    assert again.number == dying.number + 1
    assert proposed_before(again) == before
    study.tell(again, state=TrialState.FAIL)
    patient.retry(study, study.get_trials(deepcopy=False)[again.number])  # and dies once more
    assert proposed_before(study.ask()) == before


def running(trial: FrozenTrial) -> FrozenTrial:
    """The trial while it ran."""
    return FrozenTrial(
        number=trial.number,
        state=TrialState.RUNNING,
        value=None,
        datetime_start=trial.datetime_start,
        datetime_complete=None,
        params=trial.params,
        distributions=trial.distributions,
        user_attrs={},
        system_attrs=trial.system_attrs,
        intermediate_values={},
        trial_id=trial._trial_id,
    )
