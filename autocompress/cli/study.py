"""`autocompress report` and `autocompress export`: what a study holds."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autocompress.cli.options import (
    DEFAULT_RUNS,
    Json,
    Runs,
    Storage,
    StudyName,
    console_of,
    guarded,
    print_json,
    read_json,
    write_text,
)
from autocompress.errors import AutocompressError

if TYPE_CHECKING:
    from rich.console import Console

    from autocompress.records.study import StudyRecord


@guarded
def report(
    study: StudyName,
    runs: Runs = DEFAULT_RUNS,
    storage: Storage = None,
    as_json: Json = False,
    html: Annotated[
        Path | None, typer.Option("--html", help="Write an interactive page instead; one file, no network.")
    ] = None,
    explain: Annotated[
        str | None, typer.Option(help="Say why this layer of the knee is as it is: conv_2d_3, or your own name of it.")
    ] = None,
    ops: Annotated[
        list[Path] | None, typer.Option(help="With --html: a document of 'measure --json' of a file of this study.")
    ] = None,
) -> None:
    """Show a study's front. Exit code 1 where the file of a point has changed since: it is named and left out."""
    from autocompress.search.storage.artifacts import without_altered
    from autocompress.search.storage.study_records import load_study, read_record

    if explain is not None and (as_json or html is not None):
        raise AutocompressError("--explain prints lines; leave --json and --html out")
    if ops and html is None:
        raise AutocompressError("--ops belongs to the page; give --html FILE too")
    record, left_out = without_altered(read_record(load_study(runs, study, storage)), runs)
    if explain is not None:
        from autocompress.report.explain import explain_lines
        from autocompress.report.units import text as plain

        console = console_of(stderr=False)
        for line in explain_lines(record, explain):
            console.print(plain(console, line), soft_wrap=True)
        return
    if html is not None:
        from autocompress.report.html_study import study_page

        measured = [read_json(path) for path in ops or ()]
        text = study_page(record, ops=measured, options=found_by(runs, storage), written_s=time.time())
        write_text(html, text)
        typer.echo(str(html), err=as_json)
    if html is None or as_json:
        show(record, console_of(stderr=as_json), runs, storage, as_json)
    for line in left_out:
        typer.echo(line, err=True)
    if left_out:
        raise typer.Exit(1)


@guarded
def export(
    study: StudyName,
    pick: Annotated[str, typer.Option(help="knee, fastest, smallest, best or a trial number.")] = "knee",
    constraint: Annotated[
        list[str] | None,
        typer.Option(help="Pick within bounds: 'flash<=60KB', 'accuracy>=float-1 point'; may be repeated."),
    ] = None,
    to: Annotated[Path, typer.Option("--to", "--out", help="Folder to write into.")] = Path(),
    formats: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            help="Beside the .tflite: c (a C array for microcontrollers) or android (a second .tflite with metadata); "
            "may be repeated.",
        ),
    ] = None,
    licence: Annotated[str | None, typer.Option(help="Licence of the model, for its card.")] = None,
    normalise: Annotated[
        tuple[float, float] | None,
        typer.Option(help="MEAN STD of the inputs, for Android's metadata: the app feeds (value - MEAN) / STD."),
    ] = None,
    runs: Runs = DEFAULT_RUNS,
    storage: Storage = None,
) -> None:
    """Write one candidate of a study as a bundle: the .tflite, its .gz for download, model card, predict.py, verify.py.

    Standard output names the .tflite, the .gz and the JSON card, a line each; the rest is named on standard error."""
    from autocompress.export.bundle import ExportOptions, check_options, write_bundle
    from autocompress.records.constraint import parse_constraint
    from autocompress.records.front import front_of
    from autocompress.search.storage.stored_specification import with_study
    from autocompress.search.storage.study_records import load_study, read_record

    options = ExportOptions(formats=tuple(formats or ("tflite",)), licence=licence, normalisation=normalise)
    check_options(options)
    loaded = load_study(runs, study, storage)
    record = read_record(loaded)
    bounds = [parse_constraint(text, compiled=record.tells_flash) for text in constraint or ()]
    written = write_bundle(record, front_of(record).pick(pick, bounds), runs, to, with_study(options, loaded))
    for path in (written.model, written.packed, written.card):
        typer.echo(str(path))
    for path in written.others:
        typer.echo(f"also {path}", err=True)
    for note in written.notes:
        typer.echo(f"note: {note}", err=True)


def found_by(runs: Path, storage: str | None) -> list[str]:
    """What a command needs to find the same studies; a storage's password is left out."""
    from autocompress.search.storage.study_records import without_password

    options = [] if runs == DEFAULT_RUNS else ["--runs", str(runs)]
    return options + ([] if storage is None else ["--storage", without_password(storage)])


def show(record: StudyRecord, console: Console, runs: Path, storage: str | None, as_json: bool) -> None:
    from autocompress.report import ship, study_document, terminal, units
    from autocompress.report.importance import advice_lines, importance_lines

    if as_json:
        print_json(study_document.document(record) | {"ship": ship.shipped(record, found_by(runs, storage))})
        return
    card = ship.shipped(record, found_by(runs, storage))
    if card is not None:
        for n, (label, said) in enumerate(ship.lines(card, record.metric_scale)):
            console.print(units.text(console, f"{label:<10} {said}", "" if n else "bold"), soft_wrap=True)
        console.print()
    terminal.print_front(console, record, runs=str(runs), options=found_by(runs, storage))
    for line in (*importance_lines(record), *advice_lines(record)):
        console.print(units.text(console, line), soft_wrap=True)
