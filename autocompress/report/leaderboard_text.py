"""A leaderboard as data and as text: the JSON document, CSV, Markdown, and the tables that a terminal shows too."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from typing import Any

from autocompress.records.front import complete
from autocompress.records.study import Evaluation, StudyRecord
from autocompress.report import ship, study_document
from autocompress.report.leaderboard import Group, Point, Standing
from autocompress.report.tables import Table
from autocompress.report.units import ROUGH, digits, kilobytes, latency_words, score

_CSV_GROUP = ("task", "device", "metric", "latency", "runtime", "threads", "bits", "network", "data")


def document(groups: Sequence[Group], left_out: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """The document of `leaderboard --format json`: plain data that is valid JSON. `left_out`: (what, why)."""
    found: dict[str, Any] = study_document.as_json(
        {
            "schema": 1,
            "groups": [_group(group) for group in groups],
            "left_out": [{"what": what, "reason": reason} for what, reason in left_out],
        }
    )
    return found


def _group(group: Group) -> dict[str, Any]:
    int8 = {s.record.name: s.int8 for s in group.standings}
    return dict(group.key) | {
        "higher_is_better": group.standings[0].record.higher_is_better,
        "metric_scale": group.standings[0].record.metric_scale,
        "front": [point_values(point, int8) | {"configuration": _configuration(point)} for point in group.front],
        "ship": group.knee and ship.card_of(group.knee.record, group.knee.trial),
        "best": [
            {"constraint": str(b.limit), "wanted": b.wanted, "point": b.point and point_values(b.point, int8)}
            for b in group.best
        ],
        "studies": [standing_values(standing) for standing in group.standings],
        "nights": [asdict(night) for night in group.nights],
    }


def _configuration(point: Point) -> dict[str, Any]:
    return point.evaluation.configuration.to_dict()


def point_values(point: Point, int8: Mapping[str, Evaluation | None]) -> dict[str, Any]:
    """A point with its differences to the float network and to the plain int8 one of its study: of the metric as a
    difference, else as a ratio."""
    record, evaluation = point.record, point.evaluation
    measured, reference = evaluation.measurement, int8[record.name]
    return {
        "study": record.name,
        "trial": point.trial.number,
        "accuracy": evaluation.accuracy,
        "accuracy_ci": evaluation.accuracy_ci,
        "test_accuracy": record.test_accuracy.get(evaluation.sha256),
        "test_ci": record.test_ci.get(evaluation.sha256),
        "latency_ms": measured.latency_ms,
        "latency_ci_ms": measured.latency_ci_ms,
        "latency_error": measured.latency_error,
        "latency_is": latency_words(measured),
        "extrapolated": measured.extrapolated,
        "download_bytes": evaluation.download_bytes,
        "file_bytes": evaluation.file_bytes,
        "peak_memory_bytes": measured.peak_memory_bytes,
        "energy_mj": evaluation.energy_mj,
        "to_float": _against(evaluation, record.baseline) | {"latency": _latency_ratio(record, evaluation)},
        "to_int8": None if reference is None else _against(evaluation, reference),
        "summary": study_document.words(evaluation),
        "sha256": evaluation.sha256,
        "artifact": evaluation.artifact,
    }


def _against(evaluation: Evaluation, reference: Evaluation) -> dict[str, float | None]:
    now, then = evaluation.measurement.latency_ms, reference.measurement.latency_ms
    return {
        "accuracy": evaluation.accuracy - reference.accuracy,
        "latency": None if now is None or then is None else now / then,
        "download": evaluation.download_bytes / reference.download_bytes,
    }


def _latency_ratio(record: StudyRecord, evaluation: Evaluation) -> float | None:
    """Against the baseline measured in the same minutes where there is one."""
    ratio = evaluation.measurement.ratio_to_baseline
    return _against(evaluation, record.baseline)["latency"] if ratio is None else ratio


def standing_values(standing: Standing) -> dict[str, Any]:
    """A study in its group: rank, what it found, who ran it when, with what."""
    record = standing.record
    finished = [t.finished_s for t in record.trials if t.finished_s is not None]
    return {
        "study": record.name,
        "rank": standing.rank,
        "hypervolume": standing.hypervolume,
        "on_front": standing.on_front,
        "complete_trials": len(complete(record)),
        "trials": len(record.trials),
        "wall_s": record.wall_s,
        "sampler": record.sampler,
        "seed": record.seed,
        "space": record.space,
        "objectives": record.objectives,
        "constraints": [str(constraint) for constraint in record.constraints],
        "float": _reference(record, record.baseline),
        "int8": None if standing.int8 is None else _reference(record, standing.int8),
        "int8_download_bytes": record.int8_download_bytes,
        "by": sorted({f"{run.user or 'unknown'} on {run.host or 'unknown'}" for run in record.runs}),
        "starts": len(record.runs),
        "started": _time(record.runs[0].started_s if record.runs else min(finished, default=None)),
        "last": _time(max(finished, default=None)),
        "versions": dict(record.versions),
        "steps": [asdict(step) for step in standing.steps],
    }


def _reference(record: StudyRecord, evaluation: Evaluation) -> dict[str, Any]:
    return {
        "accuracy": evaluation.accuracy,
        "test_accuracy": record.test_accuracy.get(evaluation.sha256),
        "latency_ms": evaluation.measurement.latency_ms,
        "extrapolated": evaluation.measurement.extrapolated,
        "download_bytes": evaluation.download_bytes,
        "file_bytes": evaluation.file_bytes,
    }


def _time(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%d %H:%M")


_LATENCY = {
    "measured": "measured latency",
    "modelled": "modelled latency",
    "compiled": "compiled latency",
    "none": "latency not known",
}


def group_title(group: dict[str, Any]) -> str:
    """What a group is about, in one line."""
    threads = "" if group["threads"] == "None" else f" · {group['threads']} thread(s)"
    return f"{group['task']} on {group['device']} · {_LATENCY[group['latency']]} · {group['runtime']}{threads}"


def tables(board: Mapping[str, Any]) -> list[Table]:
    """The document as tables, in the order to read them: for each group what to ship, the best, the front, the
    studies, the nights; at the end what was left out."""
    found: list[Table] = []
    for group in board["groups"]:
        title = group_title(group)
        right = (group["metric"], "test", "latency, ms", "download, KB")
        header = ("study, trial", *right, "to int8", "configuration")
        front, studies = tuple(_cells(p, group) for p in group["front"]), group["studies"]
        ranked = tuple(_study_cells(study, group["metric_scale"]) for study in studies)
        if group["ship"] is not None:
            card = tuple(ship.lines(group["ship"], group["metric_scale"]))
            found.append(Table(title=f"{title}: ship this", header=("", group["ship"]["study"]), lines=card))
        found += [
            *_best_tables(title, group, header, right),
            Table(title=f"{title}: the front", header=header, lines=front, right=right),
            Table(title=f"{title}: the studies", header=_STUDIES, lines=ranked, right=_STUDIES[2:4]),
            Table(title=f"{title}: who searched", header=_SEARCHED, lines=tuple(map(_searched_cells, studies))),
            Table(
                title=f"{title}: hypervolume of all studies by day (UTC)",
                header=("day", "hypervolume", "complete trials"),
                right=("hypervolume", "complete trials"),
                lines=tuple((n["day"], f"{n['hypervolume']:.4f}", str(n["trials"])) for n in group["nights"]),
            ),
        ]
    left = tuple((item["what"], item["reason"]) for item in board["left_out"])
    return [*found, Table(title="Left out", header=("what", "reason"), lines=left)] if left else found


def _best_tables(
    title: str, group: Mapping[str, Any], header: tuple[str, ...], right: tuple[str, ...]
) -> Iterator[Table]:
    """The best within each constraint, a table each."""
    for constraint in dict.fromkeys(best["constraint"] for best in group["best"]):
        lines = tuple(
            (best["wanted"], *(_cells(best["point"], group) if best["point"] else ("none", *["-"] * 6)))
            for best in group["best"]
            if best["constraint"] == constraint
        )
        yield Table(title=f"{title}: the best with {constraint}", header=("wanted", *header), lines=lines, right=right)


_STUDIES = ("rank", "study", "hypervolume", "on the front", "trials", "float", "int8")
_SEARCHED = ("study", "searched by", "last trial (UTC)", "sampler, seed", "version")


def _study_cells(study: Mapping[str, Any], scale: float) -> tuple[str, ...]:
    return (
        str(study["rank"]),
        study["study"],
        f"{study['hypervolume']:.4f}",
        str(study["on_front"]),
        f"{study['complete_trials']} of {study['trials']}",
        _reference_cell(study["float"], scale),
        _reference_cell(study["int8"], scale),
    )


def _searched_cells(study: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        study["study"],
        ", ".join(study["by"]) or "unknown",
        study["last"] or "-",
        f"{study['sampler']}, {study['seed']}",
        study["versions"].get("autocompress", "unknown"),
    )


def _reference_cell(reference: Mapping[str, Any] | None, scale: float) -> str:
    if reference is None:
        return "not tried"
    latency = "" if reference["latency_ms"] is None else f"{digits(reference['latency_ms'])} ms ·\n"
    return f"{score(reference['accuracy'], scale)} ·\n{latency}{kilobytes(reference['download_bytes'])}"


def _cells(point: Mapping[str, Any], group: Mapping[str, Any]) -> tuple[str, ...]:
    against, int8, scale = point["to_float"], point["to_int8"], group["metric_scale"]
    return (
        f"{point['study']}, {point['trial']}",
        f"{score(point['accuracy'], scale)}\n{score(against['accuracy'], scale, '+')}",
        "-" if point["test_accuracy"] is None else score(point["test_accuracy"], scale),
        f"{_of(digits, point['latency_ms'])}\n{_of(times, against['latency'])}\n{_doubts(point)}".strip(),
        f"{digits(point['download_bytes'] / 1000)}\n{times(against['download'])}",
        "-"
        if int8 is None
        else f"{score(int8['accuracy'], scale, '+')}\n{_of(times, int8['latency'])} ms\n{times(int8['download'])} KB",
        point["summary"],
    )


def times(ratio: float) -> str:
    """A ratio."""
    return f"×{ratio:.2f}"


def _of(words: Callable[[float], str], value: float | None) -> str:
    return "-" if value is None else words(value)


def _doubts(point: Mapping[str, Any]) -> str:
    """What must be said of a latency where there is little room; the error of a model stands in the document."""
    said = str(point["latency_is"])
    if said.startswith("modelled"):
        return "modelled,\n" + ROUGH.replace(" of ", " of\n") if point["extrapolated"] else "modelled"
    return said.removeprefix("measured").removeprefix(", ")


def markdown(board: Mapping[str, Any]) -> str:
    """The tables as Markdown."""
    parts = [
        "# Leaderboard",
        "",
        "Changes are against the float network of the same study; `to int8` against its plain int8 one.",
    ]
    for table in tables(board):
        parts += ["", f"## {_escaped(table.title)}", "", _row(table.header), _row(_rules(table))]
        parts += [_row(line) for line in table.lines]
    return "\n".join(parts) + "\n"


def _rules(table: Table) -> list[str]:
    return ["---:" if name in table.right else "---" for name in table.header]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell if cell in ('---', '---:') else _escaped(cell) for cell in cells)} |"


def _escaped(text: str) -> str:
    """Text that Markdown shows as it is."""
    return re.sub(r"([\\`*_{}\[\]<>|#])", r"\\\1", " ".join(text.split()))


def csv_text(board: Mapping[str, Any]) -> str:
    """A line for each point of a front, with its study and what it is the best of, and one for each thing left out."""
    out = io.StringIO()
    names = (
        "study",
        "trial",
        "accuracy",
        "test_accuracy",
        "latency_ms",
        "latency_is",
        "extrapolated",
        "download_bytes",
        "file_bytes",
        "peak_memory_bytes",
        "energy_mj",
        "summary",
        "sha256",
    )
    about = ("rank", "hypervolume", "by", "started", "last", "version")  # of the study
    ratios = [f"{what}_to_{of}" for of in ("float", "int8") for what in ("accuracy", "latency", "download")]
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*_CSV_GROUP, *names, *ratios, *about, "best_of", "left_out_because"])
    for group in board["groups"]:
        studies = {study["study"]: study for study in group["studies"]}
        for point in group["front"]:
            best = [f"{b['wanted']}: {b['constraint']}" for b in group["best"] if _is_same(b["point"], point)]
            changes = [(point[f"to_{name.rsplit('_', 1)[1]}"] or {}).get(name.split("_")[0]) for name in ratios]
            study = studies[point["study"]]
            own = study | {"by": ", ".join(study["by"]), "version": study["versions"].get("autocompress")}
            told = [*(point[name] for name in names), *changes, *(own[name] for name in about)]
            cells = [*(group[name] for name in _CSV_GROUP), *told]
            writer.writerow([_cell(cell) for cell in [*cells, "; ".join(best), None]])
    for item in board["left_out"]:
        empty = [None] * (len(_CSV_GROUP) + len(names) + len(ratios) + len(about))
        writer.writerow([_cell(cell) for cell in [*empty, item["what"], item["reason"]]])
    return out.getvalue()


def nights_csv(board: Mapping[str, Any]) -> str:
    """A line for each day of each group: the hypervolume of all its studies together by the end of it (UTC), and the
    complete trials of that day."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*_CSV_GROUP, "day", "hypervolume", "trials"])
    for group in board["groups"]:
        about = [_cell(group[name]) for name in _CSV_GROUP]
        writer.writerows([*about, night["day"], night["hypervolume"], night["trials"]] for night in group["nights"])
    return out.getvalue()


def _is_same(one: Mapping[str, Any] | None, other: Mapping[str, Any]) -> bool:
    return one is not None and (one["study"], one["trial"]) == (other["study"], other["trial"])


def _cell(value: Any) -> Any:
    """A spreadsheet takes text that begins like a formula for one."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value
