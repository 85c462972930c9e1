"""Other processes, as a test sees them: whose child, dead or alive, and waiting for what they do."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PATIENCE_S = 30.0  # until a test gives up on another process


def children(pid: int) -> list[int]:
    """The processes whose parent is `pid`, dead ones not counted."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue  # gone meanwhile
        if int(parent) == pid and state != "Z":
            found.append(int(stat.parent.name))
    return found


def measurers(agent: int) -> list[int]:
    """The forks of an agent that measure; they go first when memory runs out. A program that it asks something for an
    instant is a child of it too."""
    return [pid for pid in children(agent) if _goes_first(pid)]


def _goes_first(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/oom_score_adj").read_text() == "1000\n"
    except OSError:  # gone meanwhile
        return False


def agent_pid() -> int:
    """The one agent that this process has started on this machine."""
    (pid,) = (pid for pid in children(os.getpid()) if b'"agent"' in Path(f"/proc/{pid}/cmdline").read_bytes())
    return pid


def wait_for(condition: Callable[[], Any]) -> Any:
    """The first true value of the condition."""
    end_s = time.monotonic() + PATIENCE_S
    while not (value := condition()):
        assert time.monotonic() < end_s, "waited in vain"
        time.sleep(0.01)
    return value


def state_of(pid: int) -> str:
    """The kernel's letter for what a process does: T: stopped, Z: dead, not waited for; none: gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def is_dead(pid: int) -> bool:
    return state_of(pid) in ("Z", "")


class Background:
    """Something that runs while the test interferes; `result` waits for what it returns or raises."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self._outcome: list[Any] = []
        self._thread = threading.Thread(target=self._run, args=(work,), daemon=True)
        self._thread.start()

    def _run(self, work: Callable[[], Any]) -> None:
        try:
            self._outcome.append(work())
        except Exception as error:
            self._outcome.append(error)

    @property
    def is_done(self) -> bool:
        """Whether it has returned or raised."""
        return not self._thread.is_alive()

    def result(self) -> Any:
        self._thread.join(PATIENCE_S)
        assert self._outcome, "still running"
        return self._outcome[0]
