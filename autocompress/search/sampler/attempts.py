"""A trial's place in a study that was never cut: what random draws are seeded with, so that a study which was killed
proposes what it would have proposed."""

from __future__ import annotations

from collections.abc import Sequence

from optuna.trial import FrozenTrial

from autocompress.search.storage.stored_trial import stored_trial


class Places:
    """The places of the trials of one study. A finished trial does not change: each is looked at once, for they may be
    thousands."""

    def __init__(self) -> None:
        self._settled = 0  # so many first trials are finished, and what they say of dead ones is in `_dead`
        self._dead: set[int] = set()

    def of(self, trial: FrozenTrial, others: Sequence[FrozenTrial]) -> int:
        """The number that the trial would have if none had died: of one that runs again what another died of, that
        one's place; else its number less those that died before. `others`: all of the study, by number."""
        while self._settled < len(others) and others[self._settled].state.is_finished():
            self._dead |= _told_dead(others[self._settled])
            self._settled += 1
        dead = self._dead.union(*map(_told_dead, others[self._settled :]))
        number = first_try(trial, others).number
        return number - sum(each < number for each in dead)


def _told_dead(trial: FrozenTrial) -> set[int]:
    """The numbers of the trials that died by what this one says: the one that it runs again, and itself where it died
    before it had any parameters."""
    stored = stored_trial(trial)
    return ({trial.number} if stored.died_unborn else set()) | (set() if stored.retry_of is None else {stored.retry_of})


def first_try(trial: FrozenTrial, others: Sequence[FrozenTrial]) -> FrozenTrial:
    """The trial that this one runs again, if its process ended under it; else itself. `others`: all, by number."""
    while (died := stored_trial(trial).retry_of) is not None and died < len(others):
        trial = others[died]
    return trial
