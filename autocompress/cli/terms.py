"""What every command shares: its options, how faults become exit codes, where text and JSON go."""

from __future__ import annotations

import functools
import math
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ParamSpec

import typer

from autocompress.errors import AutocompressError

if TYPE_CHECKING:
    from rich.console import Console

P = ParamSpec("P")
Runs = Annotated[Path, typer.Option("--runs", help="Folder of all studies.")]
Storage = Annotated[
    str | None, typer.Option("--storage", help="Optuna storage URL; default: SQLite in the study's folder.")
]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output, nothing else there.")]
HostWait = Annotated[str, typer.Option(help="Wait so long for a host that is away: 90s, 15m, 2h; 0: not at all.")]
DEFAULT_RUNS = Path("runs")
HOST_WAIT = "15m"
_SAY_AGAIN_S = 60.0


def guarded(handler: Callable[P, None]) -> Callable[P, None]:
    """Errors that are the user's or the device's become one line and their exit code; Ctrl-C becomes 130."""

    @functools.wraps(handler)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            handler(*args, **kwargs)
        except AutocompressError as fault:
            typer.echo(f"error: {fault}", err=True)
            raise typer.Exit(fault.exit_code) from None
        except KeyboardInterrupt:
            typer.echo("interrupted; the study is whole, the same command goes on with it", err=True)
            raise typer.Exit(130) from None

    return guarded


def console_of(stderr: bool = False) -> Console:
    from rich.console import Console

    return Console(stderr=stderr, highlight=False)


def print_json(document: Any) -> None:
    import json

    typer.echo(json.dumps(document, indent=2, allow_nan=False))


class Waits:
    """Shows why nothing happens, one line at a time: a line that comes again at most once a minute."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console, self._clock = console, clock
        self._shown_s: dict[str, float] = {}

    def __call__(self, line: str) -> None:
        from rich.text import Text

        now_s = self._clock()
        if now_s - self._shown_s.get(line, -math.inf) >= _SAY_AGAIN_S:
            self._shown_s[line] = now_s
            self._console.print(Text(line, style="yellow"), soft_wrap=True)


def seconds(text: str, what: str = "time budget") -> float:
    """Seconds of `90s`, `10m`, `1h30m` or a bare number of seconds; AutocompressError for anything else."""
    units = {"h": 3600.0, "m": 60.0, "s": 1.0}
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    parts = re.findall(r"(\d+(?:\.\d+)?)([hms])", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise AutocompressError(f"{what} '{text}' is no duration; write it as 90s, 10m or 1h30m")
    return sum(float(number) * units[unit] for number, unit in parts)
