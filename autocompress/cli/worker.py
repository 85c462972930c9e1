"""`autocompress worker`: one more process for a search that runs, here or on another machine."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from autocompress.cli.terms import DEFAULT_RUNS, HOST_WAIT, HostWait, Runs, Storage, Waits, console_of, guarded, seconds
from autocompress.errors import AutocompressError

if TYPE_CHECKING:
    from autocompress.records import StudyRecord
    from autocompress.search.request import Request

_PATIENCE_S = 10.0


@guarded
def worker(
    study: Annotated[str, typer.Argument(help="Name of a study that is being searched.")],
    runs: Runs = DEFAULT_RUNS,
    storage: Storage = None,
    host: Annotated[
        str | None, typer.Option(help="Measure there: local, or user@name[:PYTHON]; default: where the search does.")
    ] = None,
    host_wait: HostWait = HOST_WAIT,
    threads: Annotated[
        int | None, typer.Option(help="Threads of this process; default: all cores of this machine.", min=1)
    ] = None,
    attached: Annotated[bool, typer.Option("--attached", hidden=True, help="End with standard input.")] = False,
) -> None:
    """Help a search that runs: evaluate candidates of its study until it ends.

    On another machine: the same --runs folder (a network share), and a --storage that both reach (PostgreSQL)."""
    if attached:
        _end_with_input()
    from autocompress.measure.host import at_host
    from autocompress.search.latency import latency_on
    from autocompress.search.request import Request
    from autocompress.search.study import Search
    from autocompress.specs import load_device, load_space
    from autocompress.tasks import load_task

    asked, identity = _running_search(study, runs, storage)
    words, console = asked.words, console_of(stderr=True)
    profile = at_host(load_device(str(words["device"])), host or words["host"])
    loaded = load_task(words["task"], words["model"], words["data"], words["metric"])
    chosen = threads or cores()
    with latency_on(profile, wait_s=seconds(host_wait, "--host-wait"), say=Waits(console)) as latency:
        request = Request(
            task=loaded,
            profile=profile,
            space=load_space(str(words["space"])),
            latency_source=latency.source,
            runs=runs,
            sampler=asked.sampler,
            seed=asked.seed,
            name=study,
            storage=storage,
            objectives=identity.objectives,
            size=identity.size,
            constraints=_constraints(identity.constraints),
            threads=chosen,
        )
        with (
            threads_of(chosen),
            Search(request, latency.bind(loaded.original), expected=latency.expected(), joins=True) as opened,
        ):
            latency.check_same(opened.baseline.measurement)
            before = len(opened.record().trials)
            record = opened.run(lambda _: None)
    console.print(f"the search of '{study}' has ended; {_mine(record, before)} trials since this worker joined")


def _running_search(study: str, runs: Path, storage: str | None) -> Any:
    """What the search was asked for, and the study's identity; AutocompressError where none runs or its files are not
    here."""
    from autocompress.search.asked import asked_of
    from autocompress.search.locks import Roll
    from autocompress.search.store import identity_of, load_study, read_record, study_folder

    opened = load_study(runs, study, storage)
    asked, identity = asked_of(opened), identity_of(opened)
    if asked is None or identity is None or Roll(study_folder(runs, study) / "workers").is_dead(asked.by):
        raise AutocompressError(f"study '{study}' is not being searched; start that with: autocompress search")
    if not asked.words:
        raise AutocompressError(f"study '{study}' is being searched by a program of its own; no worker can join that")
    if not (runs / read_record(opened, ()).baseline.artifact).is_file():
        raise AutocompressError(
            f"the files of study '{study}' are not in {runs}; give the folder of the search with --runs (on another "
            "machine: the same one, as a network share)"
        )
    return asked, identity


def _constraints(texts: tuple[str, ...]) -> Any:
    from autocompress.search.store import parse_constraint

    return tuple(parse_constraint(text) for text in texts)


def _mine(record: StudyRecord, before: int) -> int:
    return len(record.trials) - before


def words_of(**words: str | Path | None) -> dict[str, str | None]:
    """How a command named things, with the paths of files made absolute: a worker may run in another folder."""
    return {name: None if word is None else _absolute(str(word)) for name, word in words.items()}


def _absolute(word: str) -> str:
    path, colon, attribute = word.partition(":")
    return str(Path(path).resolve()) + colon + attribute if Path(path).exists() else word


def worker_command(request: Request, host_wait: str) -> list[str]:
    """The command of a worker process of this search, which ends with it."""
    options = ["--runs", str(request.runs), "--threads", str(request.threads), "--host-wait", host_wait, "--attached"]
    if request.storage is not None:
        options += ["--storage", request.storage]
    return [sys.executable, "-m", "autocompress.cli", "worker", request.study_name, *options]


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0))


@contextmanager
def threads_of(count: int) -> Iterator[None]:
    """Linear algebra on at most `count` threads."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(count):
        yield


def _end_with_input() -> None:
    """Interrupt this process when its standard input ends: then whoever started it is gone or wants it to end."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it

    def watch() -> None:
        while os.read(0, 4096):
            pass
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(_PATIENCE_S)
        os._exit(130)

    threading.Thread(target=watch, daemon=True).start()
