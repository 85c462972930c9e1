"""What every command shares: its options, how faults become exit codes, where text and JSON go."""

from __future__ import annotations

import functools
import inspect
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from autocompress.cli import screen
from autocompress.errors import AutocompressError
from autocompress.specs.duration import seconds as seconds

if TYPE_CHECKING:
    from rich.console import Console

    from autocompress.report.tables import Table


def study_names(context: typer.Context, incomplete: str) -> list[str]:
    """The studies that a word may stand for, for the shell."""
    runs = Path(context.params.get("runs") or DEFAULT_RUNS)
    return sorted(path.parent.name for path in runs.glob("*/study.db") if path.parent.name.startswith(incomplete))


def device_names(incomplete: str) -> list[str]:
    """The device profiles that a word may stand for, for the shell."""
    from autocompress import specs

    return [name for name in specs.device_names() if name.startswith(incomplete)]


StudyName = Annotated[str, typer.Argument(help="Study name.", autocompletion=study_names)]
DeviceName = Annotated[
    str,
    typer.Option(
        help="Device profile: a name (see: autocompress device list) or a .yaml file.", autocompletion=device_names
    ),
]
Runs = Annotated[Path, typer.Option("--runs", help="Folder of all studies.")]
Storage = Annotated[
    str | None, typer.Option("--storage", help="Optuna storage URL; default: SQLite in the study's folder.")
]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output, nothing else there.")]
HostWait = Annotated[str, typer.Option(help="Wait so long for a host that is away: 90s, 15m, 2h; 0: not at all.")]
Output = Annotated[
    str | None, typer.Option("--output", help="Of several outputs the one that the metric judges, by its name.")
]
SignatureKey = Annotated[
    str | None,
    typer.Option("--signature", help="Of several signatures the one that is meant; default: serving_default."),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show results and warnings only.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show what each stage found, and when.")]
DEFAULT_RUNS = Path("runs")
HOST_WAIT = "15m"
_SAY_AGAIN_S = 60.0
_GIVEN = ("COMMANDLINE", "ENVIRONMENT", "DEFAULT_MAP")  # where a value comes from that no default of ours is
_LOUDNESS = {"quiet": Quiet, "verbose": Verbose}  # of every command


def guarded(handler: Callable[..., None]) -> Callable[..., None]:
    """The handler of a command: as `faults_told`, with --quiet and --verbose."""

    @functools.wraps(handler)
    def guarded(*args: Any, **kwargs: Any) -> None:
        given = {name: kwargs.pop(name) for name in _LOUDNESS if name in kwargs}
        if any(given.values()):
            screen.listen(**given)
        faults_told(handler)(*args, **kwargs)

    return _with_loudness(guarded)


def faults_told(handler: Callable[..., None]) -> Callable[..., None]:
    """Errors that are the user's or the device's become one line and their exit code; Ctrl-C becomes 130."""

    @functools.wraps(handler)
    def told(*args: Any, **kwargs: Any) -> None:
        try:
            handler(*args, **kwargs)
        except AutocompressError as fault:
            typer.echo(f"error: {fault}", err=True)
            raise typer.Exit(fault.exit_code) from None
        except KeyboardInterrupt:
            typer.echo("interrupted; the study is whole, the same command goes on with it", err=True)
            exec("")  # else Python ends itself by SIGINT, with no exit code, where it came in an exec (of a dataclass)
            raise typer.Exit(130) from None

    return told


def _with_loudness(handler: Callable[..., None]) -> Callable[..., None]:
    """The handler with the options of `_LOUDNESS` behind its own, as Typer reads them."""
    signature = inspect.signature(handler, eval_str=True)
    more = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=option)
        for name, option in _LOUDNESS.items()
    ]
    parameters = [*signature.parameters.values(), *more]
    handler.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    handler.__annotations__ = {each.name: each.annotation for each in parameters}
    return handler


def console_of(stderr: bool = False) -> Console:
    from rich.console import Console

    return Console(stderr=stderr, highlight=False)


def progress_console(stderr: bool) -> Console:
    """Where progress goes: nowhere with --quiet."""
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, quiet=screen.is_quiet())


def given_words(context: typer.Context) -> tuple[str, ...]:
    """The command as it was given, word by word: what was left to its default is left out."""
    words = ["autocompress", *context.command_path.split()[1:]]
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        if parameter.name is None or parameter.name in _LOUDNESS or source is None or source.name not in _GIVEN:
            continue
        value, name = context.params[parameter.name], parameter.opts[0]
        for item in value if isinstance(value, (list, tuple)) else (value,):
            words += [] if parameter.param_type_name == "argument" else [name]
            words += [] if isinstance(item, bool) else [str(item)]
    return tuple(words)


def print_json(document: Any) -> None:
    import json

    typer.echo(json.dumps(document, indent=2, allow_nan=False))


def print_table(console: Console, found: Table) -> None:
    """A table of text, as wide as the terminal at most."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from autocompress.report.units import text

    console.print()
    console.print(text(console, found.title, "bold"), soft_wrap=True)
    shown = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for name in found.header:
        right = name in found.right
        shown.add_column(text(console, name), overflow="fold", justify="right" if right else "left", no_wrap=right)
    for line in found.lines:
        shown.add_row(*(Text("\n").join(text(console, part) for part in cell.split("\n")) for cell in line))
    if found.lines:
        console.print(shown)


def read_json(path: Path) -> Any:
    """A JSON document; AutocompressError where there is none."""
    import json

    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as fault:
        raise AutocompressError(
            f"cannot read {path}: {fault}; give the output of: autocompress measure --json"
        ) from fault
    if not isinstance(found, dict):
        raise AutocompressError(f"{path} holds no JSON object; give the output of: autocompress measure --json")
    return found


def write_text(path: Path, content: str) -> None:
    """Write a file that is whole or not there; AutocompressError where it cannot be written."""
    from autocompress.files import write_whole

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, content.encode())
    except OSError as fault:
        raise AutocompressError(f"cannot write {path}: {fault.strerror}; give another place") from fault


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


def named(**words: str | None) -> dict[str, str | None]:
    """How a command names things, with the paths of files made absolute: the study may be opened from elsewhere."""
    return {name: _absolute(word) if word is not None and Path(word).suffix else word for name, word in words.items()}


def _absolute(word: str) -> str:
    return str(Path(word).resolve()) if Path(word).exists() else word
