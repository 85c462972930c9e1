"""Searches on the real digits task: what is stored, what survives a kill, what is refused."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from optuna.trial import TrialState, create_trial

from autocompress.errors import AutocompressError, CandidateError, DeviceError, UnmetError
from autocompress.latency.host.client import at_host
from autocompress.latency.source import Latency, latency_on
from autocompress.records.front import Front, complete, evaluated_count
from autocompress.records.measurement import Measurement
from autocompress.records.study import Constraint, Evaluation, StudyRecord
from autocompress.search.sampler.stock import uniform_baselines
from autocompress.search.storage import patient, stored_trial, study_records
from autocompress.search.workers.locks import locked
from autocompress.specs import DeviceProfile, load_device, load_space
from autocompress.tasks import LoadedTask, load_task
from tests.builders.searches import Asked, asked_for
from tests.builders.standstill import counted, stop_when


@pytest.fixture(scope="module")
def task() -> LoadedTask:
    """Digits with few samples: the searches here are about bookkeeping."""
    loaded = load_task("digits")

    def few(arrays: Any) -> Any:
        return {name: values[:64] for name, values in arrays.items()}

    splits = {name: few(getattr(loaded, name)) for name in ("x_calibration", "x_validation", "x_test")}
    labels = {name: getattr(loaded, name)[:64] for name in ("y_validation", "y_test")}
    return dataclasses.replace(loaded, **splits, **labels)


def request(task: LoadedTask, runs: Path, profile: DeviceProfile | None = None, **changes: Any) -> Asked:
    settings: dict[str, Any] = {
        "task": task,
        "profile": profile or load_device("rpi4"),
        "space": load_space("quick"),
        "latency_source": "modelled",
        "runs": runs,
        "trials": 8,
        "name": "s",
    }
    return asked_for(**(settings | changes))


def run(asked: Asked, seen: list[StudyRecord] | None = None) -> StudyRecord:
    return asked.run((seen if seen is not None else []).append)


def evaluations(record: StudyRecord) -> list[Evaluation]:
    return [evaluation for _, evaluation in complete(record)]


@pytest.mark.parametrize("sampler", ["guided", "random"])
def test_uniform_baselines_come_early_and_every_file_is_there(task: LoadedTask, tmp_path: Path, sampler: str) -> None:
    """First, but for the guided sampler's: it has its own suggestions between those behind the widest."""
    asked = request(task, tmp_path, sampler=sampler)
    with latency_on(asked.specification.profile) as latency, asked.search(latency.bind(task.original)) as search:
        first = uniform_baselines(search.activations, search.choices)
        record = search.run(lambda _: None)
    found = evaluations(record)
    places = (0, 1, 4, 7) if sampler == "guided" else (0, 1, 2, 3)
    assert [found[place].configuration.digest for place in places] == [c.digest for c in first]
    assert len(first) == 4  # 8 and 4 bits, float32 and int8 activations
    for evaluation in found:
        content = (tmp_path / evaluation.artifact).read_bytes()
        assert hashlib.sha256(content).hexdigest() == evaluation.sha256
        assert len(content) == evaluation.file_bytes
        assert evaluation.measurement.latency_source == "modelled"
    for trial in Front(record).trials:
        assert trial.evaluation is not None
        assert trial.evaluation.sha256 in record.test_accuracy
    assert record.baseline.file_bytes == len(task.original)


def test_same_seed_same_study_and_another_seed_another(task: LoadedTask, tmp_path: Path) -> None:
    def told(name: str, seed: int) -> list[tuple[Any, ...]]:
        found = evaluations(run(request(task, tmp_path / name, seed=seed, sampler="tpe", trials=14)))
        return [
            (e.configuration.digest, e.sha256, e.accuracy, e.measurement.latency_ms, e.download_bytes) for e in found
        ]

    first = told("a", 3)
    assert first == told("b", 3)
    assert first != told("c", 4)


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "random"])
def test_every_sampler_runs_and_a_seen_configuration_costs_nothing(
    task: LoadedTask, tmp_path: Path, sampler: str
) -> None:
    space = tmp_path / "tiny.yaml"
    space.write_text(
        "schema: 1\nname: tiny\nrules:\n  - {match: '.*', bits: [32]}\n  - {match: conv_2d_0, bits: [32, 8]}\n"
        "  - {op: FULLY_CONNECTED, sparsity: [0, 0.5]}\n"
    )
    seen: list[StudyRecord] = []
    record = run(request(task, tmp_path, sampler=sampler, trials=12, space=load_space(space)), seen)
    assert len(complete(record)) == 12
    fresh = [t.evaluation.configuration.digest for t in record.trials if t.evaluation and not t.cached]
    assert len(fresh) == len(set(fresh)) <= 8
    assert evaluated_count(record) == len(fresh)
    assert len(seen) == 12


def test_it_goes_on_where_it_stopped(task: LoadedTask, tmp_path: Path) -> None:
    first = run(request(task, tmp_path, trials=5))
    again = run(request(task, tmp_path, trials=5))
    assert again.trials == first.trials
    longer = run(request(task, tmp_path, trials=9))
    assert longer.trials[:5] == first.trials
    assert len(complete(longer)) == 9


def _digests(record: StudyRecord) -> list[str]:
    return [e.configuration.digest for e in evaluations(record)]


@pytest.mark.parametrize("after", [1, 4])
def test_killed_with_9_it_loses_nothing_and_repeats_nothing(tmp_path: Path, after: int) -> None:
    command = [
        sys.executable,
        "-m",
        "autocompress.cli",
        "search",
        "--device",
        "rpi4",
        "--space",
        "weights-only",
        "--trials",
        "16",
        "--seed",
        "5",
        "--study",
        "k",
        "--runs",
        str(tmp_path),
    ]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        stop_when(lambda: counted(tmp_path / "k" / "study.db") >= after, lambda: [process.pid])
        process.kill()
    before = study_records.read_record(study_records.load_study(tmp_path, "k", None))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    record = study_records.read_record(study_records.load_study(tmp_path, "k", None))
    kept = {t.number: t for t in record.trials}
    assert all(kept[t.number] == t for t in before.trials if t.state == "complete")
    assert len(complete(record)) == 16
    assert len(set(_digests(record))) == 16
    assert not [t for t in record.trials if t.state == "running"]


def test_a_trial_killed_after_its_evaluation_was_stored_is_told_from_it(task: LoadedTask, tmp_path: Path) -> None:
    record = run(request(task, tmp_path, trials=3))
    study = study_records.load_study(tmp_path, "s", None)
    with pytest.warns(UserWarning, match="Heartbeat"):  # asked by hand, as a killed process leaves it
        trial = study.ask()
    stored = record.trials[0].evaluation
    assert stored is not None
    trial.set_user_attr("evaluation", stored.to_dict())
    resumed = run(request(task, tmp_path, trials=4))
    told = next(t for t in resumed.trials if t.number == trial.number)
    assert told.state == "complete"
    assert told.evaluation == stored


def test_a_trial_killed_before_is_failed_and_its_parameters_run_again(task: LoadedTask, tmp_path: Path) -> None:
    run(request(task, tmp_path, trials=4))
    study = study_records.load_study(tmp_path, "s", None)
    first = study.get_trials()[0]
    with pytest.warns(UserWarning, match="Heartbeat"):
        trial = study.ask(fixed_distributions=first.distributions)
    record = run(request(task, tmp_path, trials=6))
    states = {t.number: t.state for t in record.trials}
    assert states[trial.number] == "failed"
    again = [t for t in study.get_trials() if t.user_attrs.get("retry_of") == trial.number]
    assert [t.params for t in again] == [trial.params]


@pytest.mark.parametrize("end", [DeviceError("the device is gone"), KeyboardInterrupt()])
def test_a_search_that_ends_in_the_middle_of_a_trial_leaves_it_to_be_run_again(
    task: LoadedTask, tmp_path: Path, end: BaseException
) -> None:
    """Also when it is one of the first, which are queued only once."""
    asked = request(task, tmp_path, trials=5)
    with latency_on(asked.specification.profile) as source:
        real, calls = source.bind(task.original), []

        def latency(file: bytes, processes: int) -> Measurement:
            calls.append(file)
            if len(calls) == 3:  # the baseline, then trial 1
                raise end
            return real(file, processes)

        with asked.search(latency) as search, pytest.raises(type(end)):
            search.run(lambda _: None)
    left = study_records.read_record(study_records.load_study(tmp_path, "s", None))
    assert [trial.state for trial in left.trials] == ["complete", "running"]
    record = run(asked)
    study = study_records.load_study(tmp_path, "s", None)
    (again,) = (t for t in study.get_trials() if t.user_attrs.get("retry_of") == 1)
    assert again.params == study.get_trials()[1].params
    assert again.values is not None
    assert len(complete(record)) == 5


def test_the_way_to_a_device_is_no_part_of_a_study(task: LoadedTask, tmp_path: Path) -> None:
    run(request(task, tmp_path, trials=2))
    elsewhere = at_host(load_device("rpi4"), "pi@board")
    assert elsewhere.host == {"ssh": "pi@board"}
    measured = request(task, tmp_path, profile=elsewhere, latency_source="measured")
    with pytest.raises(AutocompressError, match="latency_source: modelled then, measured now"):
        measured.search(predicted(task)).__enter__()
    here, there = (
        request(task, tmp_path, profile=at_host(load_device("rpi4"), host), latency_source="measured", name="m")
        for host in ("local", "pi@board")
    )
    with here.search(predicted(task)):
        pass
    with there.search(predicted(task)):
        pass
    described = dataclasses.replace(load_device("rpi4"), cores=5, clock_mhz=1800.0, sources={"cores": "counted"})
    described = at_host(described, "local")
    with request(task, tmp_path, profile=described, latency_source="measured", name="m").search(predicted(task)):
        pass


def test_figures_of_another_runtime_are_not_mixed(task: LoadedTask) -> None:
    with latency_on(load_device("local")) as source:
        measured = source.bind(task.original)(task.original, 1)
        source.check_same(measured)
        for change in ({"runtime_version": "0.9"}, {"os_bits": 32}):
            with pytest.raises(DeviceError, match="start a new --study"):
                source.check_same(dataclasses.replace(measured, **change))


def predicted(task: LoadedTask) -> Latency:
    with latency_on(load_device("rpi4")) as source:
        return source.bind(task.original)


def test_another_study_under_the_same_name_is_refused(task: LoadedTask, tmp_path: Path) -> None:
    run(request(task, tmp_path, trials=2))
    changes: dict[str, dict[str, Any]] = {
        "space": {"space": load_space("default")},
        "network": {"task": dataclasses.replace(task, network_sha256="0" * 64)},
        "data": {"task": dataclasses.replace(task, data_sha256="0" * 64)},
        "objectives": {"objectives": ("metric", "size")},
        "constraints": {"constraints": (Constraint(name="accuracy", relation=">=", bound=0.5),)},
        "device": {"profile": dataclasses.replace(load_device("rpi4"), memory_bytes=1)},
    }
    for what, change in changes.items():
        with pytest.raises(AutocompressError, match=f"made with something else: .*{what}"):
            run(request(**{"task": task, "runs": tmp_path, **change}))


def test_two_searches_of_one_study_do_not_run_at_once(task: LoadedTask, tmp_path: Path) -> None:
    with locked(tmp_path / "s"), pytest.raises(AutocompressError, match="being searched by another process"):
        run(request(task, tmp_path))


@pytest.fixture
def fragile() -> DeviceProfile:
    """A device that says it runs 4-bit depthwise convolutions: nothing can build these."""
    profile = load_device("rpi4")
    kernels = dict(profile.kernels) | {"DEPTHWISE_CONV_2D": ((32, "float32"), (4, "float32"), (4, "int8"))}
    return dataclasses.replace(profile, kernels=kernels)


def test_a_candidate_that_cannot_be_built_fails_with_its_reason_and_the_search_goes_on(
    task: LoadedTask, tmp_path: Path, fragile: DeviceProfile
) -> None:
    space = tmp_path / "four.yaml"
    space.write_text(
        "schema: 1\nname: four\nrules:\n  - {match: '.*', bits: [32, 8]}\n  - {op: DEPTHWISE_CONV_2D, bits: [32, 4]}\n"
    )
    record = run(request(task, tmp_path, profile=fragile, space=load_space(space), trials=6))
    failed = [t for t in record.trials if t.state == "failed"]
    assert failed
    assert all(t.reason for t in failed)
    assert len(complete(record)) == 6


def test_twenty_failures_in_a_row_end_the_search(task: LoadedTask, tmp_path: Path, fragile: DeviceProfile) -> None:
    space = tmp_path / "four.yaml"
    space.write_text(
        "schema: 1\nname: four\nrules:\n  - {match: '.*', bits: [32, 8]}\n  - {op: DEPTHWISE_CONV_2D, bits: [4]}\n"
    )
    with pytest.raises(UnmetError, match="the last 20 trials failed"):
        run(request(task, tmp_path, profile=fragile, space=load_space(space), trials=30))


@pytest.mark.parametrize("fault", [ValueError("ours"), np.linalg.LinAlgError("ours")])
def test_a_fault_of_ours_ends_the_search_with_its_traceback_and_is_no_failed_trial(
    task: LoadedTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    asked = request(task, tmp_path, trials=4)
    with latency_on(asked.specification.profile) as latency, asked.search(latency.bind(task.original)) as search:
        evaluate, calls = search.evaluator.evaluate, iter(range(99))

        def faulty(*arguments: Any) -> Any:
            if next(calls) == 2:
                raise fault from TypeError("what it came from")
            return evaluate(*arguments)

        monkeypatch.setattr(search.evaluator, "evaluate", faulty)
        with pytest.raises(type(fault), match="ours") as caught:
            search.run(lambda _: None)
        assert caught.value is fault
        assert isinstance(fault.__cause__, TypeError)
        assert "faulty" in [entry.name for entry in caught.traceback]
        assert [t.state.name for t in search.study.get_trials()] == ["COMPLETE", "COMPLETE", "RUNNING"]
    record = run(asked)  # it goes on, with that trial again
    failed = [t for t in record.trials if t.state == "failed"]
    assert [t.reason for t in failed] == [stored_trial.INTERRUPTED]
    assert len(complete(record)) == 4


@pytest.mark.parametrize(
    ("what", "fault", "ends_with", "said"),
    [
        ("tables", np.linalg.LinAlgError("Singular matrix"), np.linalg.LinAlgError, "Singular matrix"),
        ("tables", CandidateError("a file is refused"), AutocompressError, "cannot be made: a file is refused"),
        ("modelled_latency", CandidateError("a file is refused"), AutocompressError, "proposed: a file is refused"),
    ],
)
def test_a_fault_in_what_a_sampler_goes_by_ends_the_search_at_once(
    task: LoadedTask,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    what: str,
    fault: Exception,
    ends_with: type[Exception],
    said: str,
) -> None:
    """It is made in the middle of a suggestion: each trial would begin it again."""
    asked, made = request(task, tmp_path, trials=12), []

    def faulty(argument: Any) -> Any:
        made.append(argument)
        raise fault

    with latency_on(asked.specification.profile) as latency, asked.search(latency.bind(task.original)) as search:
        monkeypatch.setattr(search.evaluator, what, faulty)
        with pytest.raises(ends_with, match=said):
            search.run(lambda _: None)
    assert len(made) == 1


def test_a_trial_that_another_machine_took_over_is_left_to_it(
    task: LoadedTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = request(task, tmp_path, trials=4)
    with latency_on(asked.specification.profile) as latency, asked.search(latency.bind(task.original)) as search:
        evaluate, calls = search.evaluator.evaluate, iter(range(99))

        def slow(*arguments: Any) -> Any:
            if next(calls) == 1:  # as `fail_stale_trials` there does after too long a silence
                (under_way,) = study_records.load_study(tmp_path, "s", None).get_trials(states=(TrialState.RUNNING,))
                search.study.tell(under_way.number, state=TrialState.FAIL)
                patient.retry(search.study, under_way)
            return evaluate(*arguments)

        monkeypatch.setattr(search.evaluator, "evaluate", slow)
        record = search.run(lambda _: None)
    assert [t.reason for t in record.trials if t.state == "failed"] == [stored_trial.INTERRUPTED]
    assert len(complete(record)) == 4


def test_an_interrupted_trial_between_failures_does_not_hide_them(
    task: LoadedTask, tmp_path: Path, fragile: DeviceProfile
) -> None:
    space = tmp_path / "four.yaml"
    space.write_text(
        "schema: 1\nname: four\nrules:\n  - {match: '.*', bits: [32, 8]}\n  - {op: DEPTHWISE_CONV_2D, bits: [4]}\n"
    )
    asked = request(task, tmp_path, profile=fragile, space=load_space(space), trials=30)
    with latency_on(asked.specification.profile) as latency, asked.search(latency.bind(task.original)) as search:

        def taken(record: StudyRecord) -> None:
            if len(record.trials) in (5, 9):
                search.study.add_trial(create_trial(state=TrialState.FAIL))  # as a worker's that was killed

        with pytest.raises(UnmetError, match="the last 20 trials failed"):
            search.run(taken)
        assert len(search.study.get_trials()) == 22


def test_a_dead_workers_evaluation_without_an_objective_fails_with_its_reason(task: LoadedTask, tmp_path: Path) -> None:
    run(request(task, tmp_path, trials=2))
    study = study_records.load_study(tmp_path, "s", None)
    known = {"evaluation": study.get_trials()[1].user_attrs["evaluation"]}
    study.add_trial(create_trial(state=TrialState.RUNNING, user_attrs=known))

    def no_value(_: Evaluation) -> tuple[float, ...]:
        raise CandidateError("no latency there")

    study_records.recover(study, no_value, lambda _: True)
    found = stored_trial.stored_trial(study.get_trials()[-1]).record()
    assert (found.state, found.reason) == ("failed", "no latency there")


def test_constraints_hold_on_the_front(task: LoadedTask, tmp_path: Path) -> None:
    bound = Constraint(name="download_bytes", relation="<=", bound=16_000)
    record = run(request(task, tmp_path, constraints=(bound,), trials=10))
    front = Front(record).trials
    assert front
    assert all(t.evaluation is not None and t.evaluation.download_bytes <= 16_000 for t in front)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objectives": ("metric", "speed")}, "unknown objective 'speed'"),
        ({"objectives": ("metric", "memory")}, "memory is that of a host's process"),
        ({"sampler": "tqe"}, "did you mean 'tpe'"),
        ({"trials": 0}, "at least 1"),
        ({"time_budget_s": 0.0}, "more than 0 s"),
        ({"constraints": (Constraint(name="accuracy", relation=">=", bound=1.5),)}, "cannot be met"),
        (
            {
                "constraints": tuple(
                    Constraint(name="latency_ms", relation=r, bound=b) for r, b in ((">=", 5.0), ("<=", 2.0))
                )
            },
            "exclude each other",
        ),
        ({"name": "../up"}, "no plain name"),
    ],
)
def test_requests_that_cannot_be_met_leave_nothing_behind(
    task: LoadedTask, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(AutocompressError, match=message):
        run(request(task, tmp_path / "runs", **changes))
    assert not os.path.exists(tmp_path / "runs")
