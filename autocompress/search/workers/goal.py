"""What a running search was asked for, as its study holds it: workers that join read it there."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass

import optuna

from autocompress.records.front import complete
from autocompress.records.study import StudyRecord
from autocompress.search.specification import Budget, Specification

_KEY = "search"


@dataclass(frozen=True, kw_only=True)
class SearchGoal:
    """`by`: the worker that leads the search. `trials`: complete ones wanted; `ends_at`: seconds since the epoch; None:
    no such end. Of the study's earlier runs nothing is kept."""

    by: str
    trials: int | None
    ends_at: float | None
    until_flat: bool
    sampler: str
    seed: int

    def is_met(self, record: StudyRecord) -> bool:
        """Whether the trials or the time asked for are done."""
        by_count = self.trials is not None and len(complete(record)) >= self.trials
        return by_count or (self.ends_at is not None and time.time() >= self.ends_at)


def announce(study: optuna.Study, specification: Specification, budget: Budget, by: str) -> None:
    """Say in the study what is searched from now on; its time begins."""
    goal = SearchGoal(
        by=by,
        trials=budget.trials,
        ends_at=None if budget.time_budget_s is None else time.time() + budget.time_budget_s,
        until_flat=budget.until_flat,
        sampler=specification.sampler,
        seed=specification.seed,
    )
    study.set_user_attr(_KEY, asdict(goal))


def withdraw(study: optuna.Study) -> None:
    """Say that nothing is searched any more: workers end with their present trial."""
    if study.user_attrs.get(_KEY) is not None:
        study.set_user_attr(_KEY, None)


def goal_of(study: optuna.Study) -> SearchGoal | None:
    """What is searched for now; None where the search has ended."""
    stored = study.user_attrs.get(_KEY)
    return None if stored is None else SearchGoal(**stored)
