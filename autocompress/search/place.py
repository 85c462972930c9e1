"""A trial's place in a study that was never cut: what random draws are seeded with, so that a study which was killed
proposes what it would have proposed."""

from __future__ import annotations

from collections.abc import Sequence

from optuna.trial import FrozenTrial, TrialState


def place_of(trial: FrozenTrial, others: Sequence[FrozenTrial]) -> int:
    """The number that the trial would have if none had died: of one that runs again what another died of, that one's
    place; else its number less those that died before."""
    if not any(each.state == TrialState.FAIL for each in others):  # the usual case, and others may be thousands
        return trial.number
    trial = first_try(trial, others)
    again = {each.user_attrs.get("retry_of") for each in others}
    return trial.number - sum(each.number < trial.number and _died(each, again) for each in others)


def _died(trial: FrozenTrial, again: set[int | None]) -> bool:
    """Whether its process ended under it: it runs again, or failed without a reason before it had any parameters."""
    if trial.number in again:
        return True
    return died_unborn(trial)


def died_unborn(trial: FrozenTrial) -> bool:
    """Whether its process ended before it had any parameters: another trial stands in its place."""
    return trial.state == TrialState.FAIL and "reason" not in trial.user_attrs and not trial.params


def first_try(trial: FrozenTrial, others: Sequence[FrozenTrial]) -> FrozenTrial:
    """The trial that this one runs again, if its process ended under it; else itself. `others`: all, by number."""
    while (died := trial.user_attrs.get("retry_of")) is not None and died < len(others):
        trial = others[died]
    return trial
