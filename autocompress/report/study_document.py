"""From a study's record to what is said of it: the JSON document, the card, a configuration in words. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from autocompress.records.configuration import Configuration
from autocompress.records.front import STATES, evaluated, evaluated_count, front_of
from autocompress.records.study import Evaluation, StudyRecord, TrialRecord

_GROUPS_SHOWN = 6  # of the groups that lost channels


def document(record: StudyRecord) -> dict[str, Any]:
    """The document of `report STUDY --json`: plain data that is valid JSON, null where missing."""
    front = front_of(record)
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
            "front": [_front_entry(record, trial) for trial in front.trials],
            "hypervolume": front.hypervolume,
            "trials": {state: states[state] for state in STATES},
            "candidates_per_s": evaluated_count(record) / record.wall_s if record.wall_s > 0 else None,
            "wall_s": record.wall_s,
            "versions": versions | dict(record.versions),
            "importance": [asdict(row) for row in record.importance],
            "whole_channels": dict(record.whole_channels),
        }
    )
    return found


def card(record: StudyRecord, trial: TrialRecord) -> dict[str, Any]:
    """The JSON card that `export` writes beside the file: what it is, what was measured, of what it is the
    best."""
    evaluation = evaluated(trial)
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


def _baseline(record: StudyRecord) -> dict[str, Any]:
    baseline = record.baseline
    return {
        "accuracy": baseline.accuracy,
        "test_accuracy": record.test_accuracy.get(baseline.sha256),
        "latency_ms": baseline.measurement.latency_ms,
        "latency_error": baseline.measurement.latency_error,
        "extrapolated": baseline.measurement.extrapolated,
        "file_bytes": baseline.file_bytes,
        "download_bytes": baseline.download_bytes,
        "peak_memory_bytes": baseline.measurement.peak_memory_bytes,
    }


def _front_entry(record: StudyRecord, trial: TrialRecord) -> dict[str, Any]:
    evaluation = evaluated(trial)
    measurement = evaluation.measurement
    return {
        "trial": trial.number,
        "accuracy": evaluation.accuracy,
        "accuracy_ci": evaluation.accuracy_ci,
        "test_accuracy": record.test_accuracy.get(evaluation.sha256),
        "latency_ms": measurement.latency_ms,
        "latency_ci_ms": measurement.latency_ci_ms,
        "latency_error": measurement.latency_error,
        "extrapolated": measurement.extrapolated,
        "kernels": record.runs_where(evaluation.configuration),
        "file_bytes": evaluation.file_bytes,
        "download_bytes": evaluation.download_bytes,
        "flash_bytes": measurement.flash_bytes,
        "ram_bytes": measurement.ram_bytes,
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
