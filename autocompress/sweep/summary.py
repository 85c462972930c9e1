"""A night in words: Markdown for a CI job's page, JUnit XML, and the document for machines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any
from xml.etree import ElementTree

from autocompress.report.units import EXTRAPOLATED
from autocompress.sweep.night import CellNight, Night
from autocompress.sweep.verdict import Event, Verdict

_MARKS = {"worse": "❌", "better": "✅", "same": "➖", "unknown": "❔"}
_NAMES = {
    "latency_ms": "latency",
    "accuracy": "metric",
    "file_bytes": "file size",
    "download_bytes": "download size",
    "peak_memory_bytes": "peak memory",
    "hypervolume": "hypervolume",
    "build": "build",
    "artifact": "stored file",
    "cell": "the whole cell",
}


Words = Mapping[tuple[str, str], str]


@dataclass(frozen=True, kw_only=True)
class Findings:
    """A night, what its comparisons came to, and the steps over all nights. `words`: what files are called, by cell and
    by what a comparison calls them; `causes`: what is another than in the accepted night, by cell."""

    night: Night
    verdicts: tuple[Verdict, ...]
    events: tuple[Event, ...]
    exit_code: int
    words: Words = field(default_factory=dict)
    causes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def headline(found: Findings) -> str:
    """The night in one line."""
    night, counts = found.night, Counter(each.verdict for each in found.verdicts)
    if night.accepted is None:
        said = "no accepted night to compare with yet; accept one with: autocompress sweep accept FILE.yaml"
    else:
        said = ", ".join(f"{counts[name]} {name}" for name in ("worse", "better", "same", "unknown") if counts[name])
        said = f"against night {night.accepted}: {said or 'nothing compared'}"
    states = Counter(cell.state for cell in night.cells)
    missing = "".join(f", {states[state]} {state}" for state in ("away", "failed", "late") if states[state])
    return f"night {night.number} of sweep {night.sweep}: {states['done']} cells done{missing}; {said}"


def markdown(found: Findings) -> str:
    """The page of a night: what is worse first, then the cells, then the steps."""
    lines = [f"## {_cell(headline(found))}", ""]
    shown = [each for each in found.verdicts if each.verdict != "same"]
    for each in sorted(shown, key=lambda v: ("worse", "better", "unknown").index(v.verdict)):
        lines.append(f"- {_MARKS[each.verdict]} **{each.verdict}** {_cell(sentence(each, found.words))}")
    for name, why in found.causes.items():
        if any(each.cell == name for each in shown):
            lines += [f"- {_cell(name)}, what is another: {_cell(line)}" for line in why]
    lines += ["", "| cell | state | trials | hypervolume | canary first, last | time |", "|---|---|--:|--:|--:|--:|"]
    for cell in found.night.cells:
        canary = "" if cell.canary_ms is None else ", ".join(f"{median(each):.4g} ms" for each in cell.canary_ms)
        volume = "" if cell.hypervolume is None else f"{cell.hypervolume:.4f}"
        state = cell.state if cell.reason is None else f"{cell.state}: {cell.reason}"
        state += _latencies(cell)
        lines.append(
            f"| {_cell(cell.cell)} | {_cell(state)} | {cell.trials} | {volume} | {canary} | {cell.elapsed_s:.0f} s |"
        )
    if found.events:
        lines += ["", "Steps over the nights:", ""]
        lines += [f"- {_cell(event_sentence(event))}" for event in found.events]
    return "\n".join(lines) + "\n"


def _latencies(cell: CellNight) -> str:
    """What must be said of a cell's latencies where none was measured."""
    if cell.latency_source != "modelled":
        return ""
    rough = any(each.extrapolated for each in cell.front)
    return f"; latencies modelled, {EXTRAPOLATED}" if rough else "; latencies modelled"


def sentence(each: Verdict, words: Words | None = None) -> str:
    """One comparison in words, without its verdict; `words` say what files are called."""
    check = each.check
    named = words or {}
    file = named.get((each.cell, check.file), check.file)
    parts = [f"{each.cell} {file}: {named.get((each.cell, check.metric), _NAMES[check.metric])}"]
    if (
        check.before is not None
        and check.after is not None
        and check.effect is not None
        and check.metric not in ("build", "artifact")
    ):
        parts.append(f"{check.before:.5g} → {check.after:.5g} ({change(each)})")
    if each.p is not None and check.p is not None:
        parts.append(f"p = {each.p:.2g} of all comparisons" if each.p > 0 else "certain")
    if check.pairs:
        parts.append(f"{check.pairs} pairs")
    if each.note is not None:
        parts.append(each.note)
    if each.since is not None:
        parts.append(f"since night {each.since}")
    return ", ".join(parts)


def change(each: Verdict) -> str:
    """By how much, with the interval: in percent, for the metric and the hypervolume as more or less is better."""
    effect, check = each.check.effect or 0.0, each.check
    if check.metric == "accuracy":
        shown = f"{abs(effect):.4f}" if abs(effect) >= 0.0005 else f"{abs(effect):.2g}"
        return f"{shown} worse" if effect > 0 else f"{shown} better" if effect < 0 else "equal"
    sign = -1 if check.metric == "hypervolume" else 1
    ends = (
        ""
        if check.interval is None or check.interval[0] == check.interval[1]
        else ("; " + " to ".join(f"{100 * end:+.1f} %" for end in sorted(sign * end for end in check.interval)))
    )
    return f"{100 * sign * effect:+.1f} %{ends}"


def event_sentence(event: Event) -> str:
    """A step in words."""
    span = (
        f"since night {event.night}" if event.until is None else f"from night {event.night} to night {event.until - 1}"
    )
    others = f" and {len(event.series) - 3} more" if len(event.series) > 3 else ""
    return f"{span}: {100 * event.change:+.1f} % in {'; '.join(event.series[:3])}{others}"


def document(found: Findings) -> dict[str, Any]:
    """Everything as plain data for JSON."""
    night = found.night
    return {
        "schema": 1,
        "sweep": night.sweep,
        "night": night.number,
        "began": night.began,
        "ended": night.ended,
        "accepted": night.accepted,
        "exit_code": found.exit_code,
        "verdicts": [
            {"cell": each.cell, "verdict": each.verdict, "p_adjusted": each.p, "since": each.since}
            | asdict(each.check)
            | {"note": each.note}
            for each in found.verdicts
        ],
        "events": [asdict(event) for event in found.events],
        "cells": [
            {
                "cell": cell.cell,
                "state": cell.state,
                "reason": cell.reason,
                "study": cell.study,
                "trials": cell.trials,
                "metric": cell.metric,
                "latency_source": cell.latency_source,
                "hypervolume": cell.hypervolume,
                "canary_ms": cell.canary_ms,
                "elapsed_s": cell.elapsed_s,
                "versions": cell.versions,
                "causes": list(found.causes.get(cell.cell, ())),
                "front": [
                    {
                        "trial": each.trial,
                        "accuracy": each.accuracy,
                        "latency_ms": each.latency_ms,
                        "extrapolated": each.extrapolated,
                        "file_bytes": each.file_bytes,
                        "download_bytes": each.download_bytes,
                        "sha256": each.sha256,
                        "artifact": each.artifact,
                    }
                    for each in cell.front
                ],
            }
            for cell in night.cells
        ],
    }


def junit(found: Findings) -> str:
    """JUnit XML: a suite a cell, a test a comparison; worse is a failure, unknown skipped, a failed cell an error."""
    root = ElementTree.Element("testsuites", name=_xml(f"{found.night.sweep} night {found.night.number}"))
    for cell in found.night.cells:
        rows = [each for each in found.verdicts if each.cell == cell.cell]
        counts = Counter(each.verdict for each in rows)
        lost = cell.state in ("away", "late")
        suite = ElementTree.SubElement(
            root,
            "testsuite",
            name=_xml(cell.cell),
            tests=str(len(rows) + 1),
            failures=str(counts["worse"]),
            errors=str(int(cell.state == "failed")),
            skipped=str(counts["unknown"] + int(lost)),
            time=f"{cell.elapsed_s:.3f}",
        )
        case = ElementTree.SubElement(
            suite, "testcase", classname=_xml(cell.cell), name="cell", time=f"{cell.elapsed_s:.3f}"
        )
        if cell.state != "done":
            kind = "error" if cell.state == "failed" else "skipped"
            ElementTree.SubElement(case, kind, message=_xml(f"{cell.state}: {cell.reason}"))
        for each in rows:
            _add_case(suite, each, found.words)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _add_case(suite: ElementTree.Element, each: Verdict, words: Words) -> None:
    name = f"{each.check.file} {_NAMES[each.check.metric]}"
    case = ElementTree.SubElement(suite, "testcase", classname=_xml(each.cell), name=_xml(name), time="0")
    kind = {"worse": "failure", "unknown": "skipped"}.get(each.verdict)
    if kind is not None:
        ElementTree.SubElement(case, kind, message=_xml(sentence(each, words)))
    else:
        ElementTree.SubElement(case, "system-out").text = _xml(f"{each.verdict}: {sentence(each, words)}")


def _xml(text: str) -> str:
    """Without what XML 1.0 cannot hold."""
    return "".join(c if c in "\t\n" or ord(c) >= 32 else "?" for c in text)


def _cell(text: str) -> str:
    """Text in a Markdown table or list: nothing in it is taken for markup or HTML."""
    for sign, safe in (("&", "&amp;"), ("<", "&lt;"), ("|", "\\|"), ("`", "\\`"), ("*", "\\*"), ("_", "\\_")):
        text = text.replace(sign, safe)
    return " ".join(text.split())
