"""What a night came to: its verdicts, steps, causes and names; and its page, with a report for each cell's study."""

from __future__ import annotations

import time
from pathlib import Path

from autocompress.errors import AutocompressError
from autocompress.files import write_whole
from autocompress.report.html_study import study_page
from autocompress.search.storage.study_records import load_study, read_record
from autocompress.specs import VerdictRules
from autocompress.sweep import verdict
from autocompress.sweep.causes import causes, names_of
from autocompress.sweep.night import CellNight, Night, Nights
from autocompress.sweep.page import night_page
from autocompress.sweep.summary import Findings


def findings(night: Night, nights: Nights, rules: VerdictRules) -> Findings:
    """A finished night beside the earlier ones of its sweep."""
    earlier = [nights.night(number) for number in nights.numbers() if number < night.number]
    same = [each for each in reversed(earlier) if each.accepted == night.accepted and each.accepted is not None]
    found = verdict.with_history(verdict.verdicts(night, rules), same, rules)
    accepted = next((each for each in earlier if each.number == night.accepted), None)
    cells = {} if accepted is None else {cell.cell: cell for cell in accepted.cells if cell.state == "done"}
    return Findings(
        night=night,
        verdicts=found,
        events=verdict.events([*earlier, night], rules),
        exit_code=verdict.exit_code(night, found),
        words=names_of(night, accepted),
        causes={cell.cell: causes(cell, cells.get(cell.cell), rules) for cell in night.cells if cell.state == "done"},
    )


def write_page(found: Findings, runs: Path, path: Path) -> None:
    """Write the page of a night, and beside it the report of each cell's study. AutocompressError where that cannot
    be done."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        reports = {cell.cell: name for cell in found.night.cells if (name := _report(cell, runs, path.parent))}
        write_whole(path, night_page(found, runs, path.parent, reports).encode())
    except OSError as fault:
        raise AutocompressError(f"cannot write {path}: {fault.strerror}; give another place with --html") from fault


def _report(cell: CellNight, runs: Path, folder: Path) -> str | None:
    """The name of the written report of a cell's study; None where it has none."""
    if cell.study is None or cell.state != "done":
        return None
    record = read_record(load_study(runs, cell.study, None))
    options = [] if runs == Path("runs") else ["--runs", str(runs)]
    name = f"{cell.cell}.html"
    write_whole(folder / name, study_page(record, ops=[], options=options, written_s=time.time()).encode())
    return name
