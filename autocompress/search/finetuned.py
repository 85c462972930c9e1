"""Fine-tuned candidates of a study: trials of their own, with their parent's number.

The training itself is passed in: this part knows the study, not TensorFlow. A trained candidate has its parent's
parameters, whatever its configuration: nothing else is ever answered from its record, and samplers learn nothing
from it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from autocompress.compression.reconstruct import SolvedLayer
from autocompress.errors import AutocompressError, CandidateError
from autocompress.evaluate.evaluator import Material
from autocompress.records.configuration import Configuration
from autocompress.records.front import front_of
from autocompress.records.hypervolume import reference_of
from autocompress.records.study import Evaluation, StudyRecord, TrialRecord
from autocompress.search.objectives import constraint_value
from autocompress.search.storage import study_records
from autocompress.search.storage.stored_trial import EVALUATION, FINETUNE, FINETUNED_FROM, REASON, WALL_S, stored_trial
from autocompress.search.study import Search

FOLDER = "finetune"  # below a study's folder: states of trainings that run


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What a training gives back: the configuration that the layers hold, the layers, and `facts` of it for the record
    (plain data)."""

    configuration: Configuration
    layers: tuple[SolvedLayer, ...]
    facts: Mapping[str, Any]


Train = Callable[[Configuration, Material, Path], Trained]  # the path is where it may keep its state


def finetune_trial(opened: Search, number: int, train: Train) -> TrialRecord:
    """Train a trial's candidate on and add the result to the study, as a trial of its own: complete, or failed with the
    reason. AutocompressError for a trial that cannot be trained."""
    parent = parent_of(opened.record(), number)
    assert parent.evaluation is not None
    configuration, start = parent.evaluation.configuration, time.perf_counter()
    attrs: dict[str, Any] = {FINETUNED_FROM: number}
    evaluation = None
    try:
        material = opened.evaluator.material(configuration)
        trained = train(configuration, material, _state_path(opened, number))
        attrs[FINETUNE] = dict(trained.facts)
        evaluation = opened.evaluator.evaluate_trained(trained.configuration, trained.layers)
        attrs[EVALUATION] = evaluation.to_dict()
    except CandidateError as fault:
        attrs |= {REASON: str(fault), FINETUNE: attrs.get(FINETUNE, {})}
    attrs[WALL_S] = time.perf_counter() - start
    return _added(opened, number, evaluation, attrs)


def _state_path(opened: Search, number: int) -> Path:
    folder = study_records.study_folder(opened.resources.runs, opened.name)
    return folder / FOLDER / f"{number}.npz"


def parent_of(record: StudyRecord, number: int) -> TrialRecord:
    """The trial to train on; AutocompressError where there is nothing to train."""
    found = next((trial for trial in record.trials if trial.number == number), None)
    if found is None:
        known = ", ".join(str(trial.number) for trial in front_of(record).trials)
        raise AutocompressError(f"study '{record.name}' has no trial {number}; its front: {known or 'empty'}")
    if found.evaluation is None or found.state != "complete":
        raise AutocompressError(f"trial {number} is {found.state.replace('_', ' ')}; give a complete one")
    if found.evaluation.finetuned:
        raise AutocompressError(f"trial {number} is fine-tuned already; give the trial it was made from")
    if found.evaluation.configuration.is_baseline:
        raise AutocompressError(f"trial {number} is the float network itself; there is nothing to win back")
    return found


def _added(opened: Search, number: int, evaluation: Evaluation | None, attrs: Mapping[str, Any]) -> TrialRecord:
    """The new trial, stored whole in one step: it is there or it is not."""
    parent = _frozen(opened.study, number)
    attrs = dict(attrs)
    values, constraints = None, None
    if evaluation is not None:
        try:
            values = opened.values(evaluation)
            constraints = {str(c): constraint_value(evaluation, c) for c in opened.specification.constraints}
        except CandidateError as fault:
            attrs[REASON], values = str(fault), None
            attrs.pop(EVALUATION)
    made = optuna.trial.create_trial(
        state=TrialState.FAIL if values is None else TrialState.COMPLETE,
        values=values,
        params=parent.params,
        distributions=parent.distributions,
        user_attrs=attrs,
        constraints=constraints,
    )
    before = {trial.number for trial in opened.study.get_trials(deepcopy=False)}
    opened.study.add_trial(made)
    added = next(t for t in opened.study.get_trials(deepcopy=False) if t.number not in before)
    return stored_trial(added).record()


def _frozen(study: optuna.Study, number: int) -> FrozenTrial:
    return next(trial for trial in study.get_trials(deepcopy=False) if trial.number == number)


def worth_training(opened: Search, count: int) -> list[int]:
    """The numbers of the `count` best members of the front that were not trained yet: those that lost least of the
    metric for what they weigh, on the scales of the hypervolume."""
    record = opened.record()
    trials = opened.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    done = {stored_trial(trial).finetuned_from for trial in trials}
    reference = reference_of(record)

    def cost(trial: TrialRecord) -> float:
        assert trial.evaluation is not None
        lost, weighs = reference.points([trial.evaluation], ("accuracy", "download_bytes"))[0]
        return float(max(lost, 0.0) + weighs)

    fitting = [t for t in front_of(record).trials if t.evaluation is not None and not t.evaluation.finetuned]
    fitting = [
        t for t in fitting if t.number not in done and t.evaluation and not t.evaluation.configuration.is_baseline
    ]
    return [trial.number for trial in sorted(fitting, key=cost)[:count]]
