"""The morning page: a night as one HTML file without scripts, with links to studies, reports and files."""

from __future__ import annotations

import html
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from string import Template
from urllib.parse import quote

from autocompress.report.html import asset, table
from autocompress.report.units import EXTRAPOLATED, digits, kilobytes, score_alone
from autocompress.sweep import summary
from autocompress.sweep.night import CellNight, FileFigures

_ORDER = ("worse", "better", "unknown")


def night_page(found: summary.Findings, runs: Path, folder: Path, reports: Mapping[str, str]) -> str:
    """The page of a night that is written into `folder`. `reports`: cell -> the page of its study, beside this one."""
    night = found.night
    link = _Links(runs, folder)
    parts = [
        f"<header><h1>Sweep {html.escape(night.sweep)}, night {night.number}</h1>",
        f"<p>{html.escape(summary.headline(found))}</p>",
        f'<p class="soft">From {html.escape(night.began)} to {html.escape(night.ended)}.</p></header>',
        '<main id="main" tabindex="-1">',
        _changes(found),
        *(_cell(cell, found, link, reports.get(cell.cell)) for cell in night.cells),
        _steps(found),
        "</main>",
    ]
    return Template(asset("plain.html")).substitute(
        title=html.escape(f"Sweep {night.sweep}, night {night.number} - autocompress"),
        style=asset("page.css"),
        main="\n".join(parts),
    )


def anchor(path: str, text: str) -> str:
    """A link to a file by its relative path."""
    return f'<a href="{html.escape(quote(path), quote=True)}">{html.escape(text)}</a>'


class _Links:
    """Links from the page's folder to what lies below the runs folder."""

    def __init__(self, runs: Path, folder: Path) -> None:
        self._up = Path(os.path.relpath(runs.resolve(), folder.resolve())).as_posix()

    def to(self, path: str, text: str) -> str:
        return anchor(f"{self._up}/{path}", text)


def _changes(found: summary.Findings) -> str:
    """What changed, the worst first, each with the cell's reasons."""
    shown = sorted((v for v in found.verdicts if v.verdict != "same"), key=lambda v: _ORDER.index(v.verdict))
    why = {cell: "; ".join(lines) for cell, lines in found.causes.items()}
    rows = [(each.verdict, each.cell, summary.sentence(each, found.words), why.get(each.cell) or "-") for each in shown]
    return _section("changes", "What changed, and why", table(("verdict", "cell", "what", "why"), rows, "Changes"))


def _cell(cell: CellNight, found: summary.Findings, link: _Links, report: str | None) -> str:
    state = cell.state if cell.reason is None else f"{cell.state}: {cell.reason}"
    lines = [f"<p>{html.escape(state)}, {cell.trials} trials, {cell.elapsed_s:.0f} s{html.escape(_volume(cell))}.</p>"]
    if cell.canary_ms is not None:
        first, last = (f"{digits(median(each))} ms" for each in cell.canary_ms)
        lines.append(f"<p>The float network took {first} at the beginning and {last} at the end.</p>")
    if any(each.extrapolated for each in cell.front):
        lines.append(f"<p>Latencies are modelled: {html.escape(EXTRAPOLATED)}.</p>")
    elif cell.latency_source == "modelled":
        lines.append("<p>Latencies are modelled.</p>")
    places = [anchor(report, "report")] if report is not None else []
    if cell.study is not None:
        places.append(link.to(f"{cell.study}/", f"study {cell.study}"))
        lines.append(f"<p>{' · '.join(places)} · <code>autocompress report {html.escape(cell.study)}</code></p>")
    lines.append(_files(cell, found, link))
    return _section(f"cell-{cell.cell}", cell.cell, "\n".join(lines))


def _volume(cell: CellNight) -> str:
    return "" if cell.hypervolume is None else f", hypervolume {cell.hypervolume:.4f}"


def _files(cell: CellNight, found: summary.Findings, link: _Links) -> str:
    """The best files of a cell: those of its front, the most accurate first."""
    if not cell.front:
        return "<p>No file.</p>"
    metric = html.escape(cell.metric or "metric")
    order = sorted(cell.front, key=lambda f: -f.accuracy if cell.higher_is_better else f.accuracy)
    numbers = "".join(f'<th scope="col" class="number">{name}</th>' for name in (metric, "latency", "download", "file"))
    head = f'<th scope="col">best</th>{numbers}<th scope="col">which</th>'
    body = "".join(_row(file, cell, found, link, _best_of(file, cell.front, cell.higher_is_better)) for file in order)
    return (
        f'<div class="scroll wrap" tabindex="0" role="region" aria-label="Files of {html.escape(cell.cell)}"><table>'
        f"<caption>Best files</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _row(file: FileFigures, cell: CellNight, found: summary.Findings, link: _Links, best: str) -> str:
    numbers = (
        score_alone(file.accuracy, cell.metric or ""),
        f"{digits(file.latency_ms)} ms",
        kilobytes(file.download_bytes),
        kilobytes(file.file_bytes),
    )
    which = link.to(file.artifact, found.words.get((cell.cell, file.sha256[:12]), f"trial {file.trial}"))
    figures = "".join(f'<td class="number">{html.escape(each)}</td>' for each in numbers)
    return f"<tr><td>{html.escape(best)}</td>{figures}<td>{which}</td></tr>"


def _best_of(file: FileFigures, front: Sequence[FileFigures], higher_is_better: bool) -> str:
    sign = -1 if higher_is_better else 1
    bests: dict[str, list[float]] = {
        "best metric": [sign * each.accuracy for each in (file, *front)],
        "fastest": [each.latency_ms for each in (file, *front)],
        "smallest": [each.download_bytes for each in (file, *front)],
    }
    return ", ".join(name for name, (own, *others) in bests.items() if own == min(others))


def _steps(found: summary.Findings) -> str:
    items = "".join(f"<li>{html.escape(summary.event_sentence(event))}</li>" for event in found.events)
    return _section("steps", "Steps over the nights", f"<ul>{items}</ul>" if items else "<p>None.</p>")


def _section(name: str, title: str, body: str) -> str:
    safe = html.escape(name, quote=True)
    return f'<section aria-labelledby="{safe}"><h2 id="{safe}">{html.escape(title)}</h2>\n{body}\n</section>'
