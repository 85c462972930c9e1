"""Trials are read from the tables as Optuna reads them."""

from __future__ import annotations

import math
from pathlib import Path

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState

from autocompress.search.storage import trial_reader
from autocompress.search.storage.patient import PatientStorage


@pytest.fixture
def url(tmp_path: Path) -> str:
    """Two studies that have trials of every state, with and without parameters, values and attributes."""
    url = f"sqlite:///{tmp_path}/study.db"
    for name, choices in (("a", ["x", "y", None]), ("b", ["y", "x"])):  # the same name, other choices
        study = optuna.create_study(storage=RDBStorage(url), study_name=name, directions=["minimize", "maximize"])
        for number in range(12):
            trial = study.ask()
            if number % 4:
                trial.suggest_categorical("layer", choices)
                trial.suggest_float("free", 0, 1 + number)  # ranges may differ from trial to trial
                trial.set_user_attr("evaluation", {"n": number})
            if number % 4 == 1:
                study.tell(trial, [number, math.inf if number > 4 else -math.inf])
            elif number % 4 == 2:
                study.tell(trial, state=(TrialState.PRUNED, TrialState.FAIL)[number > 4])
        study.enqueue_trial({"layer": "x"}, user_attrs={"retry_of": 3})
    return url


def as_shown(trials: list[FrozenTrial]) -> list[tuple[object, ...]]:
    """All that a trial holds."""
    return [
        (
            t._trial_id,
            t.number,
            t.state,
            t.values,
            t.params,
            t.distributions,
            t.user_attrs,
            t.system_attrs,
            t.datetime_start,
            t.datetime_complete,
            list(t.params),
            t.intermediate_values,
        )
        for t in trials
    ]


@pytest.mark.parametrize("most_named", [500, 1])
@pytest.mark.parametrize("states", [None, (TrialState.COMPLETE, TrialState.RUNNING)])
@pytest.mark.parametrize(("named", "later_than"), [(set(), -1), ({2, 3, 9}, 6), (set(), 6), (set(), 1000)])
def test_the_same_as_optuna_reads(
    url: str,
    states: tuple[TrialState, ...] | None,
    named: set[int],
    later_than: int,
    most_named: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(trial_reader, "_MOST_NAMED", most_named)
    mine, optunas = PatientStorage(url), RDBStorage(url)
    for study_id in (1, 2):
        found = as_shown(mine._get_trials(study_id, states, named, later_than))
        wanted = as_shown(optunas._get_trials(study_id, states, named, later_than))
        if most_named == 1 and len(named) > 1:  # more is read then, nothing is left out
            assert [row for row in found if row in wanted] == wanted
        else:
            assert found == wanted


def test_one_trial_and_what_is_not_there(url: str) -> None:
    mine, optunas = PatientStorage(url), RDBStorage(url)
    assert as_shown([mine.get_trial(7)]) == as_shown([optunas.get_trial(7)])
    with pytest.raises(KeyError):
        mine.get_trial(1000)
    with pytest.raises(KeyError):
        mine._get_trials(1000, None, set(), -1)


def test_a_study_reads_what_another_process_has_written(url: str) -> None:
    study = optuna.load_study(storage=PatientStorage(url), study_name="a")
    before = study.get_trials(deepcopy=False)
    other = optuna.load_study(storage=RDBStorage(url), study_name="a")
    running = next(trial for trial in before if trial.state == TrialState.RUNNING)
    other.tell(running.number, [1.0, 2.0])
    new = other.ask({"layer": CategoricalDistribution(["x", "y", None]), "free": FloatDistribution(0, 3)})
    after = study.get_trials(deepcopy=False)
    assert after[running.number].values == [1.0, 2.0]
    assert after[new.number].params == new.params
