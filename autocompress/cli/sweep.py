"""`autocompress sweep FILE.yaml` and `autocompress sweep accept FILE.yaml`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from autocompress.cli.options import DEFAULT_RUNS, Json, Runs, console_of, guarded, print_json

if TYPE_CHECKING:
    from rich.console import Console

    from autocompress.specs import Sweep
    from autocompress.sweep.run import Outcome
    from autocompress.sweep.summary import Findings


class _NightByDefault(TyperGroup):
    """`sweep FILE.yaml` is `sweep night FILE.yaml`: whatever is no command and no option of the group is a file."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] != "--help":
            args = ["night", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_NightByDefault, no_args_is_help=True, help="Search tasks on devices every night and judge what changed."
)
File = Annotated[Path, typer.Argument(help="The sweep: a .yaml file.", metavar="FILE.yaml")]


@app.command("night")
@guarded
def night(
    file: File,
    runs: Runs = DEFAULT_RUNS,
    junit: Annotated[Path | None, typer.Option(help="Write JUnit XML there.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write a Markdown summary there.")] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume/--no-resume", help="Go on with a night that was cut, or begin it again: all cells run."),
    ] = True,
    as_json: Json = False,
) -> None:
    """Run a night of a sweep, or go on with one that was cut: `sweep FILE.yaml` is enough."""
    from autocompress.specs import load_sweep
    from autocompress.sweep import summary
    from autocompress.sweep.run import run_night

    sweep, console = load_sweep(file), console_of(stderr=as_json)
    _check_writable(junit, markdown)
    found = _findings(sweep, run_night(sweep, runs, _Lines(console), resume=resume))
    if junit is not None:
        _write(junit, summary.junit(found))
    if markdown is not None:
        _write(markdown, summary.markdown(found))
    if as_json:
        print_json(summary.document(found))
    else:
        _print(console, found)
    raise typer.Exit(found.exit_code)


@app.command("accept")
@guarded
def accept(
    file: File,
    night: Annotated[int | None, typer.Option(help="Which night; default: the last.", min=1)] = None,
    runs: Runs = DEFAULT_RUNS,
) -> None:
    """Take a night as what later nights are compared with."""
    from autocompress.specs import load_sweep
    from autocompress.sweep.night import Nights

    sweep = load_sweep(file)
    accepted = Nights(runs, sweep.name).accept(night)
    files = sum(len(cell.front) for cell in accepted.cells)
    typer.echo(
        f"night {accepted.number} of sweep {sweep.name} is accepted: {files} files in {len(accepted.cells)} cells"
    )


def _findings(sweep: Sweep, outcome: Outcome) -> Findings:
    from autocompress.sweep import verdict
    from autocompress.sweep.summary import Findings

    night, nights = outcome.night, outcome.nights
    earlier = [nights.night(number) for number in nights.numbers() if number < night.number]
    same = [each for each in reversed(earlier) if each.accepted == night.accepted and each.accepted is not None]
    found = verdict.with_history(verdict.verdicts(night, sweep.rules), same, sweep.rules)
    return Findings(
        night=night,
        verdicts=found,
        events=verdict.events([*earlier, night], sweep.rules),
        exit_code=verdict.exit_code(night, found),
    )


def _print(console: Console, found: Findings) -> None:
    from rich.text import Text

    from autocompress.sweep import summary

    styles = {"worse": "red", "better": "green", "unknown": "yellow"}
    for each in found.verdicts:
        if each.verdict in styles:
            line = Text(f"{each.verdict}: {summary.sentence(each)}", style=styles[each.verdict])
            console.print(line, soft_wrap=True)
    for event in found.events:
        console.print(Text(f"step {summary.event_sentence(event)}"), soft_wrap=True)
    console.print(Text(summary.headline(found), style="bold"), soft_wrap=True)


class _Lines:
    """What the cells say, a line each; lines about trials at most every ten seconds a cell."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._shown_s: dict[str, float] = {}

    def __call__(self, cell: str, line: str) -> None:
        import time

        from rich.text import Text

        now_s = time.monotonic()
        if line.startswith("trial ") and now_s - self._shown_s.get(cell, 0.0) < 10.0:
            return
        self._shown_s[cell] = now_s
        self._console.print(Text(f"{cell}: {line}"), soft_wrap=True)


def _check_writable(*paths: Path | None) -> None:
    """AutocompressError before the night, not after it, where a summary cannot be written."""
    from autocompress.errors import AutocompressError

    for path in paths:
        if path is not None and not path.resolve().parent.is_dir():
            raise AutocompressError(
                f"'{path}' cannot be written: there is no folder {path.resolve().parent}; make it first"
            )


def _write(path: Path, text: Any) -> None:
    from autocompress.files import write_whole

    write_whole(path, text.encode())
