"""From a study's record to what is said of it: the front, the JSON document, the pick, the card. Pure."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from autocompress import pareto
from autocompress.errors import AutocompressError, UnmetError, unknown_name
from autocompress.records.configuration import Configuration
from autocompress.records.study import Constraint, Evaluation, StudyRecord, TrialRecord, value_name

_GROUPS_SHOWN = 6  # of the groups that lost channels

STATES = ("complete", "stopped_early", "screened", "failed", "running")
PICKS = ("knee", "fastest", "smallest", "best")
FLAT_TRIALS, FLAT_GAIN = 20, 0.005  # a search has gone flat that gained less over so many complete trials


def value_of(evaluation: Evaluation, name: str) -> float | None:
    """The value called `name` (one of CONSTRAINT_NAMES); None where it is missing or not finite."""
    value = evaluation.value(name)
    return value if value is not None and math.isfinite(value) else None


def violation(evaluation: Evaluation, constraint: Constraint) -> float:
    """By how much of its bound the constraint is missed: 0 where it is met, inf where its value is
    missing."""
    value = value_of(evaluation, constraint.name)
    if value is None:
        return math.inf
    excess = value - constraint.bound if constraint.relation == "<=" else constraint.bound - value
    return max(excess, 0.0) / (abs(constraint.bound) or 1.0)


def complete(record: StudyRecord) -> tuple[tuple[TrialRecord, Evaluation], ...]:
    """The complete trials with their evaluations, by number."""
    trials = sorted(record.trials, key=lambda trial: trial.number)
    return tuple((t, t.evaluation) for t in trials if t.state == "complete" and t.evaluation is not None)


def evaluated_count(record: StudyRecord) -> int:
    """How many candidates were built and evaluated; those answered from the study's records do not count."""
    return sum(trial.evaluation is not None and not trial.cached for trial in record.trials)


def front(record: StudyRecord) -> tuple[TrialRecord, ...]:
    """The non-dominated complete trials that satisfy the constraints, best metric first, then smallest.

    Over the study's objectives; of equal vectors the lowest trial number stands. A trial that lacks the
    value of an objective cannot be compared and is not on it.
    """
    found = complete(record)
    vectors = front_vectors(record, [evaluation for _, evaluation in found])
    comparable = ~np.isnan(vectors).any(axis=1)
    mask = np.zeros(len(found), dtype=np.bool_)
    mask[comparable] = pareto.non_dominated(vectors[comparable])
    kept = list(itertools.compress(found, mask))
    kept.sort(key=lambda pair: (_loss(record, pair[1]), _size(record, pair[1]), pair[0].number))
    return tuple(trial for trial, _ in kept)


def nearest(record: StudyRecord, count: int = 3) -> tuple[TrialRecord, ...]:
    """The complete trials that miss the constraints by least in sum, each relative to its bound."""

    def missed(pair: tuple[TrialRecord, Evaluation]) -> tuple[float, int]:
        return sum(violation(pair[1], constraint) for constraint in record.constraints), pair[0].number

    return tuple(trial for trial, _ in sorted(complete(record), key=missed)[:count])


def why_empty(record: StudyRecord) -> str:
    """One sentence on why `front(record)` is empty."""
    done = complete(record)
    if not done:
        reasons = [trial.reason for trial in record.trials if trial.state == "failed" and trial.reason]
        last = f"; the last failure: {reasons[-1]}" if reasons else ""
        return f"none of {len(record.trials)} trials is complete{last}"
    if np.isnan(objective_vectors(record, [evaluation for _, evaluation in done])).any(axis=1).all():
        return f"no complete trial has a value for each objective ({', '.join(record.objectives)})"
    asked = " and ".join(str(constraint) for constraint in record.constraints)
    return f"none of {len(done)} complete trials meets {asked}"


def pick(record: StudyRecord, which: str | int) -> TrialRecord:
    """The trial that `which` names: knee, fastest, smallest or best of the front, or any complete trial's
    number.

    The knee is looked for where the metric loses less than the scale of the hypervolume (0.10), if the front
    has such points: networks that no longer work would otherwise stretch the axes. Raises AutocompressError.
    """
    text = str(which)
    if text.isascii() and text.isdecimal():
        return _trial_number(record, text)
    if text not in PICKS:
        raise unknown_name("pick", text, (*PICKS, "a trial number"))
    trials = front(record)
    if not trials:
        error = UnmetError if record.constraints and complete(record) else AutocompressError
        raise error(f"study '{record.name}' has no front to pick from: {why_empty(record)}; search on")
    if text == "knee":
        return _knee(record, trials)
    if text == "best":
        return trials[0]
    name = "latency_ms" if text == "fastest" else f"{record.size}_bytes"
    # The front is sorted best metric first: of equally fast or small ones that is picked.
    return min(trials, key=lambda trial: _or_inf(value_of(_evaluated(trial), name)))


def document(record: StudyRecord) -> dict[str, Any]:
    """The document of `report STUDY --json`: plain data that is valid JSON, null where missing."""
    trials = front(record)
    states = Counter(trial.state for trial in record.trials)
    versions = dict.fromkeys(("autocompress", "optuna", "ai-edge-quantizer", "runtime"))
    found: dict[str, Any] = as_json(
        {
            "schema": 1,
            "study": record.name,
            "task": record.task,
            "device": record.device,
            "latency_source": record.latency_source,
            "latency_error": record.latency_error,
            "metric": {"name": record.metric_name, "higher_is_better": record.higher_is_better},
            "output": None if record.output is None else record.output.to_dict(),
            "space": record.space,
            "sampler": record.sampler,
            "seed": record.seed,
            "baseline": _baseline(record),
            "front": [_front_entry(record, trial) for trial in trials],
            "hypervolume": hypervolume(record),
            "trials": {state: states[state] for state in STATES},
            "candidates_per_s": evaluated_count(record) / record.wall_s if record.wall_s > 0 else None,
            "wall_s": record.wall_s,
            "versions": versions | dict(record.versions),
            "importance": [asdict(row) for row in record.importance],
            "whole_channels": dict(record.whole_channels),
        }
    )
    return found


def hypervolume(record: StudyRecord) -> float | None:
    """The hypervolume of the front in loss, latency and download; None while no plain int8 file is known."""
    return volume(record, [_evaluated(trial) for trial in front(record)])


def volume(record: StudyRecord, evaluations: Sequence[Evaluation]) -> float | None:
    """The hypervolume of these evaluations of the study, as in `hypervolume`."""
    points = scaled(record, evaluations)
    return None if points is None else pareto.hypervolume(points, np.ones(3))


def scaled(record: StudyRecord, evaluations: Sequence[Evaluation]) -> pareto.Floats | None:
    """Loss, latency and download of these evaluations, (n, 3), in the scales of the study's hypervolume; None while no
    plain int8 file is known."""
    if record.int8_download_bytes is None:
        return None
    return pareto.study_points(
        [e.accuracy for e in evaluations],
        [e.measurement.latency_ms for e in evaluations],
        [e.download_bytes for e in evaluations],
        baseline_accuracy=record.baseline.accuracy,
        baseline_latency_ms=record.baseline.measurement.latency_ms,
        int8_download_bytes=record.int8_download_bytes,
        higher_is_better=record.higher_is_better,
    )


def feasible(record: StudyRecord, evaluation: Evaluation) -> bool:
    """Whether it meets the study's constraints."""
    return not any(violation(evaluation, constraint) for constraint in record.constraints)


def is_flat(record: StudyRecord) -> bool:
    """Whether the last FLAT_TRIALS complete trials brought less than FLAT_GAIN of the hypervolume before them."""
    done = [trial for trial, _ in complete(record)]
    if len(done) <= FLAT_TRIALS:
        return False
    before, now = hypervolume(replace(record, trials=tuple(done[:-FLAT_TRIALS]))), hypervolume(record)
    return bool(before) and now is not None and before is not None and now - before < FLAT_GAIN * before


def card(record: StudyRecord, trial: TrialRecord) -> dict[str, Any]:
    """The JSON card that `export` writes beside the file: what it is, what was measured, of what it is the
    best."""
    evaluation = _evaluated(trial)
    configuration = evaluation.configuration
    found: dict[str, Any] = as_json(
        {
            "schema": 1,
            "study": record.name,
            "task": record.task,
            "device": record.device,
            "space": record.space,
            "trial": trial.number,
            "finetuned": evaluation.finetuned,
            "sha256": evaluation.sha256,
            "configuration": configuration.to_dict(),
            "metric": {"name": record.metric_name, "higher_is_better": record.higher_is_better},
            "output": None if record.output is None else record.output.to_dict(),
            "latency_source": evaluation.measurement.latency_source,
            "measurements": _measurements(record, evaluation),
            "constraints": [{"name": c.name, "relation": c.relation, "bound": c.bound} for c in record.constraints],
            "baseline": _baseline(record) | {"sha256": record.baseline.sha256},
            "int8_download_bytes": record.int8_download_bytes,
            "versions": dict(record.versions),
        }
    )
    return found


def summary(configuration: Configuration) -> str:
    """A configuration in a few words: activations, layers per bit-width, zeros, clusters, channels kept."""
    layers = configuration.normalised().layers.values()
    bits = Counter(choice.bits for choice in layers)
    parts = [configuration.normalised().activations]
    parts.append(" ".join(f"{width}b×{bits[width]}" for width in sorted(bits, reverse=True)))
    zeros = [100 * choice.sparsity for choice in layers]
    if any(zeros):
        kinds = sorted({choice.granularity for choice in layers if choice.sparsity} - {"element"})
        parts.append(f"{_span(zeros)} % zeros" + (f" ({', '.join(kinds)})" if kinds else ""))
    clusters = [choice.clusters for choice in layers if choice.clusters is not None]
    if clusters:
        parts.append(f"{_span(clusters)} cl")
    if configuration.channels:
        kept = sorted(configuration.channels.items())
        shown = ", ".join(f"{name} {count}" for name, count in kept[:_GROUPS_SHOWN])
        parts.append(f"channels {shown}" + (f", {len(kept) - _GROUPS_SHOWN} more" * (len(kept) > _GROUPS_SHOWN)))
    return " · ".join(part for part in parts if part)


def words(evaluation: Evaluation) -> str:
    """An evaluation's configuration in a few words, and whether it was trained on."""
    return summary(evaluation.configuration) + (" · fine-tuned" if evaluation.finetuned else "")


def _span(values: Sequence[float]) -> str:
    low, high = f"{min(values):.3g}", f"{max(values):.3g}"
    return low if low == high else f"{low}-{high}"


def _or_inf(value: float | None) -> float:
    return math.inf if value is None else value


def _loss(record: StudyRecord, evaluation: Evaluation) -> float:
    return -evaluation.accuracy if record.higher_is_better else evaluation.accuracy


def _size(record: StudyRecord, evaluation: Evaluation) -> float:
    return evaluation.file_bytes if record.size == "file" else evaluation.download_bytes


def objective_vectors(record: StudyRecord, evaluations: Sequence[Evaluation]) -> pareto.Floats:
    """The values of the objectives, (n, objectives), each to be minimised; NaN where one is missing or not finite."""
    names = [value_name(objective, record.size) for objective in record.objectives]
    found = np.array([[e.value(name) for name in names] for e in evaluations], dtype=np.float64)
    turned = [o == "metric" and record.higher_is_better for o in record.objectives]
    found = found.reshape(-1, len(names)) * np.where(turned, -1.0, 1.0)
    return np.where(np.isfinite(found), found, np.nan)


def front_vectors(record: StudyRecord, evaluations: Sequence[Evaluation]) -> pareto.Floats:
    """As `objective_vectors`, NaN too for those that miss a constraint: what cannot be on the front."""
    met = np.array([feasible(record, evaluation) for evaluation in evaluations], dtype=np.bool_)
    return np.where(met[:, None], objective_vectors(record, evaluations), np.nan)


def _evaluated(trial: TrialRecord) -> Evaluation:
    if trial.evaluation is None:
        raise AutocompressError(f"trial {trial.number} is {trial.state}, without an evaluation; pick another")
    return trial.evaluation


def _trial_number(record: StudyRecord, text: str) -> TrialRecord:
    found = {str(trial.number): trial for trial in record.trials}.get(text.lstrip("0") or "0")
    remedy = f"pick a complete trial of study '{record.name}' or one of {', '.join(PICKS)}"
    if found is None:
        raise AutocompressError(f"there is no trial {text[:20]} among {len(record.trials)} trials; {remedy}")
    if found.state != "complete" or found.evaluation is None:
        reason = f" ({found.reason})" if found.reason else ""
        raise AutocompressError(f"trial {found.number} is {found.state.replace('_', ' ')}{reason}; {remedy}")
    return found


def _knee(record: StudyRecord, trials: Sequence[TrialRecord]) -> TrialRecord:
    limit = _loss(record, record.baseline) + pareto.ACCURACY_SCALE
    working = [trial for trial in trials if _loss(record, _evaluated(trial)) < limit] or trials
    return working[pareto.knee(objective_vectors(record, [_evaluated(trial) for trial in working]))]


def _baseline(record: StudyRecord) -> dict[str, Any]:
    baseline = record.baseline
    return {
        "accuracy": baseline.accuracy,
        "test_accuracy": record.test_accuracy.get(baseline.sha256),
        "latency_ms": baseline.measurement.latency_ms,
        "file_bytes": baseline.file_bytes,
        "download_bytes": baseline.download_bytes,
        "peak_memory_bytes": baseline.measurement.peak_memory_bytes,
    }


def _front_entry(record: StudyRecord, trial: TrialRecord) -> dict[str, Any]:
    evaluation = _evaluated(trial)
    measurement = evaluation.measurement
    return {
        "trial": trial.number,
        "accuracy": evaluation.accuracy,
        "accuracy_ci": evaluation.accuracy_ci,
        "test_accuracy": record.test_accuracy.get(evaluation.sha256),
        "latency_ms": measurement.latency_ms,
        "latency_ci_ms": measurement.latency_ci_ms,
        "latency_error": measurement.latency_error,
        "file_bytes": evaluation.file_bytes,
        "download_bytes": evaluation.download_bytes,
        "peak_memory_bytes": measurement.peak_memory_bytes,
        "finetuned": evaluation.finetuned,
        "configuration": evaluation.configuration.to_dict(),
        "artifact": evaluation.artifact,
        "sha256": evaluation.sha256,
    }


def _measurements(record: StudyRecord, evaluation: Evaluation) -> dict[str, Any]:
    measured = evaluation.measurement.to_dict()
    del measured["samples_ms"], measured["latency_source"]  # the raw samples stay in the study
    return {
        "accuracy": evaluation.accuracy,
        "accuracy_ci": evaluation.accuracy_ci,
        "accuracy_delta_ci": evaluation.accuracy_delta_ci,
        "test_accuracy": record.test_accuracy.get(evaluation.sha256),
        "file_bytes": evaluation.file_bytes,
        "download_bytes": evaluation.download_bytes,
        "energy_mj": evaluation.energy_mj,
    } | measured


def as_json(value: Any) -> Any:
    """The same data as strict JSON takes it: lists for tuples, null for what is not finite, Python's own
    numbers for NumPy's, and text without lone surrogates (argv holds them where it is no UTF-8)."""
    if isinstance(value, Mapping):
        return {as_json(str(key)): as_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_json(item) for item in value]
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
