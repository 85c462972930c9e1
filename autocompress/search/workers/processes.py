"""The other worker processes of a search: started, watched, replaced, and ended with it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from typing import IO

_BLAS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_PATIENCE_S = 20.0  # for a worker that was told to end
MOST_REPLACED = 5  # workers that were killed; then something is wrong with the machine


class _Worker:
    """One process. It ends when its standard input is closed, so also when this process dies."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed in reap
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=self._errors, env=environment
        )

    def last_line(self) -> str:
        """The last line it wrote to standard error."""
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else ""

    def end(self) -> None:
        """Let go of it."""
        if self.process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.close()

    def reap(self) -> None:
        """Wait for its end; kill it where it does not come."""
        try:
            self.process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._errors.close()


class WorkerProcesses:
    """`count` processes of one command with `threads` threads each, as a context manager."""

    def __init__(self, command: Sequence[str], count: int, threads: int) -> None:
        self._command, self._count = tuple(command), count
        self._environment = dict(os.environ) | {name: str(threads) for name in _BLAS}
        self._members: list[_Worker] = []
        self._replaced = 0

    def __enter__(self) -> WorkerProcesses:
        try:
            for _ in range(self._count):
                self._members.append(self._start())
        except BaseException:
            self.__exit__()
            raise
        return self

    def _start(self) -> _Worker:
        return _Worker(self._command, self._environment)

    def __exit__(self, *_: object) -> None:
        for member in self._members:
            member.end()
        for member in self._members:
            member.reap()
        self._members.clear()

    def tend(self) -> list[str]:
        """Replace workers that were killed; a line for each that ended before the search did."""
        lines = []
        for member in list(self._members):
            code = member.process.poll()
            if code is None or code == 0:
                continue
            self._members.remove(member)
            how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended: {member.last_line()}"
            member.end()
            member.reap()
            lines.append(f"a worker {how}; its trial is run again")
            if code < 0 and self._replaced < MOST_REPLACED:
                self._replaced += 1
                self._members.append(self._start())
        return lines
