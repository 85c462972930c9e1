"""The evaluation of a trial's configuration: from the study's records where it has been seen, else by the evaluator,
and what of it is stored in the trial."""

from __future__ import annotations

import time

import optuna

from autocompress.errors import CandidateError
from autocompress.evaluate.early_stopping import StoppedEarly
from autocompress.evaluate.evaluator import Evaluator
from autocompress.records.configuration import Configuration
from autocompress.records.study import Evaluation
from autocompress.search import setup
from autocompress.search.dominance import Dominance
from autocompress.search.storage.finished_trials import FinishedTrials
from autocompress.search.storage.stored_trial import (
    CACHED,
    DIGEST,
    DIVERGENCE,
    EVALUATION,
    REASON,
    SEEN,
    WALL_S,
    seen_of,
)


class EndsSearch(BaseException):
    """Carries what ends a search out of Optuna, which would store any Exception as a failure of the trial: a device or
    a storage that is away, Ctrl-C, and every fault of ours. The trial stays running and is recovered when the search
    goes on."""

    def __init__(self, why: BaseException) -> None:
        self.why = why


def store_failure(trial: optuna.Trial, configuration: Configuration, fault: CandidateError) -> None:
    """Why a candidate failed, for it and all of the same configuration."""
    trial.set_user_attr(DIGEST, configuration.digest)
    trial.set_user_attr(REASON, str(fault))


class TrialEvaluation:
    """Evaluations for the trials of one study, in one process."""

    def __init__(
        self, study: optuna.Study, evaluator: Evaluator, finished: FinishedTrials, dominance: Dominance
    ) -> None:
        self._study, self._evaluator, self._finished_trials, self._dominance = study, evaluator, finished, dominance
        self._remarked = set[str]()
        self._lap = time.perf_counter()

    def start(self) -> None:
        """The first trial's time begins."""
        self._lap = time.perf_counter()

    def store_stop(self, trial: optuna.Trial, configuration: Configuration, stop: StoppedEarly) -> None:
        """What was seen of a candidate that was stopped early, under names of its own: never mixed with full values."""
        self._finished_trials.stopped[configuration.digest] = stop
        trial.set_user_attr(DIGEST, configuration.digest)
        trial.set_user_attr(REASON, stop.reason)
        trial.set_user_attr(DIVERGENCE, stop.divergence)
        trial.set_user_attr(SEEN, seen_of(stop))
        self._lapse(trial)

    def _lapse(self, trial: optuna.Trial) -> None:
        now = time.perf_counter()
        trial.set_user_attr(WALL_S, now - self._lap)
        self._lap = now

    def evaluated(self, trial: optuna.Trial, configuration: Configuration) -> Evaluation:
        """The evaluation of a configuration, from the study's records where it has been seen; stored in the trial."""
        if (reason := self._finished_trials.failed.get(configuration.digest)) is not None:
            raise CandidateError(reason)
        if (stop := self._finished_trials.stopped.get(configuration.digest)) is not None:
            raise stop
        known = self._finished_trials.seen.get(configuration.digest)
        try:
            if known is not None:
                evaluation, divergence = known, None
            elif self._dominance.may_end(configuration):
                evaluation, divergence = self._evaluator.evaluate(configuration, self._dominance)
            else:
                evaluation, divergence = self._evaluator.evaluate(configuration)
        except CandidateError as fault:
            self._finished_trials.failed[configuration.digest] = str(fault)
            raise
        self._finished_trials.seen[configuration.digest] = evaluation
        self._remark()
        self._lapse(trial)
        if known is not None:
            trial.set_user_attr(CACHED, True)
        if divergence is not None:
            trial.set_user_attr(DIVERGENCE, divergence)
        trial.set_user_attr(EVALUATION, evaluation.to_dict())
        return evaluation

    def _remark(self) -> None:
        for remark in self._evaluator.remarks:
            if remark not in self._remarked:
                self._remarked.add(remark)
                setup.note(self._study, remark)
