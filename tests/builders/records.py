"""Records of studies made by hand."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from autocompress.records.configuration import Configuration, LayerChoice
from autocompress.records.measurement import Measurement
from autocompress.records.study import Evaluation, StudyRecord, TrialRecord


def make_configuration(activations: str = "int8", **choices: LayerChoice) -> Configuration:
    layers = {"conv_2d_0": LayerChoice(bits=8), "conv_2d_1": LayerChoice(sparsity=0.5, bits=4, clusters=8)}
    return Configuration(activations=activations, layers=layers | choices)


def make_evaluation(
    accuracy: float = 0.9, latency_ms: float = 0.2, download_bytes: int = 30_000, **changes: Any
) -> Evaluation:
    measured: dict[str, Any] = {"latency_source": "modelled", "latency_error": 0.034}
    measured |= {key: changes.pop(key) for key in tuple(changes) if key in Measurement.__dataclass_fields__}
    values: dict[str, Any] = {
        "configuration": make_configuration(),
        "accuracy_ci": (accuracy - 0.01, accuracy + 0.01),
        "accuracy_delta_ci": (accuracy - 0.9206, accuracy - 0.9166),
        "file_bytes": 2 * download_bytes,
        "sha256": f"{accuracy}-{latency_ms}-{download_bytes}",
        "artifact": f"a/artifacts/{accuracy}-{latency_ms}-{download_bytes}.tflite",
    }
    measurement = Measurement(latency_ms=latency_ms, **measured)
    return Evaluation(accuracy=accuracy, measurement=measurement, download_bytes=download_bytes, **(values | changes))


def make_trial(
    number: int, *values: Any, state: str = "complete", reason: str | None = None, cached: bool = False, **changes: Any
) -> TrialRecord:
    evaluation = make_evaluation(*values, **changes) if values else None
    return TrialRecord(number=number, state=state, evaluation=evaluation, reason=reason, cached=cached)


def make_record(*trials: TrialRecord, **changes: Any) -> StudyRecord:
    float_layers = {"conv_2d_0": LayerChoice(), "conv_2d_1": LayerChoice()}
    baseline = make_evaluation(
        0.9186,
        0.3,
        288_000,
        file_bytes=316_080,
        configuration=Configuration(layers=float_layers),
        accuracy_delta_ci=None,
        sha256="baseline",
    )
    values: dict[str, Any] = {
        "name": "a",
        "task": "fashion-mnist",
        "device": "rpi4",
        "latency_source": "modelled",
        "latency_error": 0.034,
        "metric_name": "accuracy",
        "higher_is_better": True,
        "space": "default",
        "sampler": "tpe",
        "seed": 1,
        "objectives": ("metric", "latency", "size"),
        "size": "download",
        "constraints": (),
        "baseline": baseline,
        "int8_download_bytes": 80_000,
        "test_accuracy": {},
        "wall_s": 30.0,
        "versions": {"autocompress": "0.1.0", "optuna": "5.0.0"},
    }
    return StudyRecord(trials=tuple(trials), **(values | changes))


SMALL = make_trial(0, 0.85, 0.12, 10_000)
KNEE = make_trial(1, 0.91, 0.13, 20_000)
BEST = make_trial(2, 0.917, 0.25, 70_000)
FAST = make_trial(3, 0.86, 0.10, 60_000)
DOMINATED = make_trial(4, 0.85, 0.13, 20_000)
TWIN = make_trial(5, 0.91, 0.13, 20_000, cached=True)
FAILED = make_trial(6, state="failed", reason="no kernel for int4 CONV_2D")
STOPPED = make_trial(7, 0.99, 0.01, 1, state="stopped_early")
RUNNING = make_trial(8, state="running")
ALL = (SMALL, KNEE, BEST, FAST, DOMINATED, TWIN, FAILED, STOPPED, RUNNING)


def numbers(trials: Iterable[TrialRecord]) -> list[int]:
    return [trial.number for trial in trials]
