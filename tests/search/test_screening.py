"""Measured searches with a model of the device: what is predicted to be hopeless is not measured."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from autocompress.latency.model.predict import predict
from autocompress.latency.source import latency_on
from autocompress.records.front import Front, complete
from autocompress.records.measurement import Measurement
from autocompress.records.study import Constraint, StudyRecord
from autocompress.report import study_document, terminal
from autocompress.search.storage import study_records
from autocompress.specs import load_device, load_space
from autocompress.tasks import LoadedTask, load_task
from tests.builders.optional import present
from tests.builders.searches import asked_for


@pytest.fixture(scope="module")
def task() -> LoadedTask:
    """Digits with few samples."""
    loaded = load_task("digits")

    def few(arrays: Any) -> Any:
        return {name: values[:128] for name, values in arrays.items()}

    splits = {name: few(getattr(loaded, name)) for name in ("x_calibration", "x_validation", "x_test")}
    labels = {name: getattr(loaded, name)[:128] for name in ("y_validation", "y_test")}
    return dataclasses.replace(loaded, **splits, **labels)


# Ten uniform baselines, which are never screened, so that the few trials of these tests go beyond them.
SPACE = dataclasses.replace(load_space("default"), activations=("float32", "int8"))


class Device:
    """A device whose latency is what rpi4's model says, told as measurements; how often it was asked is counted."""

    def __init__(self) -> None:
        model = load_device("rpi4").latency_model
        assert model is not None
        self._model, self.measured = model, 0

    def latency_ms(self, file: bytes) -> float:
        return present(predict(file, self._model).latency_ms)

    def measure(self, file: bytes, processes: int) -> Measurement:
        self.measured += 1
        return Measurement(
            latency_ms=self.latency_ms(file),
            latency_source="measured",
            runtime="ai-edge-litert",
            samples_ms=((1.0,),) * processes,
        )

    def expected(self, factor: float, *, error: float = 0.1, extrapolated: bool = False) -> Callable[[bytes], Any]:
        """A model of it that is off by a factor and claims an error."""
        return lambda file: Measurement(
            latency_ms=self.latency_ms(file) * factor,
            latency_source="modelled",
            latency_error=error,
            extrapolated=extrapolated,
        )


def searched(
    task: LoadedTask, runs: Path, expected: Callable[[bytes], Any] | None, device: Device | None = None, **changes: Any
) -> tuple[StudyRecord, Device]:
    device = device or Device()
    settings: dict[str, Any] = {
        "task": task,
        "profile": dataclasses.replace(load_device("rpi4"), host="local", latency_model=None),
        "space": SPACE,
        "latency_source": "measured",
        "runs": runs,
        "trials": 16,
        "name": "s",
        "sampler": "random",
    }
    with asked_for(**(settings | changes)).search(device.measure, expected=expected) as search:
        return search.run(lambda _: None), device


def of_state(record: StudyRecord, state: str) -> list[Any]:
    return [trial for trial in record.trials if trial.state == state]


def test_what_is_predicted_to_be_dominated_is_not_measured(task: LoadedTask, tmp_path: Path) -> None:
    device = Device()
    record, _ = searched(task, tmp_path / "with", device.expected(1.0), device, trials=30, seed=1)
    without, all_of_them = searched(task, tmp_path / "without", None, trials=30, seed=1)
    screened = of_state(record, "screened")
    assert screened
    assert not of_state(without, "screened")
    assert device.measured / len(record.trials) < all_of_them.measured / len(without.trials)
    assert len(complete(record)) == 30  # screened ones do not count
    for trial in screened:
        assert trial.evaluation is None
        assert "not measured: dominated by trial" in trial.reason
    assert {t.number for t in screened}.isdisjoint(t.number for t in Front(record).trials)
    assert all(e.measurement.latency_source == "measured" for _, e in complete(record))
    assert study_document.document(record)["trials"]["screened"] == len(screened)
    console = Console(width=120, record=True)
    terminal.print_front(console, record)
    said = console.export_text()
    assert f"{len(screened)} screened" in said
    assert "latencies were predicted first" in said


def test_a_screened_trial_is_dominated_when_it_is_measured(task: LoadedTask, tmp_path: Path) -> None:
    device = Device()
    record, _ = searched(task, tmp_path, device.expected(1.0), device, trials=20)
    study = study_records.load_study(tmp_path, "s", None)
    points = [(e.accuracy, e.measurement.latency_ms, e.download_bytes) for _, e in complete(record)]
    for trial in of_state(record, "screened"):
        seen = study.get_trials()[trial.number].user_attrs["seen"]
        own = (seen["accuracy"], seen["latency_ms"], seen["download_bytes"])  # the model is right here
        assert any(p[0] >= own[0] and p[1] <= own[1] and p[2] <= own[2] for p in points)


def test_a_model_that_is_much_too_fast_screens_nothing(task: LoadedTask, tmp_path: Path) -> None:
    """Then a search costs what it costs without a model, and finds the same."""
    device = Device()
    record, _ = searched(task, tmp_path / "with", device.expected(0.01), device)
    without, plain = searched(task, tmp_path / "without", None)
    assert not of_state(record, "screened")
    assert device.measured == plain.measured
    assert [e.sha256 for _, e in complete(record)] == [e.sha256 for _, e in complete(without)]


def test_a_model_that_is_much_too_slow_costs_trials_but_no_wrong_value(task: LoadedTask, tmp_path: Path) -> None:
    """At most four are screened in a row, uniform baselines never are, and what is stored is measured."""
    device = Device()
    record, _ = searched(task, tmp_path, device.expected(100.0), device)
    states = [trial.state for trial in record.trials]
    assert "screened" in states
    longest = run = 0
    for state in states:
        run = run + 1 if state in ("screened", "stopped_early") else 0
        longest = max(longest, run)
    assert longest <= 4
    assert states[: len(complete(record))].count("complete") >= 4
    for _, evaluation in complete(record):
        assert evaluation.measurement.latency_ms == device.latency_ms((tmp_path / evaluation.artifact).read_bytes())


def test_what_is_extrapolated_is_always_measured(task: LoadedTask, tmp_path: Path) -> None:
    device = Device()
    record, _ = searched(task, tmp_path, device.expected(100.0, extrapolated=True), device)
    assert not of_state(record, "screened")


def test_a_latency_that_is_asked_for_screens_what_is_surely_slower(task: LoadedTask, tmp_path: Path) -> None:
    device = Device()
    bound = device.latency_ms(task.original) * 1.02
    asked = Constraint(name="latency_ms", relation="<=", bound=bound)
    record, _ = searched(task, tmp_path, device.expected(1.0, error=0.001), device, constraints=(asked,), trials=12)
    reasons = [trial.reason for trial in of_state(record, "screened")]
    assert any("latency_ms is at least" in reason for reason in reasons)
    for trial in Front(record).trials:
        assert trial.evaluation is not None
        assert present(trial.evaluation.measurement.latency_ms) <= bound


def test_a_study_that_screens_goes_on(task: LoadedTask, tmp_path: Path) -> None:
    device = Device()
    first, _ = searched(task, tmp_path, device.expected(1.0), device)
    before = device.measured
    again, _ = searched(task, tmp_path, device.expected(1.0), device)
    assert again.trials == first.trials
    assert device.measured == before
    assert len(again.notes) == len(first.notes)


def test_only_a_calibration_of_this_very_runtime_predicts() -> None:
    with latency_on(load_device("local")) as source:
        assert source.expected() is None  # not calibrated
    with latency_on(load_device("rpi4")) as source:
        assert source.expected() is None  # not measured
