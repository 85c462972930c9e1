"""The pipe to an agent: the command that starts it on the edge host, its frames, and its faults."""

from __future__ import annotations

import contextlib
import os
import select
import shlex
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from autocompress.errors import DeviceError, NotStartedError, UnreachableError
from autocompress.latency.host import agent, ssh

# Read by every Python since 2.4, so that an old one can say so itself. The folder where the command starts is no place
# to import from: it may hold a json.py.
_TOO_OLD = "the agent needs Python 3.8 or newer, this is"
_BOOTSTRAP = (
    f'import sys;sys.version_info<(3,8)and sys.exit("{_TOO_OLD} "+sys.version.split()[0]);'
    'sys.path=[p for p in sys.path if p];exec(compile(sys.stdin.buffer.read({size}),"agent","exec"))'
)
_JOIN_ARGUMENTS = ("ssh", "adb")  # they hand their arguments, joined by spaces, to a shell there
_MOST_BANNER_BYTES = 1 << 20
_KEPT_LINES, _SHOWN_LINES = 30, 3  # of what the other side prints
_CLOSE_S = 5.0
_NOT_STARTED = "check that the command starts Python 3.8 or newer there"
_LOST = "check the device and its connection, then run the same command again"


def agent_command(argv: Sequence[str], size: int) -> list[str]:
    """The command that starts the agent, a source of `size` bytes; `argv` ends with the Python executable.

    Behind ssh and adb the arguments that are added are quoted for the shell there.
    """
    added = ["-u", "-c", _BOOTSTRAP.format(size=size)]
    if Path(argv[0]).name in _JOIN_ARGUMENTS:
        added = [shlex.quote(word) for word in added]
    return [*argv, *added]


class Connection:
    """The pipe to one agent. Its faults are DeviceErrors that quote what the other side printed last.

    An UnreachableError is one that waiting may heal; a NotStartedError may be if the same command worked before."""

    def __init__(self, argv: Sequence[str], *, start_s: float, silence_s: float) -> None:
        """Start the agent and wait, at most `start_s` seconds, until it speaks."""
        self.name, self._silence_s, self._is_ssh, self._spoke = ssh.name_of(argv), silence_s, ssh.is_ssh(argv), False
        source = Path(agent.__file__).read_bytes()
        try:
            self._process = subprocess.Popen(
                agent_command(argv, len(source)),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                start_new_session=True,  # Ctrl-C is for us, and we decide what becomes of the agent
            )
        except OSError as error:
            remedy = "install the OpenSSH client" if self._is_ssh else _NOT_STARTED
            raise DeviceError(f"cannot start '{argv[0]}': {error.strerror}; {remedy}") from error
        stdin, stdout, stderr = self._process.stdin, self._process.stdout, self._process.stderr
        assert stdin is not None
        assert stdout is not None
        self._stdin, self._stdout, self._frames = stdin, stdout, agent.Frames(stdout.fileno())
        os.set_blocking(stdin.fileno(), False)
        self._printed: deque[str] = deque(maxlen=_KEPT_LINES)
        self._listener = threading.Thread(target=self._listen, args=(stderr,), daemon=True)
        self._listener.start()
        try:
            self._send(source, _NOT_STARTED)
            self._skip_banner(start_s)
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        """The process id of the command, on this side."""
        return self._process.pid

    def call(
        self, header: Mapping[str, Any], body: bytes = b"", on_wait: Callable[[], None] | None = None
    ) -> tuple[dict[str, Any], bytes]:
        """The answer to one request, header and body; `on_wait` is called while others measure there.

        DeviceError when the agent refuses or is lost; when it is lost, the connection is closed.
        """
        if self._stdin.closed:
            raise DeviceError(f"the connection to '{self.name}' is closed; {_LOST}")
        try:
            self._send(agent.encode(dict(header), body), _LOST)
            while "event" in (answer := self._receive())[0]:
                if on_wait is not None and answer[0]["event"] == "waiting":
                    on_wait()
        except BaseException:  # a half-sent request, an answer nobody waits for: the pipe is of no more use
            self.close()
            raise
        if "refused" in answer[0]:
            raise DeviceError(f"'{self.name}' refuses: {answer[0]['refused']}; put that right there")
        return answer

    def close(self) -> None:
        """Close the pipe, which ends the agent and all it started; kill the command if it stays."""
        self._stdin.close()
        self._stdout.close()
        try:
            self._process.wait(_CLOSE_S)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._listener.join(1.0)

    def _listen(self, stderr: Any) -> None:
        """Keep standard error from filling up, and its last lines."""
        with stderr:
            for line in iter(stderr.readline, b""):
                if line.strip():
                    self._printed.append(line.decode(errors="replace").strip())

    def _send(self, data: bytes, remedy: str) -> None:
        view = memoryview(data)
        while view:
            if not select.select([], [self._stdin], [], self._silence_s)[1]:
                raise self._lost(f"takes no data for {self._silence_s:g} s", remedy)
            try:
                view = view[os.write(self._stdin.fileno(), view) :]
            except BrokenPipeError:
                raise self._lost("ended", remedy) from None

    def _fill(self, seconds: float, remedy: str) -> None:
        if not select.select([self._stdout], [], [], seconds)[0]:
            raise self._lost(f"is silent for {seconds:g} s", remedy)
        if not self._frames.fill():
            raise self._lost("ended", remedy)

    def _receive(self) -> tuple[dict[str, Any], bytes]:
        while (frame := self._frames.take()) is None:
            self._fill(self._silence_s, _LOST)
        return frame

    def _skip_banner(self, start_s: float) -> None:
        """Drop what a login prints, up to the agent's first word."""
        seen, end_s = self._frames.buffer, time.monotonic() + start_s
        while (at := seen.find(agent.MAGIC)) < 0:
            if len(seen) > _MOST_BANNER_BYTES or time.monotonic() > end_s:
                raise self._lost(f"has not spoken within {start_s:g} s and {len(seen)} bytes", _NOT_STARTED)
            self._fill(start_s, _NOT_STARTED)
        del seen[: at + len(agent.MAGIC)]
        self._spoke = True

    def _lost(self, what: str, remedy: str) -> DeviceError:
        """The fault, with exit code and last lines of the other side as far as they come within a second."""
        code = None
        if what == "ended":
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = self._process.wait(1.0)
                what = f"ended with exit code {code}"
            self._listener.join(1.0)
        printed = list(self._printed)
        if old := [line for line in printed if line.startswith(_TOO_OLD)]:
            return DeviceError(f"'{self.name}': {old[0]}; name another Python there, or install one")
        if self._is_ssh and not self._spoke:
            return ssh.fault(self.name, code, printed)
        said = f" ({' | '.join(printed[-_SHOWN_LINES:])})" if printed else ""
        kind = UnreachableError if self._spoke else NotStartedError
        return kind(f"the agent on '{self.name}' {what}{said}; {remedy}")
