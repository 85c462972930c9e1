"""What a study recommends to ship: one file, what it weighs and keeps, against float and plain int8, what was traded,
what is uncertain, and the command that exports it. Pure."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from typing import Any

from autocompress.records.front import evaluated, front_of, plain_int8
from autocompress.records.kernels import BUILT_IN
from autocompress.records.noise import Figures, interval_of_difference
from autocompress.records.study import Evaluation, StudyRecord, TrialRecord
from autocompress.report import study_document
from autocompress.report.html import table
from autocompress.report.units import EXTRAPOLATED, digits, kilobytes, latency_words, score

Ends = tuple[float, float]


def shipped(record: StudyRecord, options: Sequence[str] = ()) -> dict[str, Any] | None:
    """The card of the knee of a study's front, as plain JSON data; None where the front is empty. `options`: what a
    command needs to find the study (`--runs DIR`)."""
    picks = front_of(record).picks
    return card_of(record, picks["knee"], pick="knee", options=options) if picks else None


def card_of(
    record: StudyRecord, trial: TrialRecord, *, pick: str | None = None, options: Sequence[str] = ()
) -> dict[str, Any]:
    """The card of one trial; `pick`: the name it goes by. Ratios are to the float network and to the plain int8 one;
    `latency_ci` None where no interval is known."""
    evaluation, int8 = evaluated(trial), plain_int8(record)
    command = ["autocompress", "export", record.name, "--pick", pick or str(trial.number), *options]
    to_float = _against(record, evaluation, record.baseline)
    against = None if int8 is None else {"trial": int8.number} | _against(record, evaluation, evaluated(int8))
    tested = record.test_accuracy.get(evaluation.sha256)
    card: dict[str, Any] = study_document.as_json(
        {
            "study": record.name,
            "trial": trial.number,
            "pick": pick,
            "summary": study_document.summary(evaluation.configuration),
            "sha256": evaluation.sha256,
            "artifact": evaluation.artifact,
            "flash_bytes": _flash_bytes(evaluation),
            "download_bytes": evaluation.download_bytes,
            "metric": record.metric_name,
            "split": "validation" if tested is None else "test",
            "accuracy": evaluation.accuracy if tested is None else tested,
            "accuracy_ci": evaluation.accuracy_ci if tested is None else record.test_ci.get(evaluation.sha256),
            "float_accuracy": record.baseline.accuracy
            if tested is None
            else record.test_accuracy.get(record.baseline.sha256),
            "latency_ms": evaluation.measurement.latency_ms,
            "latency_is": latency_words(evaluation.measurement),
            "to_float": to_float,
            "to_int8": against,
            "uncertain": _uncertain(record, evaluation, to_float, against),
            "command": shlex.join(command),
        }
    )
    return card


def lines(card: dict[str, Any], metric_scale: float = 1.0) -> list[tuple[str, str]]:
    """The card as (label, text), in the order to read it."""
    to_float, to_int8 = card["to_float"], card["to_int8"]
    named = f" ({card['pick']})" if card["pick"] else ""
    sizes = (
        f"{kilobytes(card['flash_bytes'])} flash (×{to_float['flash']:.2f} of float) · "
        f"{kilobytes(card['download_bytes'])} download (×{to_float['download']:.2f})"
    )
    accuracy = f"{card['metric']} {score(card['accuracy'], metric_scale)}"
    accuracy += "" if card["accuracy_ci"] is None else f" {_ends(card['accuracy_ci'], metric_scale)}"
    accuracy += f" on {card['split']} data"
    accuracy += "" if card["float_accuracy"] is None else f", float {score(card['float_accuracy'], metric_scale)}"
    known = "" if card["latency_ms"] is None else f"{_milliseconds(card['latency_ms'])} "
    latency = f"{known}{card['latency_is']}{_ratio(to_float, 'float')}"
    int8 = " · plain int8 was not tried"
    if to_int8 is not None:
        int8 = _ratio(to_int8, f"plain int8 (trial {to_int8['trial']})")
    return [
        ("Ship this", f"trial {card['trial']}{named} of {card['study']}: {card['summary']}"),
        ("size", sizes),
        ("accuracy", accuracy),
        ("latency", f"{latency}{int8}"),
        ("traded", f"{_traded(to_float, 'float', metric_scale)}"),
        *([] if to_int8 is None else [("", _traded(to_int8, "plain int8", metric_scale))]),
        *(("uncertain" if n == 0 else "", line) for n, line in enumerate(card["uncertain"])),
        ("file", card["artifact"]),
        ("export", card["command"]),
    ]


def section(cards: Sequence[tuple[dict[str, Any], float]]) -> str:
    """The cards, each with its metric's scale, as a section of a page; nothing where there are none."""
    if not cards:
        return ""
    tables = []
    for card, metric_scale in cards:
        first, *rest = lines(card, metric_scale)
        tables.append(table(("", first[1]), rest, f"{first[0]}: {card['study']}"))
    return f'<section id="ship" aria-labelledby="ship-h"><h2 id="ship-h">Ship this</h2>{"".join(tables)}</section>'


def _against(record: StudyRecord, evaluation: Evaluation, other: Evaluation) -> dict[str, Any]:
    ratio, ends = latency_ratio(record, evaluation, other)
    own = evaluation.accuracy - other.accuracy
    return {
        "accuracy": own,
        "accuracy_ci": evaluation.accuracy_delta_ci if other is record.baseline else None,
        "latency": ratio,
        "latency_ci": ends,
        "download": evaluation.download_bytes / other.download_bytes,
        "flash": _flash_bytes(evaluation) / _flash_bytes(other),
    }


def _flash_bytes(evaluation: Evaluation) -> int:
    """What lies on the device: as its compiler has it, else the file."""
    return evaluation.measurement.flash_bytes or evaluation.file_bytes


def latency_ratio(record: StudyRecord, evaluation: Evaluation, other: Evaluation) -> tuple[float | None, Ends | None]:
    """The latency of one candidate as a share of another's, by the ratios to the float network interleaved with each,
    and its 95 % interval where both were measured; None where it is not known."""
    if evaluation.measurement.latency_ms is None or other.measurement.latency_ms is None:
        return None, None
    figures = Figures(
        [evaluation, other], [record.baseline] * 2, higher_is_better=record.higher_is_better, size=record.size
    )
    column = figures.column("latency")
    ratio = math.exp(column.values[0] - column.values[1])
    if other is record.baseline:
        return ratio, evaluation.measurement.ratio_ci
    if {evaluation.measurement.latency_source, other.measurement.latency_source} != {"measured"}:
        return ratio, None
    low, high = interval_of_difference(column, 0, 1)
    return ratio, (math.exp(low), math.exp(high))


def _uncertain(
    record: StudyRecord, evaluation: Evaluation, to_float: dict[str, Any], to_int8: dict[str, Any] | None
) -> list[str]:
    """What is not known of the recommended file, a line each."""
    measured, found = evaluation.measurement, []
    if evaluation.sha256 not in record.test_accuracy:
        found.append(f"{record.metric_name} on test data was not computed: the validation value was selected on")
    ends = to_float["accuracy_ci"]
    if ends is not None and ends[0] <= 0 <= ends[1]:
        found.append(f"validation {record.metric_name} cannot be told from the float network's")
    if measured.latency_source == "modelled":
        unknown = EXTRAPOLATED if measured.extrapolated else latency_words(measured).removeprefix("modelled ")
        found.append(f"the latency is modelled ({unknown}): measure it with --host before it decides")
    if measured.latency_source == "compiled":
        found.append("latency and flash are the estimate of the device's compiler, not measured")
    if measured.doubtful:
        found.append("the latency is doubtful: the float network beside it drifted by more than 5 %")
    for other, name in ((to_float, "the float network's"), (to_int8, "the plain int8 file's")):
        ends = None if other is None else other["latency_ci"]
        if ends is not None and ends[0] <= 1 <= ends[1]:
            found.append(f"the latency cannot be told from {name}")
    where = record.runs_where(evaluation.configuration) or {}
    outside = [layer for layer, place in where.items() if place == BUILT_IN]
    if outside:
        found.append(f"built-in kernels, which differ between runtimes, run {', '.join(outside[:4])}")
    return found


def _traded(against: dict[str, Any], name: str, metric_scale: float) -> str:
    ends = against["accuracy_ci"]
    loss = f"validation {score(against['accuracy'], metric_scale, '+')}"
    loss += "" if ends is None else f" {_ends(ends, metric_scale, '+')}"
    latency = "" if against["latency"] is None else f", {_percent(against['latency'])} latency"
    download, flash = _percent(against["download"]), _percent(against["flash"])
    return f"{loss} for {download} download, {flash} flash{latency} against {name}"


def _ratio(against: dict[str, Any], name: str) -> str:
    if against["latency"] is None:
        return ""
    ends = against["latency_ci"]
    return f" · ×{against['latency']:.2f} of {name}" + ("" if ends is None else f" [{ends[0]:.2f}, {ends[1]:.2f}]")


def _percent(share: float) -> str:
    return f"{100 * (share - 1):+.0f} %"


def _milliseconds(latency_ms: float) -> str:
    return f"{digits(latency_ms)} ms" if latency_ms >= 1 else f"{digits(1000 * latency_ms)} µs"


def _ends(ends: Sequence[float], metric_scale: float, sign: str = "") -> str:
    return f"[{score(ends[0], metric_scale, sign)}, {score(ends[1], metric_scale, sign)}]"
