"""`autocompress list`, `compare` and `rm`: the studies of a runs folder."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from autocompress.cli.options import (
    DEFAULT_RUNS,
    Json,
    Runs,
    Storage,
    console_of,
    guarded,
    print_json,
    print_table,
    study_names,
)
from autocompress.errors import AutocompressError


@guarded
def list_studies(runs: Runs = DEFAULT_RUNS, storage: Storage = None, as_json: Json = False) -> None:
    """List the studies: what was searched where, how far they are, and what they would ship."""
    from autocompress.report.studies import list_document, list_table
    from autocompress.search.storage.all_studies import read_all

    records, faults = read_all(runs, storage)
    if as_json:
        print_json(list_document(records, [(fault.study, fault.reason) for fault in faults]))
    elif records:
        print_table(console_of(), list_table(records))
    for fault in faults:
        typer.echo(f"left out: {fault.study}: {fault.reason}", err=True)
    if faults:
        raise typer.Exit(1)


@guarded
def compare(
    first: Annotated[str, typer.Argument(help="Study name.", autocompletion=study_names)],
    second: Annotated[str, typer.Argument(help="Another study's name.", autocompletion=study_names)],
    runs: Runs = DEFAULT_RUNS,
    storage: Storage = None,
    as_json: Json = False,
) -> None:
    """Compare two studies: what they were made with, and what each of them found."""
    from autocompress.report.studies import compare_document, compare_tables, not_comparable
    from autocompress.report.units import text
    from autocompress.search.storage.study_records import load_study, read_record

    one, other = (read_record(load_study(runs, name, storage)) for name in (first, second))
    if as_json:
        print_json(compare_document(one, other))
        return
    console = console_of()
    for table in compare_tables(one, other):
        print_table(console, table)
    for line in not_comparable(one, other):
        console.print(text(console, line))


@guarded
def rm(
    studies: Annotated[list[str] | None, typer.Argument(help="Names of studies.", autocompletion=study_names)] = None,
    runs: Runs = DEFAULT_RUNS,
    storage: Storage = None,
    unreferenced: Annotated[
        bool, typer.Option("--unreferenced", help="Remove files of candidates that no study and no night names.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Remove studies with all their files, or the files of nobody. Asks first, and never touches a running search."""
    from autocompress.search.storage import removal
    from autocompress.search.storage.study_records import load_study
    from autocompress.sweep.night import artifacts_of_nights

    if bool(studies) == unreferenced:
        raise AutocompressError("nothing to remove is named; give STUDY ..., or --unreferenced")
    if unreferenced:
        found = removal.unreferenced(runs, storage, artifacts_of_nights(runs))
        for line in found.left:
            typer.echo(f"left as it is: {line}", err=True)
        if found.paths and _agreed(f"remove {len(found.paths)} files of nobody, {_megabytes(found.size_bytes)}", yes):
            removal.remove(found)
        typer.echo(f"{len(found.paths)} files of nobody removed" if found.paths else "every file is some study's")
        return
    names = list(dict.fromkeys(studies or ()))
    compared = {Path(path).parts[0]: sweep for path, sweep in artifacts_of_nights(runs, accepted=True).items()}
    for name in names:
        load_study(runs, name, storage)
        if name in compared:
            raise AutocompressError(
                f"sweep '{compared[name]}' compares its nights with files of study '{name}'; accept another "
                "night first, with: autocompress sweep accept"
            )
    _agreed(f"remove {', '.join(names)} with all files", yes)
    for name in names:
        size_bytes = removal.remove_study(runs, name, storage)
        typer.echo(f"study {name} removed, {_megabytes(size_bytes)}")


def _agreed(what: str, yes: bool) -> bool:
    """True, or the end of the command: nothing is removed without a yes."""
    if not yes and not sys.stdin.isatty():
        raise AutocompressError(f"there is nobody to ask: {what}? Add --yes; nothing was removed")
    if not yes:
        typer.confirm(f"{what}?", abort=True, err=True)
    return True


def _megabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:,.1f} MB"
