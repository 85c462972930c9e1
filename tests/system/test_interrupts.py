"""Ctrl-C at chosen moments: what must be whole is whole, none is lost."""

from __future__ import annotations

import signal
import sys
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from autocompress import interrupts
from autocompress.evaluate.evaluator import Evaluator
from autocompress.interrupts import allowed, check, held
from autocompress.records.study import StudyRecord
from autocompress.search import study as searching
from autocompress.search.storage import study_records
from autocompress.search.storage.patient import PatientStorage
from autocompress.search.workers.locks import FileLock
from autocompress.specs import load_device, load_space
from autocompress.tasks import load_task
from tests.builders.processes import Background
from tests.builders.searches import asked_for


def press() -> None:
    signal.raise_signal(signal.SIGINT)


@pytest.fixture(autouse=True)
def listening(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("_seen", "_put_off"):
        monkeypatch.setattr(interrupts, name, False)
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    interrupts.listen()
    yield
    signal.signal(signal.SIGINT, before)


def test_it_comes_at_once_where_nothing_holds_it() -> None:
    with pytest.raises(KeyboardInterrupt):
        press()


def noting(done: list[str], *inner: Any, presses: int = 1) -> None:
    """Ctrl-C in what is held; then what is inside that."""
    with held():
        for _ in range(presses):
            press()
        done.append("held")
        for each in inner:
            with each:
                done.append(type(each).__name__)
        done.append("end")


def test_it_comes_after_what_holds_it() -> None:
    done: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        noting(done, held())
    assert done == ["held", "held", "end"]
    noting(done, presses=0)  # it comes once
    assert done[3:] == ["held", "end"]


def test_it_is_let_through_where_it_is_allowed() -> None:
    done: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        noting(done, allowed())
    assert done == ["held"]
    with pytest.raises(KeyboardInterrupt), held(), allowed():
        press()
    noting(done, presses=0)
    assert interrupts._depth == 0


def test_a_second_one_does_not_wait() -> None:
    done: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        noting(done, presses=2)
    assert done == []


def test_it_is_held_in_the_main_thread_alone() -> None:
    """What another thread holds puts nothing off."""
    in_it: list[bool] = []
    go_on: list[bool] = []

    def hold() -> None:
        with held():
            in_it.append(True)
            while not go_on:
                pass

    other = Background(hold)
    try:
        while not in_it:
            pass
        with pytest.raises(KeyboardInterrupt):
            press()
    finally:
        go_on.append(True)
    assert other.result() is None


def test_one_that_was_dropped_is_raised_by_the_check_and_not_printed(capfd: pytest.CaptureFixture[str]) -> None:
    class Thing:
        pass

    check()
    thing = Thing()
    kept = weakref.ref(thing, lambda _: press())
    del thing  # what a weak reference calls cannot raise anything
    assert kept() is None
    assert capfd.readouterr().err == ""
    with pytest.raises(KeyboardInterrupt):
        check()


def test_where_it_is_ignored_it_stays_ignored() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    interrupts.listen()
    press()
    check()


def run(runs: Path) -> StudyRecord:
    return asked_for(
        task=load_task("digits"),
        profile=load_device("rpi4"),
        space=load_space("quick"),
        latency_source="modelled",
        runs=runs,
        name="s",
        trials=5,
    ).run()


def pressed_at(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, turn: int, after: bool) -> None:
    """Ctrl-C at the beginning or the end of the n-th call."""
    real: Callable[..., Any] = getattr(owner, name)
    calls = []

    def calling(*args: Any, **kwargs: Any) -> Any:
        calls.append(name)
        if len(calls) == turn and not after:
            press()
        found = real(*args, **kwargs)
        if len(calls) == turn and after:
            press()
        return found

    monkeypatch.setattr(owner, name, calling)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(
    ("owner", "name", "turn"),
    [
        (PatientStorage, "_create_new_trial", 2),
        (PatientStorage, "_set_trial_param", 9),
        (searching, "suggest", 2),
        (PatientStorage, "set_trial_user_attr", 4),
        (FileLock, "release", 3),
        (Evaluator, "evaluate", 2),
        (Evaluator, "tables", 1),
        (PatientStorage, "set_trial_state_values", 2),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_in_the_middle_of_a_trial_it_fails_none_and_the_search_goes_on(
    owner: Any, name: str, turn: int, after: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        pressed_at(patch, owner, name, turn, after)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path)
    interrupts._seen = False  # another process
    record = run(tmp_path)
    assert [trial.state for trial in record.trials].count("complete") == 5
    trials = study_records.load_study(tmp_path, "s", None).get_trials()
    failed = [trial for trial in trials if trial.state.name == "FAIL"]
    queued = [trial.user_attrs["retry_of"] for trial in trials if "retry_of" in trial.user_attrs]
    assert [trial.number for trial in failed if trial.params] == queued  # what was cut is run again
    assert len(failed) <= 1
