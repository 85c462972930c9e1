"""`autocompress sweep FILE.yaml` and `autocompress sweep accept FILE.yaml`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from autocompress.cli.options import DEFAULT_RUNS, Json, Runs, console_of, guarded, print_json, print_table

if TYPE_CHECKING:
    from rich.console import Console

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
    html: Annotated[
        Path | None, typer.Option("--html", help="Write the page there; default: index.html in the sweep's folder.")
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume/--no-resume", help="Go on with a night that was cut, or begin it again: all cells run."),
    ] = True,
    as_json: Json = False,
) -> None:
    """Run a night of a sweep, or go on with one that was cut: `sweep FILE.yaml` is enough."""
    from autocompress.specs import load_sweep
    from autocompress.sweep import summary
    from autocompress.sweep.findings import findings, write_page
    from autocompress.sweep.run import run_night

    sweep, console = load_sweep(file), console_of(stderr=as_json)
    _check_writable(junit, markdown, html)
    outcome = run_night(sweep, runs, _Lines(console), resume=resume)
    found = findings(outcome.night, outcome.nights, sweep.rules)
    page = outcome.nights.folder / "index.html" if html is None else html
    write_page(found, runs, page)
    if junit is not None:
        _write(junit, summary.junit(found))
    if markdown is not None:
        _write(markdown, summary.markdown(found))
    if as_json:
        print_json(summary.document(found))
    else:
        _print(console, found)
        console.print(f"page: {page}", markup=False, soft_wrap=True)
    raise typer.Exit(found.exit_code)


@app.command("status")
@guarded
def status(file: File, runs: Runs = DEFAULT_RUNS, as_json: Json = False) -> None:
    """Say how far the night is that runs or was cut, and what the last one came to."""
    from autocompress.specs import load_sweep
    from autocompress.sweep.status import status_document, status_lines

    sweep = load_sweep(file)
    found = status_document(sweep, runs)
    if as_json:
        print_json(found)
        return
    for line in status_lines(found):
        typer.echo(line)


@app.command("list")
@guarded
def list_sweeps(runs: Runs = DEFAULT_RUNS, as_json: Json = False) -> None:
    """List the sweeps that have nights in the runs folder."""
    from autocompress.sweep.status import sweeps_document, sweeps_table

    found = sweeps_document(runs)
    if as_json:
        print_json(found)
    else:
        print_table(console_of(), sweeps_table(found))


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


def _print(console: Console, found: Findings) -> None:
    from rich.text import Text

    from autocompress.sweep import summary

    styles = {"worse": "red", "better": "green", "unknown": "yellow"}
    for each in found.verdicts:
        if each.verdict in styles:
            line = Text(f"{each.verdict}: {summary.sentence(each, found.words)}", style=styles[each.verdict])
            console.print(line, soft_wrap=True)
    for event in found.events:
        console.print(Text(f"step {summary.event_sentence(event)}"), soft_wrap=True)
    judged = {each.cell for each in found.verdicts if each.verdict in ("worse", "better")}
    for cell, why in found.causes.items():
        for said in why if cell in judged else ():
            console.print(Text(f"why, {cell}: {said}"), soft_wrap=True)
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
