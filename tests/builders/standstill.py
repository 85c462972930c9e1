"""Searches in other processes, looked at while they stand still: a fast machine cannot end them in between."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from tests.builders.processes import children, is_dead, state_of, wait_for

PATIENCE_S = 240.0
_PAUSE_S = 0.05  # between two looks, in which the search goes on


def counted(database: Path, what: str = "state = 'COMPLETE'") -> int:
    """Trials, counted without Optuna, which would make the tables itself and wait for a stopped one; none where that
    holds the whole file."""
    if not database.exists():
        return 0
    with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=0.1)) as connection:
        try:
            if not connection.execute("select count(*) from sqlite_master where name = 'trials'").fetchone()[0]:
                return 0
            return int(connection.execute(f"select count(*) from trials where {what}").fetchone()[0])
        except sqlite3.OperationalError as fault:
            if "locked" not in str(fault):
                raise
            return 0


def family(process: subprocess.Popen[str] | subprocess.Popen[bytes]) -> list[int]:
    """A process and its children. One that was forked and has not begun its program yet is none: its parent waits for
    that, and would not stop."""
    return [process.pid, *(pid for pid in children(process.pid) if program(pid) not in (program(process.pid), b""))]


def program(pid: int) -> bytes:
    """The words of a process, each with a zero byte behind it."""
    with contextlib.suppress(OSError):  # it ended meanwhile
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def stop_when(condition: Callable[[], bool], pids: Callable[[], Sequence[int]], look_s: float = 0.0) -> list[int]:
    """The processes, the first of which must live, stopped in a moment in which the condition holds. After each look in
    vain they are let go on for an instant."""
    end_s = time.monotonic() + PATIENCE_S
    while True:
        stopped = list(pids())
        with contextlib.ExitStack() as cleanup:
            cleanup.callback(go_on, stopped)
            _stop(stopped)
            if comes(condition, look_s):
                cleanup.pop_all()
                return stopped
        assert time.monotonic() < end_s, "waited in vain"
        time.sleep(_PAUSE_S)


def hold_back(process: subprocess.Popen[str], condition: Callable[[], bool]) -> None:
    """Let a process do next to nothing until the condition holds, by what others do."""
    go_on(stop_when(condition, lambda: [process.pid], look_s=1.0))


def comes(condition: Callable[[], bool], look_s: float) -> bool:
    """Whether the condition holds within a time."""
    end_s = time.monotonic() + look_s
    while not (holds := condition()) and time.monotonic() < end_s:
        time.sleep(_PAUSE_S)
    return holds


def _stop(pids: Sequence[int]) -> None:
    _send(pids, signal.SIGSTOP)
    for pid in pids:
        wait_for(partial(_stands, pid))
    assert not is_dead(pids[0]), "it ended before"


def _stands(pid: int) -> bool:
    return state_of(pid) in ("T", "Z", "")


def go_on(pids: Sequence[int]) -> None:
    _send(pids, signal.SIGCONT)


def _send(pids: Sequence[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):  # ended meanwhile
            os.kill(pid, number)
