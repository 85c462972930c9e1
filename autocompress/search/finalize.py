"""What a search adds to its study when its trials are done: the careful figures of the front, and importance."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict

import optuna

from autocompress.errors import CandidateError
from autocompress.evaluate.evaluator import Evaluator
from autocompress.records.front import front_of
from autocompress.records.study import Evaluation, StudyRecord, TrialRecord
from autocompress.search import setup
from autocompress.search.sampler.guided import GuidedSampler
from autocompress.search.storage import study_records

Read = Callable[[], StudyRecord]
_log = logging.getLogger(__name__)


def measure_front(study: optuna.Study, evaluator: Evaluator, read: Read) -> None:
    """Careful latencies for the front, which may change it: until it is stable."""
    while stale := [t for t in front_of(read()).trials if _careful_key(t) not in study.user_attrs]:
        _log.info("measuring %d points of the front more carefully", len(stale))
        for trial in stale:
            measured = evaluator.remeasured(_evaluation(trial))
            study.set_user_attr(_careful_key(trial), measured.to_dict())


def front_on_test_data(study: optuna.Study, evaluator: Evaluator, read: Read) -> None:
    """The metric on the test split, for the baseline and the front; a note for a file that does not run on it."""
    record = read()
    shown = [record.baseline, *map(_evaluation, front_of(record).trials)]
    untested = [each for each in shown if f"test:{each.sha256}" not in study.user_attrs]
    if untested:
        _log.info("running %d files of the front on test data", len(untested))
    for evaluation in untested:
        try:
            tested = evaluator.test_quality(evaluation)
        except CandidateError as fault:
            setup.note(study, f"{evaluation.artifact} does not run on the test data: {fault}")
            continue
        study.set_user_attr(f"test:{evaluation.sha256}", [tested.value, *tested.interval])


def store_importance(study: optuna.Study, sampler: object, read: Read) -> None:
    """What techniques earn and cost around the knee; only the guided sampler has the tables for it."""
    picks = front_of(read()).picks
    if isinstance(sampler, GuidedSampler) and picks:
        trials, knee = study.get_trials(deepcopy=False), picks["knee"].number
        for name, rows in (
            ("importance", sampler.importance(trials, knee)),
            ("alternatives", sampler.alternatives(trials, knee)),
        ):
            found = [asdict(row) for row in rows]
            if found != study.user_attrs.get(name):
                study.set_user_attr(name, found)


def _evaluation(trial: TrialRecord) -> Evaluation:
    assert trial.evaluation is not None  # it is on the front
    return trial.evaluation


def _careful_key(trial: TrialRecord) -> str:
    return study_records.careful_key(_evaluation(trial))
