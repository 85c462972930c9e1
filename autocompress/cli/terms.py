"""What every command shares: its options, how faults become exit codes, where text and JSON go."""

from __future__ import annotations

import functools
import re
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
DEFAULT_RUNS = Path("runs")


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


def seconds(text: str) -> float:
    """Seconds of `90s`, `10m`, `1h30m` or a bare number of seconds; AutocompressError for anything else."""
    units = {"h": 3600.0, "m": 60.0, "s": 1.0}
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    parts = re.findall(r"(\d+(?:\.\d+)?)([hms])", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise AutocompressError(f"time budget '{text}' is no duration; write it as 90s, 10m or 1h30m")
    return sum(float(number) * units[unit] for number, unit in parts)
