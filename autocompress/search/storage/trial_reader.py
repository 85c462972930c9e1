"""Optuna's trials read from its tables, thousands in a second.

Optuna makes an object of each row and reads with each parameter its distribution: some kilobytes, the same in every
trial of a study, 700 MB in 10,000 trials of ten layers. Here a study's distribution of a name is read once. That is
enough for categorical ones, which is what a space is made of: Optuna refuses a trial whose choices differ."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Container, Iterable, Mapping
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, json_to_distribution
from optuna.storages._rdb.models import (
    TrialModel,
    TrialParamModel,
    TrialSystemAttributeModel,
    TrialUserAttributeModel,
    TrialValueModel,
)
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import ColumnElement, and_, select
from sqlalchemy.orm import Session

_MOST_NAMED = 500  # trials that are asked for one by one; databases limit the variables of a statement


def of_study(
    session: Session, study_id: int, states: Container[TrialState] | None, named: Iterable[int], later_than: int
) -> ColumnElement[bool] | None:
    """The trials of a study in `states` (None: in any) that are `named` or have an id above `later_than`, as Optuna's
    cache asks for what may have changed; with very many all from the lowest on. None: there are none.

    They are looked up first, for a database that is asked for either one or the other reads the whole study."""
    later = select(TrialModel.trial_id).where(TrialModel.study_id == study_id, TrialModel.trial_id > later_than)
    wanted = sorted({*named, *session.scalars(later)})
    if not wanted:
        return None
    many = len(wanted) > _MOST_NAMED
    which = TrialModel.trial_id >= wanted[0] if many else TrialModel.trial_id.in_(wanted)
    stated = [] if states is None else [TrialModel.state.in_([state for state in TrialState if state in states])]
    return and_(TrialModel.study_id == study_id, which, *stated)


class TrialReader:
    """Reads trials; keeps the distributions that it has seen."""

    def __init__(self) -> None:
        self._spaces: dict[tuple[int, str], CategoricalDistribution] = {}

    def read(self, session: Session, condition: ColumnElement[bool]) -> list[FrozenTrial]:
        """The trials that meet the condition on `TrialModel`, by id. No intermediate values: nothing reports any."""
        trials: list[Any] = session.query(TrialModel).filter(condition).order_by(TrialModel.trial_id).all()
        spaces = self._distributions(session, condition, trials)
        user = _attributes(session, condition, TrialUserAttributeModel)
        system = _attributes(session, condition, TrialSystemAttributeModel)
        values = _values(session, condition)
        return [
            FrozenTrial(
                number=trial.number,
                state=trial.state,
                value=None,
                values=values.get(trial.trial_id),
                datetime_start=trial.datetime_start,
                datetime_complete=trial.datetime_complete,
                params={name: space.to_external_repr(value) for name, (value, space) in spaces[trial.trial_id].items()},
                distributions={name: space for name, (_, space) in spaces[trial.trial_id].items()},
                user_attrs=user[trial.trial_id],
                system_attrs=system[trial.trial_id],
                intermediate_values={},
                trial_id=trial.trial_id,
            )
            for trial in trials
        ]

    def _distributions(
        self, session: Session, condition: ColumnElement[bool], trials: Iterable[Any]
    ) -> Mapping[int, Mapping[str, tuple[float, BaseDistribution]]]:
        """Of each trial, by name: the stored value and its distribution."""
        study_of = {trial.trial_id: trial.study_id for trial in trials}
        columns = (TrialParamModel.param_id, TrialParamModel.trial_id, TrialParamModel.param_name)
        query = select(*columns, TrialParamModel.param_value).join(TrialModel).where(condition)
        found: defaultdict[int, dict[str, tuple[float, BaseDistribution]]] = defaultdict(dict)
        for param_id, trial_id, name, value in session.execute(query.order_by(TrialParamModel.param_id)):
            if trial_id in study_of:  # else begun since
                found[trial_id][name] = value, self._distribution(session, study_of[trial_id], name, param_id)
        return found

    def _distribution(self, session: Session, study_id: int, name: str, param_id: int) -> BaseDistribution:
        known = self._spaces.get((study_id, name))
        if known is not None:
            return known
        query = select(TrialParamModel.distribution_json).where(TrialParamModel.param_id == param_id)
        space = json_to_distribution(session.execute(query).scalar_one())
        if isinstance(space, CategoricalDistribution):
            self._spaces[study_id, name] = space
        return space


def _attributes(session: Session, condition: ColumnElement[bool], model: Any) -> defaultdict[int, dict[str, Any]]:
    query = select(model.trial_id, model.key, model.value_json).join(TrialModel).where(condition)
    found: defaultdict[int, dict[str, Any]] = defaultdict(dict)
    for trial_id, key, text in session.execute(query):
        found[trial_id][key] = json.loads(text)
    return found


def _values(session: Session, condition: ColumnElement[bool]) -> Mapping[int, list[float]]:
    model = TrialValueModel
    query = select(model.trial_id, model.value, model.value_type).join(TrialModel).where(condition)
    found: defaultdict[int, list[float]] = defaultdict(list)
    for trial_id, value, kind in session.execute(query.order_by(model.trial_id, model.objective)):
        found[trial_id].append(model.stored_repr_to_value(value, kind))
    return found
