"""What a search adds to its study when its trials are done: the careful figures of the front, and importance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict

import optuna

from autocompress.errors import CandidateError
from autocompress.evaluate.evaluator import Evaluator
from autocompress.records.front import Front
from autocompress.records.study import Evaluation, StudyRecord, TrialRecord
from autocompress.search import setup
from autocompress.search.sampler.guided import GuidedSampler
from autocompress.search.storage import study_records

Read = Callable[[], StudyRecord]


def measure_front(study: optuna.Study, evaluator: Evaluator, read: Read) -> None:
    """Careful latencies for the front, which may change it: until it is stable."""
    while stale := [t for t in Front(read()).trials if _careful_key(t) not in study.user_attrs]:
        for trial in stale:
            measured = evaluator.remeasured(_evaluation(trial))
            study.set_user_attr(_careful_key(trial), measured.to_dict())


def front_on_test_data(study: optuna.Study, evaluator: Evaluator, read: Read) -> None:
    """The metric on the test split, for the baseline and the front; a note for a file that does not run on it."""
    record = read()
    for evaluation in [record.baseline, *map(_evaluation, Front(record).trials)]:
        key = f"test:{evaluation.sha256}"
        if key not in study.user_attrs:
            try:
                tested = evaluator.test_quality(evaluation)
            except CandidateError as fault:
                setup.note(study, f"{evaluation.artifact} does not run on the test data: {fault}")
                continue
            study.set_user_attr(key, [tested.value, *tested.interval])


def store_importance(study: optuna.Study, sampler: object, read: Read) -> None:
    """What techniques earn and cost around the knee; only the guided sampler has the tables for it."""
    picks = Front(read()).picks
    if isinstance(sampler, GuidedSampler) and picks:
        trials, knee = study.get_trials(deepcopy=False), picks["knee"].number
        found = [asdict(row) for row in sampler.importance(trials, knee)]
        if found != study.user_attrs.get("importance"):
            study.set_user_attr("importance", found)


def _evaluation(trial: TrialRecord) -> Evaluation:
    assert trial.evaluation is not None  # it is on the front
    return trial.evaluation


def _careful_key(trial: TrialRecord) -> str:
    return study_records.careful_key(_evaluation(trial))
