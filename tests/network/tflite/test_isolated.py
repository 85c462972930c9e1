"""What runs in a child: its results and faults come back, its end by a signal is a reason, and the search goes on."""

from __future__ import annotations

import fcntl
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autocompress.errors import AutocompressError, CandidateError
from autocompress.evaluate import calibration, quality
from autocompress.latency.source import latency_on
from autocompress.metrics import get_metric
from autocompress.network.graph.segments import Segments
from autocompress.network.tflite import flatbuffer
from autocompress.network.tflite.interpreter import Runner
from autocompress.network.tflite.isolated import Isolated, in_child
from autocompress.records.front import Front, complete
from autocompress.records.study import StudyRecord
from autocompress.search import finalize
from autocompress.specs import load_device, load_space
from autocompress.tasks import LoadedTask, Task
from autocompress.tasks.check import checked
from tests.builders import fixed_batch
from tests.builders.fixed_batch import samples
from tests.builders.optional import present
from tests.builders.searches import asked_for


def end_by(number: int) -> None:
    os.kill(os.getpid(), number)


# --- one child ------------------------------------------------------------------------------------


def test_results_and_faults_come_back() -> None:
    kept = np.arange(200_000)
    run = Isolated(lambda at: (os.getpid(), kept[at]))
    pid, found = run(np.array([5, 7]))
    assert pid != os.getpid()
    np.testing.assert_array_equal(found, [5, 7])
    with pytest.raises(IndexError) as caught:
        run(np.array([200_000]))
    assert "test_isolated.py" in str(caught.value.__cause__)  # where it was raised
    assert run(slice(0, 0))[0] == pid  # a fault does not end it


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (signal.SIGSEGV, "the runtime ended with SIGSEGV"),
        (signal.SIGABRT, "the runtime ended with SIGABRT"),
        (signal.SIGKILL, "the runtime ended with SIGKILL, most likely because memory ran out"),
    ],
)
def test_a_signal_is_a_reason_and_the_next_call_works(number: int, said: str) -> None:
    run = Isolated(lambda bad: end_by(number) if bad else "done")
    assert run(False) == "done"
    with pytest.raises(CandidateError) as caught:
        run(True)
    assert str(caught.value) == said
    assert run(False) == "done"


def test_an_exit_is_a_reason_too() -> None:
    with pytest.raises(CandidateError, match="the runtime ended its process with exit code 3"):
        in_child(lambda: os._exit(3))


def test_a_fault_that_cannot_be_sent_is_told() -> None:
    class LocalError(Exception):
        pass

    def work() -> None:
        raise LocalError("of this function")

    with pytest.raises(RuntimeError, match="LocalError: of this function"):
        in_child(work)


def test_nothing_is_left_behind() -> None:
    run = Isolated(os.getpid)
    pid = run()
    del run
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@pytest.fixture
def listening() -> Iterator[None]:
    """Whatever started the tests: a shell's background jobs ignore Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("listening")
def test_ctrl_c_ends_the_child_whose_answer_nobody_waits_for() -> None:
    run = Isolated(lambda wait: signal.pause() if wait else os.getpid())
    first = present(run(False))
    timer = threading.Timer(0.3, end_by, [signal.SIGINT])
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        run(True)
    timer.join()
    assert run(False) != first
    with pytest.raises(ProcessLookupError):
        os.kill(first, 0)


def test_locks_and_the_screen_stay_with_the_parent(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    handle = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(handle, fcntl.LOCK_EX)
    run = Isolated(lambda: os.write(2, b"said by a runtime"))
    run()
    os.close(handle)  # without unlocking: a copy in the child would hold it
    with open(tmp_path / "lock") as other:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert capfd.readouterr() == ("", "")


# --- searches -------------------------------------------------------------------------------------


class Fragile(Runner):
    """A runner that ends its process with a signal on some files."""

    bad: Callable[[bytes], bool] = staticmethod(lambda model: True)

    def __init__(self, model: bytes, *arguments: Any) -> None:
        if type(self).bad(model):
            end_by(signal.SIGSEGV)
        super().__init__(model, *arguments)


@pytest.fixture
def task() -> LoadedTask:
    model, x = fixed_batch.free(), samples(96)
    made = Task(name="t", network=model, metric="fidelity", x_calibration=x[:64], x_validation=x, x_test=samples(96, 1))
    return checked(made, model, get_metric("fidelity"), "", "its network")


def search(task: LoadedTask, runs: Path) -> tuple[StudyRecord, Any]:
    asked = asked_for(
        task=task,
        profile=load_device("rpi4"),
        space=load_space("quick"),
        latency_source="modelled",
        runs=runs,
        trials=5,
        name="s",
    )
    with latency_on(asked.specification.profile) as latency, asked.search(latency.bind(task.original)) as opened:
        return opened.run(lambda _: None), opened.study


def test_a_candidate_that_ends_the_runtime_fails_with_its_reason(
    task: LoadedTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def is_static(model: bytes) -> bool:
        tree = flatbuffer.read(model)
        return any(flatbuffer.op_name(tree, operator) == "QUANTIZE" for operator in tree.subgraphs[0].operators)

    monkeypatch.setattr(Fragile, "bad", staticmethod(is_static))
    monkeypatch.setattr(quality, "Runner", Fragile)
    record, study = search(task, tmp_path)
    failed = [trial for trial in study.get_trials() if trial.state.name == "FAIL"]
    assert failed
    assert {trial.user_attrs["reason"] for trial in failed} == {"the runtime ended with SIGSEGV"}
    done = [evaluation.configuration.activations for _, evaluation in complete(record)]
    assert len(done) == 5
    assert "int8" not in done


@pytest.mark.parametrize("where", ["the proof of a batch", "the ranges", "the baseline", "a piece"])
def test_a_float_network_that_ends_the_runtime_is_one_line(
    task: LoadedTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def end(*_: object) -> None:
        end_by(signal.SIGSEGV)

    if where == "the proof of a batch":
        monkeypatch.setattr(calibration, "proven_batch", end)
    elif where == "the ranges":
        monkeypatch.setattr("autocompress.network.graph.trace.activation_ranges", end)
    elif where == "a piece":
        monkeypatch.setattr(Segments, "run_through", end)
    else:
        monkeypatch.setattr(quality, "Runner", Fragile)
    with pytest.raises(AutocompressError, match=r"the float network cannot be .*the runtime ended with SIGSEGV$"):
        search(task, tmp_path)
    assert len(list(tmp_path.rglob("*.tflite"))) == (where == "a piece")  # the baseline's


def test_a_network_that_the_runtime_does_not_survive_is_no_task(
    task: LoadedTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autocompress.tasks.signatures.Runner", Fragile)
    made = Task(name="t", network=task.network, metric="fidelity", x_validation=samples(4), x_test=samples(4))
    with pytest.raises(AutocompressError, match="model 'x': the runtime ended with SIGSEGV"):
        checked(made, task.network, get_metric("fidelity"), "", "model 'x'")


def test_a_file_that_ends_the_runtime_on_test_data_is_noted(
    task: LoadedTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finalize, "front_on_test_data", lambda *_: None)
    search(task, tmp_path)
    monkeypatch.undo()
    monkeypatch.setattr(quality, "Runner", Fragile)
    monkeypatch.setattr(Fragile, "bad", staticmethod(lambda model: model != task.network))
    record, _ = search(task, tmp_path)
    said = [note for note in record.notes if "does not run on the test data: the runtime ended with SIGSEGV" in note]
    assert len(said) == len({row.evaluation.sha256 for row in Front(record).trials if row.evaluation is not None})
