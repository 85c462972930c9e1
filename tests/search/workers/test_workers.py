"""Searches of several processes, real ones: what they share, what a death costs, how they end."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import optuna
import psycopg
import pytest

from autocompress.cli.options import named
from autocompress.errors import AutocompressError
from autocompress.records.front import Front, complete
from autocompress.records.study import StudyRecord
from autocompress.search.storage import study_records
from autocompress.search.storage.patient import PatientStorage, open_storage
from autocompress.search.workers import locks
from autocompress.search.workers.locks import FileLock, ProcessorLock, WorkerRegistry
from autocompress.tasks import load_task
from tests.builders import postgresql
from tests.builders.processes import Background, children, is_dead, wait_for
from tests.builders.standstill import PATIENCE_S, comes, counted, hold_back, program


def command(runs: Path, *options: str, workers: int = 2, trials: int = 16, space: str = "quick") -> list[str]:
    return [
        sys.executable,
        "-m",
        "autocompress.cli",
        "search",
        "--device",
        "rpi4",
        "--task",
        "digits",
        "--space",
        space,
        "--runs",
        str(runs),
        "--study",
        "s",
        "--workers",
        str(workers),
        "--trials",
        str(trials),
        *options,
    ]


@contextlib.contextmanager
def started(words: list[str], cwd: str | None = None) -> Iterator[subprocess.Popen[str]]:
    """A command in a process group of its own; nothing of it stays."""
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True, cwd=cwd
    ) as process:
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def ended(process: subprocess.Popen[str]) -> str:
    """What a command printed until its end."""
    said, _ = process.communicate(timeout=PATIENCE_S)
    return said


@contextlib.contextmanager
def study_of(runs: Path, storage: str | None = None) -> Iterator[optuna.Study]:
    """The study, its connections closed at the end."""
    study = study_records.load_study(runs, "s", storage)
    try:
        yield study
    finally:
        backend: Any = study._storage
        backend._backend.engine.dispose()


def record_of(runs: Path, storage: str | None = None) -> StudyRecord:
    with study_of(runs, storage) as study:
        return study_records.read_record(study)


def done(runs: Path, by: int | None = None) -> int:
    """Complete trials, those of one process or of all."""
    return counted(runs / "s" / "study.db", "state = 'COMPLETE'" + ("" if by is None else f" and {of_worker(by)}"))


def of_worker(pid: int) -> str:
    """The trials of a process, in SQL."""
    return noted("worker", f"%+{pid}+%")


def noted(key: str, value: str = "%") -> str:
    """The trials with a user attribute that is like the value, in SQL."""
    found = f"select trial_id from trial_user_attributes where key = '{key}' and value_json like '{value}'"
    return f"trial_id in ({found})"


def wait_until(process: subprocess.Popen[str], condition: Any) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert process.poll() is None, f"the search ended before: {ended(process)}"
        assert time.monotonic() < end_s, "waited in vain"
        time.sleep(0.05)


def workers(process: subprocess.Popen[str]) -> list[int]:
    """The workers that a search has started, without what else it asks for an instant."""
    return [pid for pid in children(process.pid) if b"\0worker\0" in program(pid)]


def workers_of(study: Any) -> dict[str, int]:
    """How many complete trials each worker has."""
    found: dict[str, int] = {}
    for trial in study.get_trials():
        if trial.values is not None and "worker" in trial.user_attrs:  # a database reads one after the other
            found[trial.user_attrs["worker"]] = found.get(trial.user_attrs["worker"], 0) + 1
    return found


def check_whole(runs: Path, trials: int, storage: str | None = None) -> StudyRecord:
    """As many complete trials as asked for, none twice, none running."""
    record = record_of(runs, storage)
    done = complete(record)
    assert len(done) == trials
    fresh = [e.configuration.digest for t, e in done if not t.cached]
    assert len(fresh) == len(set(fresh))
    assert not [t for t in record.trials if t.state == "running"]
    for trial in Front(record).trials:
        assert trial.evaluation is not None
        assert trial.evaluation.sha256 in record.test_accuracy
    return record


def test_two_processes_share_the_trials_and_meet_their_number(tmp_path: Path) -> None:
    with started(command(tmp_path, trials=30)) as process:
        wait_until(process, lambda: done(tmp_path) >= 1)
        (other,) = workers(process)
        hold_back(process, lambda: done(tmp_path, by=other) >= 1)
        said = ended(process)
    assert process.returncode == 0, said
    check_whole(tmp_path, 30)
    assert len(workers_of(study_records.load_study(tmp_path, "s", None))) == 2
    assert is_dead(other)
    assert list((tmp_path / "s" / "workers").iterdir()) == []


@contextlib.contextmanager
def building_held_when(condition: Callable[[], bool]) -> Iterator[None]:
    """All builds of this machine pause, from a moment on in which the condition holds."""
    floor, end_s = ProcessorLock(), time.monotonic() + PATIENCE_S
    with floor.building():
        while True:
            with floor.alone():
                if comes(condition, 5.0):
                    yield
                    return
            assert time.monotonic() < end_s, "waited in vain"


def test_a_worker_killed_with_9_costs_its_trial_only_which_is_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # whose locks hold up nobody else
    monkeypatch.setattr(tempfile, "tempdir", None)
    with started(command(tmp_path, "--space", "default", trials=40)) as process:
        wait_until(process, lambda: done(tmp_path) >= 1)
        (other,) = workers(process)
        hold_back(process, lambda: done(tmp_path, by=other) >= 1)
        under_way = f"state = 'RUNNING' and {of_worker(other)} and not {noted('evaluation')}"
        with building_held_when(lambda: counted(tmp_path / "s" / "study.db", under_way) == 1):
            os.kill(other, signal.SIGKILL)
        said = ended(process)
    assert process.returncode == 0, said
    assert "was killed by SIGKILL; its trial is run again" in said
    check_whole(tmp_path, 40)
    trials = study_records.load_study(tmp_path, "s", None).get_trials()
    (failed,) = (t for t in trials if t.state.name == "FAIL")
    assert f"+{other}+" in failed.user_attrs["worker"]
    (again,) = (t for t in trials if t.user_attrs.get("retry_of") == failed.number)
    assert again.params == failed.params
    assert again.values is not None


def test_workers_end_with_the_search_that_started_them_and_it_goes_on(tmp_path: Path) -> None:
    with started(command(tmp_path, "--space", "default", trials=5000)) as process:
        wait_until(process, lambda: done(tmp_path) >= 5)
        (other,) = workers(process)
        process.kill()
        wait_for(lambda: is_dead(other))
    more = done(tmp_path) + 3
    with started(command(tmp_path, "--space", "default", workers=1, trials=more)) as process:
        said = ended(process)
    assert process.returncode == 0, said
    check_whole(tmp_path, more)


def test_control_c_ends_all_with_130_and_the_study_goes_on(tmp_path: Path) -> None:
    heard = ["/usr/bin/env", "--default-signal=INT"]  # background jobs of a shell ignore it
    with started([*heard, *command(tmp_path, "--space", "default", trials=5000)]) as process:
        wait_until(process, lambda: done(tmp_path) >= 5)
        (other,) = workers(process)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        said = ended(process)
        assert is_dead(other)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    more = done(tmp_path) + 4
    with started(command(tmp_path, "--space", "default", trials=more)) as process:
        said = ended(process)
    assert process.returncode == 0, said
    check_whole(tmp_path, more)


def test_a_worker_joins_a_search_that_runs(tmp_path: Path) -> None:
    joining = [sys.executable, "-m", "autocompress.cli", "worker", "s", "--runs", str(tmp_path), "--wait", "0"]
    alone = subprocess.run(joining, capture_output=True, text=True, check=False)
    assert alone.returncode == 2
    assert "no study 's'" in alone.stderr
    with started(command(tmp_path, "--space", "default", workers=1, trials=30)) as process:
        wait_until(process, lambda: done(tmp_path) >= 1)
        with started(joining, cwd="/") as joined:
            hold_back(process, lambda: done(tmp_path, by=joined.pid) >= 1)
            said = ended(process)
            assert "the search of 's' has ended" in ended(joined)
    assert process.returncode == 0, said
    assert joined.returncode == 0
    check_whole(tmp_path, 30)
    assert len(workers_of(study_records.load_study(tmp_path, "s", None))) == 2
    late = subprocess.run(joining, capture_output=True, text=True, check=False)
    assert late.returncode == 2
    assert "is not being searched; start that with: autocompress search" in late.stderr


def test_a_worker_waits_for_a_search_that_begins_after_it(tmp_path: Path) -> None:
    joining = [sys.executable, "-m", "autocompress.cli", "worker", "s", "--runs", str(tmp_path), "--wait", "5m"]
    with started(joining) as joined:
        assert joined.stdout is not None
        assert (
            joined.stdout.readline()
            == f"no study 's' in {tmp_path}; waiting for a search of it to begin, at most 300 s\n"
        )
        with started(command(tmp_path, "--space", "default", workers=1, trials=30)) as process:
            hold_back(process, lambda: done(tmp_path, by=joined.pid) >= 1)
            said = ended(process)
            assert "the search of 's' has ended" in ended(joined)
    assert process.returncode == 0, said
    assert joined.returncode == 0


def test_a_time_budget_holds_for_all(tmp_path: Path) -> None:
    with started(command(tmp_path, "--time-budget", "6s", "--space", "default", trials=5000)) as process:
        said = ended(process)
    assert process.returncode == 0, said
    record = record_of(tmp_path)
    times = [t.finished_s for t in record.trials if t.finished_s is not None]
    assert max(times) - min(times) < 6 + 30  # the trials under way at the end, on a busy machine
    check_whole(tmp_path, len(complete(record)))


def test_a_storage_that_is_locked_for_a_while_is_waited_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    url = f"sqlite:///{tmp_path}/study.db"
    open_storage(url)
    storage = PatientStorage(url, engine_kwargs={"connect_args": {"timeout": 0.1}})
    study_id = storage.create_new_study([], "s")
    with contextlib.closing(sqlite3.connect(tmp_path / "study.db", isolation_level=None)) as other:
        other.execute("begin exclusive")
        writing = Background(lambda: storage.set_study_user_attr(study_id, "key", 7))
        wait_for(lambda: "database is locked" in caplog.text)
        other.execute("rollback")
        assert writing.result() is None
    assert storage.get_study_user_attrs(study_id) == {"key": 7}


def test_a_new_storage_is_opened_by_several_at_once(tmp_path: Path) -> None:
    opened_by_all([f"sqlite:///{tmp_path}/{number}.db" for number in range(24)])


def opened_by_all(urls: list[str]) -> None:
    """Four processes open each in the same moment, as a report does while a search begins, and write a study each."""
    spawn = multiprocessing.get_context("spawn")
    together = spawn.Barrier(4, timeout=60)
    with ProcessPoolExecutor(4, spawn, share, (together,)) as four:
        list(four.map(make_study, [url for url in urls for _ in "abcd"], "abcd" * len(urls)))
    for url in urls:
        storage = open_storage(url)
        assert {study.study_name for study in storage.get_all_studies()} == set("abcd")
        storage.engine.dispose()


TOGETHER: list[Any] = []  # the barrier, in a process of the pool


def share(together: Any) -> None:
    TOGETHER.append(together)


def make_study(url: str, name: str) -> None:
    TOGETHER[0].wait()
    optuna.create_study(study_name=name, storage=open_storage(url))


def test_what_waiting_cannot_heal_is_no_wait(tmp_path: Path) -> None:
    with pytest.raises(AutocompressError, match="cannot be opened"):
        open_storage(f"sqlite:///{tmp_path}/no/such/folder/study.db")
    storage = PatientStorage(f"sqlite:///{tmp_path}/study.db")
    with pytest.raises(KeyError):
        storage.get_study_user_attrs(99)


def test_a_worker_is_dead_when_its_lock_is_free(tmp_path: Path) -> None:
    here, other = WorkerRegistry(tmp_path), WorkerRegistry(tmp_path)
    with here:
        assert here.is_dead(other.name)  # not entered
        with other:
            assert not here.is_dead(other.name)
        assert here.is_dead(other.name)
        assert not here.is_dead(here.name)
        assert not here.is_dead("another.machine+1+abcd")


def test_builds_and_measurements_take_turns_and_none_starves() -> None:
    """Three builders that hardly ever rest, and one that measures among them."""
    spans: list[tuple[str, float, float]] = []
    stop: list[bool] = []

    def noted(what: str, seconds: float) -> None:
        begin = time.monotonic()
        time.sleep(seconds)
        spans.append((what, begin, time.monotonic()))

    def build() -> None:
        floor = ProcessorLock()
        with floor.building():
            while not stop:
                noted("build", 0.02)
                floor.pause()

    def measure() -> None:
        floor = ProcessorLock()
        with floor.building():
            for _ in range(5):
                noted("build", 0.01)
                with floor.alone():
                    noted("measure", 0.03)

    builders = [Background(build) for _ in range(3)]
    assert Background(measure).result() is None
    stop.append(True)
    assert [builder.result() for builder in builders] == [None] * 3
    measured = [(begin, end) for what, begin, end in spans if what == "measure"]
    built = [(begin, end) for what, begin, end in spans if what == "build"]
    assert len(measured) == 5
    assert len(built) > 10
    assert not [1 for begin, end in measured for other, until in built if begin < until and other < end]


STOPPED = """
from autocompress.search.workers.locks import FileLock, ProcessorLock
with ProcessorLock().building():
    print("building", flush=True)
    input()
"""


def test_a_stopped_search_holds_nobody_up_for_ever(monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    monkeypatch.setattr(locks, "_SILENT_S", 0.1)
    monkeypatch.setattr(locks, "_LONGEST_S", 0.5)
    monkeypatch.setattr(locks, "_AFTERWARDS_S", 0.05)
    stopped = subprocess.Popen([sys.executable, "-c", STOPPED], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert stopped.stdout is not None
        assert stopped.stdout.readline() == b"building\n"
        stopped.send_signal(signal.SIGSTOP)
        floor = ProcessorLock()
        with floor.building():
            for _ in range(3):
                with floor.alone():
                    said = [record.message for record in caplog.records]
        assert "waiting for another search" in said[0]
        assert "going on" in said[-1]
        assert sum("going on" in each for each in said) == 1  # found out once, not at each measurement
    finally:
        stopped.kill()
        stopped.communicate()


def has_some(url: str, pid: int) -> bool:
    """Whether a process has ended a trial; of a new database it is not known."""
    with psycopg.connect(url) as connection, contextlib.suppress(psycopg.errors.UndefinedTable):
        found = connection.execute(f"select count(*) from trials where state = 'COMPLETE' and {of_worker(pid)}")
        return bool(found.fetchall()[0][0])
    return False


def test_workers_on_postgresql_wait_for_a_server_that_restarts(tmp_path: Path) -> None:
    """The server is killed in the middle of a search of two processes and comes back: nothing is lost."""
    with postgresql.server() as server:
        words = command(tmp_path, "--storage", server.url, "--space", "default", trials=40)

        with started(words) as process:
            wait_until(process, lambda: len(workers(process)) == 1)
            (other,) = workers(process)
            hold_back(process, lambda: has_some(server.url, other))
            before = len(complete(record_of(tmp_path, server.url)))
            server.stop()
            time.sleep(8)  # longer than the pause between heartbeats
            server.start()
            said = ended(process)
        assert process.returncode == 0, said
        assert "a worker" not in said  # neither was it killed nor did it end
        assert before < 40
        check_whole(tmp_path, 40, server.url)
        assert not (tmp_path / "s" / "study.db").exists()
        with study_of(tmp_path, server.url) as study:
            assert [t.state.name for t in study.get_trials()].count("FAIL") <= 2


def test_a_new_database_is_opened_by_several_at_once() -> None:
    with postgresql.server() as server:
        opened_by_all([server.url])


def test_what_a_server_that_goes_away_cuts_is_done_again(caplog: pytest.LogCaptureFixture) -> None:
    with postgresql.server() as server:
        storage = open_storage(server.url)
        study_id = storage.create_new_study([], "s")
        server.stop()
        writing = Background(lambda: storage.set_study_user_attr(study_id, "key", 7))
        wait_for(lambda: "the storage does not answer" in caplog.text)
        server.start()
        assert writing.result() is None
        assert storage.get_study_user_attrs(study_id) == {"key": 7}
        storage.engine.dispose()


def test_a_server_that_is_not_there_is_said_in_one_line(tmp_path: Path) -> None:
    words = command(tmp_path, "--storage", "postgresql://nobody@127.0.0.1:9/none", workers=1)
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "cannot be opened" in done.stderr
    assert "Traceback" not in done.stderr


def test_trials_are_read_as_optuna_reads_them(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/study.db"
    space: dict[str, optuna.distributions.BaseDistribution] = {
        "layer": optuna.distributions.CategoricalDistribution(["a", "b"])
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # heartbeats
        study = optuna.create_study(study_name="s", storage=open_storage(url), directions=["maximize", "minimize"])
        study.enqueue_trial({"layer": "b"}, user_attrs={"retry_of": 3})
        first, second = study.ask(space), study.ask(space)
    first.set_user_attr("evaluation", {"accuracy": 0.5})
    first.set_constraint("size<=1", -1.0)
    study.tell(first, [float("inf"), 2.0])
    study.tell(second, state=optuna.trial.TrialState.PRUNED)
    study.add_trial(optuna.trial.create_trial(params={"layer": "a"}, distributions=space, values=[1.0, 2.0]))
    study.enqueue_trial({"layer": "a"})
    theirs = optuna.load_study(study_name="s", storage=url).get_trials()
    assert optuna.load_study(study_name="s", storage=open_storage(url)).get_trials() == theirs
    assert [t.state.name for t in theirs] == ["COMPLETE", "PRUNED", "COMPLETE", "WAITING"]


def test_names_stay_names_where_a_folder_is_called_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("digits", "saved"):
        (tmp_path / folder).mkdir()
    (tmp_path / "own.yaml").touch()
    monkeypatch.chdir(tmp_path)
    found = named(device="rpi4", space="own.yaml", host=None)
    assert found == {"device": "rpi4", "space": str(tmp_path / "own.yaml"), "host": None}
    source = load_task("digits").source
    assert source is not None
    assert source["task"] == "digits"


def test_who_waits_for_a_trial_gives_the_processors_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a measurement waits for it, and whoever holds the lock may wait for the measurement."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    holder, measurer, waiter = FileLock(tmp_path / "trial.lock"), ProcessorLock(), ProcessorLock()
    waits = threading.Event()

    @contextlib.contextmanager
    def idle() -> Iterator[None]:
        with waiter.idle():
            waits.set()
            yield

    def wait() -> None:
        with waiter.building(), FileLock(tmp_path / "trial.lock", waiting=idle):
            pass

    with measurer.building():
        with holder:
            waiting = Background(wait)
            waits.wait()
            with measurer.alone():  # would wait for a builder that waits for the lock
                pass
        waiting.result()
