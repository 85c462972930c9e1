"""`autocompress worker`: one more process for a search that runs, here or on another machine."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autocompress import interrupts
from autocompress.cli.options import (
    DEFAULT_RUNS,
    HOST_WAIT,
    HostWait,
    Runs,
    Storage,
    Waits,
    console_of,
    guarded,
    seconds,
)
from autocompress.errors import AutocompressError

if TYPE_CHECKING:
    from autocompress.search.study import Search
    from autocompress.search.workers.goal import SearchGoal

_PATIENCE_S = 10.0
_POLL_S = 0.5


class _NotYetError(AutocompressError):
    """No search of the study runs, or it is still being set up."""


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
    wait: Annotated[
        str, typer.Option(help="Wait so long for the search to begin or its study to be set up; 0: not at all.")
    ] = "1m",
    attached: Annotated[bool, typer.Option("--attached", hidden=True, help="End with standard input.")] = False,
) -> None:
    """Help a search that runs: evaluate candidates of its study until it ends.

    On another machine: the same --runs folder (a network share), and a --storage that both reach (PostgreSQL)."""
    if attached:
        host = None  # a default of the user's: where the search measures is decided
        _end_with_input()
    from autocompress.session import reopen

    console = console_of(stderr=True)
    say, wait_s = Waits(console), seconds(host_wait, "--host-wait")
    asked = _awaited_search(study, runs, storage, seconds(wait, "--wait"), say)
    with reopen(study, runs, storage, host=host, host_wait_s=wait_s, say=say, threads=threads, joins=asked) as opened:
        before = len(opened.record().trials)
        record = opened.run(lambda _: None)
    console.print(f"the search of '{study}' has ended; {len(record.trials) - before} trials since this worker joined")


def _awaited_search(
    study: str, runs: Path, storage: str | None, wait_s: float, say: Callable[[str], None]
) -> SearchGoal:
    """What the search was asked for, once it runs; AutocompressError where it does not after `wait_s` seconds."""
    until_s = time.monotonic() + wait_s
    while True:
        try:
            return _running_search(study, runs, storage)
        except _NotYetError as fault:
            left_s = until_s - time.monotonic()
            if left_s <= 0:
                raise
            say(f"{str(fault).partition(';')[0]}; waiting for a search of it to begin, at most {wait_s:.0f} s")
        interrupts.check()
        time.sleep(min(_POLL_S, left_s))


def _running_search(study: str, runs: Path, storage: str | None) -> SearchGoal:
    """What the search was asked for; _NotYetError where none runs, AutocompressError where its files are not here."""
    from autocompress.search.storage.study_records import (
        UnknownStudyError,
        load_study,
        read_record,
        study_folder,
    )
    from autocompress.search.workers.goal import goal_of
    from autocompress.search.workers.locks import WorkerRegistry

    try:
        opened = load_study(runs, study, storage)
    except UnknownStudyError as fault:
        raise _NotYetError(str(fault)) from None
    asked = goal_of(opened)
    if asked is None or WorkerRegistry(study_folder(runs, study) / "workers").is_dead(asked.by):
        raise _NotYetError(f"study '{study}' is not being searched; start that with: autocompress search")
    if not (runs / read_record(opened, ()).baseline.artifact).is_file():
        raise AutocompressError(
            f"the files of study '{study}' are not in {runs}; give the folder of the search with --runs (on another "
            "machine: the same one, as a network share)"
        )
    return asked


def worker_command(search: Search, host_wait: str) -> list[str]:
    """The command of a worker process of this search, which ends with it."""
    runs, threads, storage = str(search.resources.runs), str(search.resources.threads), search.resources.storage
    options = ["--runs", runs, "--threads", threads, "--host-wait", host_wait, "--wait", "0", "--quiet", "--attached"]
    if storage is not None:
        options += ["--storage", storage]
    return [sys.executable, "-m", "autocompress.cli", "worker", search.name, *options]


def _end_with_input() -> None:
    """Interrupt this process when its standard input ends: then whoever started it is gone or wants it to end."""
    signal.signal(signal.SIGINT, interrupts.interrupt)  # a shell's background jobs ignore it

    def watch() -> None:
        while os.read(0, 4096):
            pass
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(_PATIENCE_S)
        os._exit(130)

    threading.Thread(target=watch, daemon=True).start()
