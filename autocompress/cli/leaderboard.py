"""`autocompress leaderboard`: all studies beside each other."""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from autocompress.cli.options import (
    DEFAULT_RUNS,
    Runs,
    Storage,
    console_of,
    guarded,
    print_json,
    print_table,
    write_text,
)
from autocompress.errors import unknown_name

if TYPE_CHECKING:
    from autocompress.report.leaderboard import Point

FORMATS = ("table", "markdown", "csv", "json")


@contextmanager
def _no_collection() -> Iterator[None]:
    """Without looking for cycles: what is read of the studies stays to the end, and walking it again and again takes a
    quarter of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@guarded
@_no_collection()
def leaderboard(
    runs: Runs = DEFAULT_RUNS,
    storage: Storage = None,
    form: Annotated[str, typer.Option("--format", help="table, markdown, csv or json.")] = "table",
    html: Annotated[
        Path | None, typer.Option("--html", help="Write a page that needs no network, and the other formats, there.")
    ] = None,
    constraint: Annotated[
        list[str] | None, typer.Option(help="As 'accuracy>=float-1 point' or 'latency_ms<=8'; may be repeated.")
    ] = None,
) -> None:
    """Show all studies: per task and device the front, the best by constraint, and how the studies rank."""
    from autocompress.records.constraint import parse_constraint
    from autocompress.report.leaderboard import groups_of
    from autocompress.report.leaderboard_text import document
    from autocompress.search.storage.all_studies import read_all

    if form not in FORMATS:
        raise unknown_name("format", form, FORMATS)
    limits = [parse_constraint(text) for text in constraint or ()]
    records, faults = read_all(runs, storage)
    damaged: dict[str, str] = {}
    groups = groups_of(records, limits, _usable(runs, damaged))
    left_out = [*((fault.study, fault.reason) for fault in faults), *sorted(damaged.items())]
    board = document(groups, left_out)
    if html is not None:
        from autocompress.report.leaderboard_html import board_page

        _write_site(html, board_page(groups, board, written_s=time.time()), board)
        typer.echo(str(html / "index.html"))
    else:
        _show(board, form)
    if left_out:
        typer.echo(f"left out: {len(left_out)}; the first: {': '.join(left_out[0])}", err=True)
        raise typer.Exit(1)


def _usable(runs: Path, damaged: dict[str, str]) -> Callable[[Point], bool]:
    """Whether the file of a point is the one that was measured; else it is put among the `damaged`."""
    from autocompress.search.storage.artifacts import altered_line, is_altered

    known: dict[str, bool] = {}

    def usable(point: Point) -> bool:
        artifact = point.evaluation.artifact
        if artifact not in known:
            known[artifact] = not is_altered(runs, point.evaluation)
        if not known[artifact]:
            name = f"study {point.record.name}, trial {point.trial.number}"
            damaged[name] = altered_line(runs, point.evaluation)
        return known[artifact]

    return usable


def _write_site(folder: Path, page: str, board: dict[str, Any]) -> None:
    from autocompress.report.leaderboard_text import csv_text, markdown, nights_csv

    write_text(folder / "index.html", page)
    write_text(folder / "leaderboard.json", json.dumps(board, indent=1, allow_nan=False) + "\n")
    write_text(folder / "leaderboard.csv", csv_text(board))
    write_text(folder / "nights.csv", nights_csv(board))
    write_text(folder / "leaderboard.md", markdown(board))


def _show(board: dict[str, Any], form: str) -> None:
    from autocompress.report.leaderboard_text import csv_text, markdown

    if form == "json":
        print_json(board)
    elif form == "table":
        _print_tables(board)
    else:
        typer.echo(csv_text(board) if form == "csv" else markdown(board), nl=False)


def _print_tables(board: dict[str, Any]) -> None:
    from autocompress.report.leaderboard_text import tables

    console = console_of()
    for found in tables(board):
        print_table(console, found)
