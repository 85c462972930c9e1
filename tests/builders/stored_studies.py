"""Studies written through the store, as a search writes them, from records made by hand."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState, create_trial

from autocompress.records.study import StudyRecord, TrialRecord
from autocompress.search.storage import stored_trial, study_records
from autocompress.search.storage.patient import open_storage
from tests.builders.optional import present

STATES = {name: state for state, name in stored_trial.STATES.items()}


def write_study(runs: Path, record: StudyRecord, storage: str | None = None, **identity: Any) -> optuna.Study:
    """The study of a record, in the runs folder or in a storage."""
    (runs / record.name).mkdir(parents=True, exist_ok=True)
    opened = open_storage(study_records.storage_url(runs, record.name, storage))
    study = optuna.create_study(study_name=record.name, storage=opened, directions=["maximize", "minimize", "minimize"])
    made = {
        "task": record.task,
        "network_sha256": "a" * 64,
        "data_sha256": "b" * 64,
        "metric": record.metric_name,
        "higher_is_better": record.higher_is_better,
        "device": record.device,
        "device_sha256": "c" * 64,
        "latency_source": record.latency_source,
        "latency_model_sha256": None,
        "space": record.space,
        "choices_sha256": "d" * 64,
        "objectives": record.objectives,
        "size": record.size,
        "constraints": [str(constraint) for constraint in record.constraints],
        "sampler": record.sampler,
        "seed": record.seed,
    }
    attributes = {
        "identity": made | identity,
        "baseline": record.baseline.to_dict(),
        "versions": dict(record.versions),
        "int8_download_bytes": record.int8_download_bytes,
        "notes": list(record.notes),
        **{f"test:{sha}": [value, *record.test_ci[sha]] for sha, value in record.test_accuracy.items()},
        "importance": [asdict(row) for row in record.importance],
        "runs": [asdict(run) for run in record.runs],
    }
    for name, value in attributes.items():
        study.set_user_attr(name, value)
    for trial in record.trials:
        study.add_trial(_trial(trial))
    return study


def _trial(trial: TrialRecord) -> optuna.trial.FrozenTrial:
    found = trial.evaluation
    attributes: dict[str, Any] = {"wall_s": 0.5} | ({} if found is None else {"evaluation": found.to_dict()})
    attributes |= {} if trial.reason is None else {"reason": trial.reason}
    attributes |= {"cached": True} if trial.cached else {}
    values = None
    if found is not None and trial.state == "complete":
        values = [found.accuracy, present(found.measurement.latency_ms), found.download_bytes]
    return create_trial(state=STATES[trial.state], values=values, user_attrs=attributes)


assert TrialState.WAITING not in STATES.values()  # a queued trial is none yet
