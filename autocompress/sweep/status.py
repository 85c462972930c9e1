"""How far a sweep is: the night that runs or was cut, the last one, and all sweeps of a runs folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autocompress.errors import AutocompressError
from autocompress.report.tables import Table
from autocompress.search.workers.locks import locked
from autocompress.specs import Sweep
from autocompress.sweep import summary
from autocompress.sweep.findings import findings
from autocompress.sweep.night import Nights
from autocompress.sweep.plan import cells


def status_document(sweep: Sweep, runs: Path) -> dict[str, Any]:
    """The document of `sweep status --json`. `open`: the night that is not finished, None where there is none;
    `running`: whether a process is at it."""
    nights = Nights(runs, sweep.name)
    accepted, number = nights.accepted(), nights.open_number()
    last = nights.night(nights.numbers()[-1]) if nights.numbers() else None
    return {
        "schema": 1,
        "sweep": sweep.name,
        "running": is_running(nights.folder),
        "accepted": None if accepted is None else accepted.number,
        "open": None if number is None else {"night": number, "cells": _open_cells(sweep, nights)},
        "last": None if last is None else _night(summary.headline(findings(last, nights, sweep.rules)), last),
    }


def _open_cells(sweep: Sweep, nights: Nights) -> dict[str, str]:
    """The state of each cell of the open night: that which it has ended with, `begun`, or `to come`."""
    found = {}
    for cell in cells(sweep):
        ended, log = nights.cell(cell.name), nights.open_folder / f"{cell.name}.log"
        found[cell.name] = ended.state if ended is not None else "begun" if log.exists() else "to come"
    return found


def _night(headline: str, night: Any) -> dict[str, Any]:
    return {"night": night.number, "began": night.began, "ended": night.ended, "headline": headline}


def status_lines(found: Mapping[str, Any]) -> list[str]:
    """The status in words."""
    opened, last, accepted = found["open"], found["last"], found["accepted"]
    lines = [f"sweep {found['sweep']}: {'running' if found['running'] else 'not running'}"]
    if opened is not None:
        counts = ", ".join(f"{count} {state}" for state, count in Counter(opened["cells"].values()).items())
        remedy = "" if found["running"] else "; the same command goes on with it"
        lines.append(f"night {opened['night']} is not finished: {counts}{remedy}")
        lines += [f"  {state:8}  {cell}" for cell, state in opened["cells"].items()]
    lines.append("no night is finished yet" if last is None else f"{last['headline']} ({last['ended']})")
    lines.append("no night is accepted" if accepted is None else f"compared with night {accepted}")
    return lines


def sweeps_document(runs: Path) -> dict[str, Any]:
    """The document of `sweep list --json`; AutocompressError where there is no sweep."""
    folders = sorted(path for path in (runs / "sweeps").glob("*") if path.is_dir())
    if not folders:
        raise AutocompressError(f"there is no sweep in {runs}; run a night with: autocompress sweep FILE.yaml")
    return {"schema": 1, "sweeps": [_listed(Nights(runs, folder.name), folder) for folder in folders]}


def _listed(nights: Nights, folder: Path) -> dict[str, Any]:
    numbers, accepted = nights.numbers(), nights.accepted()
    last = nights.night(numbers[-1]) if numbers else None
    page = folder / "index.html"
    return {
        "sweep": folder.name,
        "nights": len(numbers),
        "last": None if last is None else last.ended,
        "cells": None if last is None else dict(Counter(cell.state for cell in last.cells)),
        "accepted": None if accepted is None else accepted.number,
        "running": is_running(folder),
        "page": str(page) if page.is_file() else None,
    }


def sweeps_table(found: Mapping[str, Any]) -> Table:
    """The sweeps, a line each."""
    lines = tuple(
        (
            each["sweep"],
            str(each["nights"]),
            ", ".join(f"{count} {state}" for state, count in (each["cells"] or {}).items()) or "-",
            (each["last"] or "-")[:16].replace("T", " "),
            str(each["accepted"] or "-"),
            "yes" if each["running"] else "no",
        )
        for each in found["sweeps"]
    )
    header = ("sweep", "nights", "cells of the last", "last night", "accepted", "running")
    return Table(title=f"{len(lines)} sweeps", header=header, lines=lines, right=("nights", "accepted"))


def is_running(folder: Path) -> bool:
    """Whether a process holds the sweep."""
    if not (folder / "lock").exists():
        return False
    try:
        with locked(folder):
            return False
    except AutocompressError:
        return True
