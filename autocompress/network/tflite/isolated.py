"""Running networks in a child process: a runtime that is ended by a signal takes nothing else along.

The child is a fork, so it has all arrays without a copy, and it stays: asking it again costs a message over a pipe.
It holds no lock of its parent and ends when that does."""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import signal
import sys
import traceback
import warnings
import weakref
from collections.abc import Callable
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any, Generic, NoReturn, ParamSpec, TypeVar

from autocompress.errors import CandidateError

P = ParamSpec("P")
T = TypeVar("T")


class Isolated(Generic[P, T]):
    """A function that runs in a child process, forked at the first call and again after a call that ended it.

    Arguments and results are copied, what the function refers to is as it was at the fork. What it raises is raised
    here; CandidateError where the child was ended instead. For one thread."""

    def __init__(self, function: Callable[P, T]) -> None:
        self._function = function
        self._child: _Child | None = None

    def __call__(self, *arguments: P.args, **named: P.kwargs) -> T:
        child = self._child = self._child or _Child(self._function)
        try:
            fault, result = child.ask((arguments, named))
        except (EOFError, ConnectionError):
            self._child = None
            raise CandidateError(f"the runtime {_how(child.end())}") from None
        except BaseException:  # Ctrl-C: an answer is still under way
            self.close()
            raise
        if fault is not None:
            raise fault[0] from _Elsewhere(fault[1])
        found: T = result
        return found

    def close(self) -> None:
        """End the child; another call forks another one."""
        child, self._child = self._child, None
        if child is not None:
            child.end()


def in_child(function: Callable[[], T]) -> T:
    """What `function` returns or raises in a child of its own; CandidateError where that was ended by a signal."""
    isolated = Isolated(function)
    try:
        return isolated()
    finally:
        isolated.close()


class _Elsewhere(Exception):  # noqa: N818 - the cause of a fault: where the child raised it
    def __str__(self) -> str:
        return f"\n{self.args[0]}"


class _Child:
    """The forked process and the way to it."""

    def __init__(self, function: Callable[..., Any]) -> None:
        import ai_edge_litert.interpreter  # noqa: F401 - once, here: not in every child

        self._connection, other = Pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of threads: the child calls nothing of theirs
            pid = os.fork()
        if pid == 0:
            _serve(other, function)
        other.close()
        self._finalizer = weakref.finalize(self, _end, pid, self._connection, os.getpid())

    def ask(self, question: object) -> Any:
        """The answer of the child: (fault and where it was raised, None) or (None, result)."""
        self._connection.send(question)
        return self._connection.recv()

    def end(self) -> int:
        """End the process, if it still runs: its wait status."""
        status: int | None = self._finalizer()
        return status or 0


def _end(pid: int, connection: Connection, owner: int) -> int:
    if os.getpid() != owner:  # a fork of the owner: it is no child of that
        return 0
    connection.close()
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)  # no effect on how it ended, if it did
    return os.waitpid(pid, 0)[1]


def _how(status: int) -> str:
    """How a process ended, from its wait status."""
    if not os.WIFSIGNALED(status):
        return f"ended its process with exit code {os.WEXITSTATUS(status)}"
    number = os.WTERMSIG(status)
    known = number in list(signal.Signals)
    name = signal.Signals(number).name if known else f"signal {number}"
    return f"ended with {name}" + (", most likely because memory ran out" if number == signal.SIGKILL else "")


def _serve(connection: Connection, function: Callable[..., Any]) -> NoReturn:
    """The child: answer until the parent is gone."""
    try:
        _settle(connection.fileno())
        while True:
            arguments, named = connection.recv()
            connection.send(_answer(function, arguments, named))
    finally:
        os._exit(0)  # nothing of the parent's is flushed, closed or told a second time


def _settle(kept: int) -> None:
    """Let go of what is the parent's: its files and locks, its screen, its Ctrl-C."""
    gc.freeze()  # what was inherited is neither looked at, which would copy it, nor finalised
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    nowhere = os.open(os.devnull, os.O_RDWR)
    for standard in range(3):
        os.dup2(nowhere, standard)
    for opened in [int(name) for name in os.listdir("/dev/fd")]:
        if opened > 2 and opened != kept:
            with contextlib.suppress(OSError):  # the one that listed them
                os.close(opened)


def _answer(function: Callable[..., Any], arguments: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, Any]:
    from multiprocessing.reduction import ForkingPickler

    try:
        return None, function(*arguments, **named)
    except Exception as fault:
        told = traceback.format_exc()
        try:
            ForkingPickler.loads(ForkingPickler.dumps(fault))
        except Exception:  # one that cannot be sent
            return (RuntimeError(f"{type(fault).__name__}: {fault}"), told), None
        return (fault, told), None
