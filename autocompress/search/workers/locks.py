"""Locks between processes, each a file that the kernel unlocks when its holder dies.

`FileLock`: one process at a time, as the worker that looks at the study and begins a trial. `WorkerRegistry`: which
workers live. `ProcessorLock`: who computes on this machine, any number of builds at once or one measurement alone."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import platform
import re
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import IO

from autocompress.errors import AutocompressError
from autocompress.latency.host.agent import open_lock

# Of waiting for another process at a lock; once one was found stopped, as long as it takes others to pause.
_SILENT_S, _LONGEST_S, _AFTERWARDS_S, _POLL_S = 30.0, 600.0, 2.0, 0.01
_log = logging.getLogger(__name__)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold `folder/lock` exclusively; AutocompressError where another process does or the folder cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = _open(folder / "lock")
    except OSError as fault:
        raise AutocompressError(
            f"the runs folder cannot be written: {fault.filename}: {fault.strerror}; give a writable one with --runs"
        ) from fault
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as fault:
        raise AutocompressError(
            f"study '{folder.name}' is being searched by another process; wait for it, help it with: autocompress "
            f"worker {folder.name}, or choose another --study"
        ) from fault
    finally:
        os.close(handle)


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)


class FileLock:
    """An exclusive lock on a file, as a context manager; may be released before its end. `waiting`: what is entered
    while others hold it. Who waits here for one that waits for the processors must not hold these itself."""

    def __init__(self, path: Path, waiting: Callable[[], AbstractContextManager[object]] = nullcontext) -> None:
        self._path, self._waiting = path, waiting
        self._file: IO[bytes] | None = None

    def __enter__(self) -> FileLock:
        self._file = self._path.open("ab")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with self._waiting():
                fcntl.flock(self._file, fcntl.LOCK_EX)
        return self

    def release(self) -> None:
        """Let the next one."""
        if self._file is not None:
            self._file.close()  # once, also where Ctrl-C comes in between and this is called again

    def __exit__(self, *_: object) -> None:
        self.release()


class WorkerRegistry:
    """Which workers of a study live, as a context manager that registers this process. A worker is a file that it
    keeps locked; `name` is this one's. Of workers on other machines nothing is known here."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._node = folder, re.sub(r"[^\w.-]", "_", platform.node()) or "here"
        self.name = f"{self._node}+{os.getpid()}+{os.urandom(4).hex()}"
        self._handle: int | None = None

    def __enter__(self) -> WorkerRegistry:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._handle = _open(self._folder / self.name)
        fcntl.flock(self._handle, fcntl.LOCK_EX)
        return self

    def __exit__(self, *_: object) -> None:
        if self._handle is not None:
            (self._folder / self.name).unlink(missing_ok=True)
            os.close(self._handle)
            self._handle = None

    def is_dead(self, name: str) -> bool:
        """Whether this worker of this machine is gone; False for one of another machine."""
        if name == self.name or name.partition("+")[0] != self._node:
            return False
        try:
            handle = os.open(self._folder / name, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return True
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        finally:
            os.close(handle)
        (self._folder / name).unlink(missing_ok=True)
        return True


class ProcessorLock:
    """This machine's processors, for all searches on it: shared by builds, left to a measurement of the machine itself.

    Who wants to measure first closes the gate, so that no new build begins, then waits for those under way."""

    def __init__(self) -> None:
        self._gate = self._processors = -1
        self._building = False
        self._given_up: set[tuple[int, int]] = set()  # locks not waited for to the end since they were last held

    @contextlib.contextmanager
    def building(self) -> Iterator[None]:
        """Compute, together with others."""
        self._gate, self._processors = open_lock("autocompress.gate.lock"), open_lock("autocompress.builds.lock")
        try:
            self._share()
            yield
        finally:
            self._building = False
            os.close(self._processors)
            os.close(self._gate)

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """While building: nobody else builds or measures here, what this process builds pauses."""
        with self.idle():
            self._take(self._gate, fcntl.LOCK_EX)
            try:
                self._take(self._processors, fcntl.LOCK_EX)
                yield
            finally:
                fcntl.flock(self._processors, fcntl.LOCK_UN)
                fcntl.flock(self._gate, fcntl.LOCK_UN)

    @contextlib.contextmanager
    def idle(self) -> Iterator[None]:
        """Wait for something else; what this process builds pauses."""
        building = self._building
        self._leave()
        try:
            yield
        finally:
            if building:
                self._share()

    def pause(self) -> None:
        """Between two pieces of a build: let a measurement pass."""
        with self.idle():
            pass

    def _share(self) -> None:
        self._take(self._gate, fcntl.LOCK_EX)
        try:
            self._take(self._processors, fcntl.LOCK_SH)
        finally:
            fcntl.flock(self._gate, fcntl.LOCK_UN)
        self._building = True

    def _leave(self) -> None:
        if self._building:
            fcntl.flock(self._processors, fcntl.LOCK_UN)
            self._building = False

    def _take(self, handle: int, kind: int) -> None:
        """Lock the file, or after a while go on without: who holds it so long is stopped (Ctrl-Z), and computes
        nothing."""
        knows = (handle, kind) in self._given_up
        began_s, said, longest_s = time.monotonic(), knows, _AFTERWARDS_S if knows else _LONGEST_S
        while not _locked(handle, kind):
            waited_s = time.monotonic() - began_s
            if waited_s > longest_s:
                if not knows:
                    _log.warning("another search on this machine has not paused for %.0f min; going on", waited_s / 60)
                self._given_up.add((handle, kind))
                return
            if waited_s > _SILENT_S and not said:
                said = True
                _log.warning("waiting for another search on this machine to pause; if it is stopped, resume or end it")
            time.sleep(_POLL_S)
        self._given_up.discard((handle, kind))


def _locked(handle: int, kind: int) -> bool:
    """Whether the lock was free, and is held now."""
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
