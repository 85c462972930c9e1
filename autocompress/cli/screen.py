"""The screen while something is done: how much is said, a line per stage, and other programs' lines above the bar."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

_log = logging.getLogger("autocompress")
_END = b"\0autocompress: end\0"  # no program writes this line
_DRAIN_S = 5.0


class StageLines(logging.Handler):
    """What the package logs, a line each on standard error; from -v on with the seconds since its start."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock, self._began_s = clock, clock()

    def emit(self, record: logging.LogRecord) -> None:
        """Write the line where standard error goes at this moment: above a bar while there is one."""
        said = record.getMessage()
        if record.levelno >= logging.WARNING:
            said = f"warning: {said}"
        if _log.level <= logging.DEBUG:
            said = f"{self._clock() - self._began_s:7.1f} s  {said}"
        print(said, file=sys.stderr, flush=True)


def silence() -> None:
    """Show nothing of what the package logs any more."""
    for handler in [each for each in _log.handlers if isinstance(each, StageLines)]:
        _log.removeHandler(handler)
    _log.setLevel(logging.NOTSET)


def listen(*, quiet: bool, verbose: bool) -> None:
    """Show what the package logs from now on, instead of any lines shown before: stages, `verbose` also what they
    found, `quiet` warnings only."""
    silence()
    _log.addHandler(StageLines())
    _log.setLevel(logging.WARNING if quiet else logging.DEBUG if verbose else logging.INFO)


def is_quiet() -> bool:
    """Whether only results and warnings are shown."""
    return _log.level >= logging.WARNING


def stage(line: str, *values: object) -> None:
    """Say what is done now."""
    _log.info(line, *values)


@contextlib.contextmanager
def unbroken(console: Console) -> Iterator[None]:
    """Print what any library writes to standard error, below Python too, above the console's progress bar, a whole
    line at a time. Elsewhere than on a terminal nothing is changed."""
    if not console.is_terminal or console.quiet:
        yield
        return
    sys.stderr.flush()
    kept = os.dup(2)
    with os.fdopen(os.dup(kept), "w", encoding="utf-8", errors="backslashreplace") as terminal:
        own = console.file if not console.stderr else terminal
        reader, writer = os.pipe()
        os.dup2(writer, 2)
        console.file, drained = own, threading.Event()
        threading.Thread(target=_show, args=(reader, kept, console, drained), daemon=True).start()
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.write(writer, _END + b"\n")
            os.close(writer)
            drained.wait(_DRAIN_S)
            console.file = sys.stderr if console.stderr else own


def _show(reader: int, kept: int, console: Console, drained: threading.Event) -> None:
    """Print lines above the bar until the end is marked; what child processes write afterwards goes straight on."""
    from rich.text import Text

    with os.fdopen(reader, "rb") as lines:
        for line in lines:
            if drained.is_set():
                os.write(kept, line)
                continue
            text, marked, _ = line.partition(_END)
            if text:
                console.print(Text(text.decode(errors="backslashreplace").rstrip("\n")), soft_wrap=True)
            if marked:
                drained.set()
