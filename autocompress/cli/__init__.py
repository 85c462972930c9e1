"""The command line: arguments in, one call, exit code out. Whatever is heavy is imported inside the handlers."""

from __future__ import annotations

from typing import Annotated

import typer

from autocompress import interrupts
from autocompress.cli import device, screen, sweep
from autocompress.cli.defaults import default_map as own_defaults
from autocompress.cli.finetune import finetune
from autocompress.cli.leaderboard import leaderboard
from autocompress.cli.measure import measure
from autocompress.cli.options import Quiet, Verbose, faults_told
from autocompress.cli.search import search
from autocompress.cli.studies import compare, list_studies, rm
from autocompress.cli.study import export, report
from autocompress.cli.worker import worker

app = typer.Typer(
    name="autocompress",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    help="Search per-layer sparsity, bit-width and cluster count; get the Pareto front as verified .tflite files.",
)
for _command in (search, report, export, measure, finetune, leaderboard, worker):
    app.command()(_command)
app.command("list")(list_studies)
app.command()(compare)
app.command()(rm)
app.add_typer(device.app, name="device")
app.add_typer(sweep.app, name="sweep")


@app.callback(invoke_without_command=True)
@faults_told
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    screen.listen(quiet=quiet, verbose=verbose)
    context.call_on_close(screen.silence)
    context.default_map = own_defaults(context)
    if version:
        from autocompress import __version__

        typer.echo(__version__)
        raise typer.Exit


def main() -> None:
    """The console script."""
    interrupts.listen()
    app(prog_name="autocompress")
