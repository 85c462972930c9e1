"""What a running search was asked for, as its study holds it: workers that join read it there."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass

import optuna

from autocompress.records.front import complete
from autocompress.records.study import StudyRecord
from autocompress.search.request import Request

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


def announce(study: optuna.Study, request: Request, by: str) -> None:
    """Say in the study what is searched from now on; its time begins."""
    budget_s = request.time_budget_s
    goal = SearchGoal(
        by=by,
        trials=request.trials,
        ends_at=None if budget_s is None else time.time() + budget_s,
        until_flat=request.until_flat,
        sampler=request.sampler,
        seed=request.seed,
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
