"""The studies of a runs folder beside each other: a list of all, and two of them compared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

from autocompress.records.front import PICKS, Front, complete, evaluated, front_of
from autocompress.records.study import Evaluation, StudyRecord
from autocompress.report import study_document
from autocompress.report.tables import Table
from autocompress.report.units import kilobytes, latency_words, milliseconds, score

# What two studies were made with, in the order to read it.
_MADE_WITH = ("task", "metric_name", "device", "latency_source", "space", "sampler", "seed", "objectives", "size")
_SHORT = 8  # hexadecimal digits of a digest


def list_document(records: Sequence[StudyRecord], left_out: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """The document of `list --json`: plain data that is valid JSON."""
    found: dict[str, Any] = study_document.as_json(
        {
            "schema": 1,
            "studies": [_listed(record) for record in records],
            "left_out": [{"what": what, "reason": reason} for what, reason in left_out],
        }
    )
    return found


def _listed(record: StudyRecord) -> dict[str, Any]:
    front = front_of(record)
    return {
        "study": record.name,
        "task": record.task,
        "device": record.device,
        "latency_source": record.latency_source,
        "space": record.space,
        "sampler": record.sampler,
        "seed": record.seed,
        "trials": dict(Counter(trial.state for trial in record.trials)),
        "front": len(front.trials),
        "hypervolume": front.hypervolume,
        "picks": {name: trial.number for name, trial in front.picks.items()},
        "last_trial_s": _last_s(record),
    }


def list_table(records: Sequence[StudyRecord]) -> Table:
    """The studies, a line each, those that were searched last first."""
    ordered = sorted(records, key=lambda record: -(_last_s(record) or 0.0))
    return Table(
        title=f"{len(records)} studies",
        header=("study", "device", "trials", "front", "metric", "download", "last trial (UTC)"),
        lines=tuple(map(_line, ordered)),
        right=("trials", "front", "metric", "download"),
    )


def _line(record: StudyRecord) -> tuple[str, ...]:
    front = front_of(record)
    knee = evaluated(front.picks["knee"]) if front.picks else None
    return (
        record.name,
        record.device,
        str(len(complete(record))),
        str(len(front.trials)),
        "-" if knee is None else score(knee.accuracy, record.metric_scale),
        "-" if knee is None else kilobytes(knee.download_bytes),
        _day(_last_s(record)),
    )


def _last_s(record: StudyRecord) -> float | None:
    return max((t.finished_s for t in record.trials if t.finished_s is not None), default=None)


def _day(seconds: float | None) -> str:
    return "-" if seconds is None else f"{datetime.fromtimestamp(seconds, timezone.utc):%Y-%m-%d %H:%M}"


# --- two studies -----------------------------------------------------------------------------------


def compare_document(one: StudyRecord, other: StudyRecord) -> dict[str, Any]:
    """The document of `compare --json`: plain data that is valid JSON."""
    found: dict[str, Any] = study_document.as_json(
        {
            "schema": 1,
            "studies": [_listed(record) for record in (one, other)],
            "differences": [
                {"what": what, one.name: first, other.name: second} for what, first, second in differences(one, other)
            ],
            "not_comparable": list(not_comparable(one, other)),
            "picks": {name: [_pick_values(record, name) for record in (one, other)] for name in PICKS},
        }
    )
    return found


def _pick_values(record: StudyRecord, name: str) -> dict[str, Any] | None:
    front = front_of(record)
    if name not in front.picks:
        return None
    trial = front.picks[name]
    found = evaluated(trial)
    return {
        "trial": trial.number,
        "accuracy": found.accuracy,
        "test_accuracy": record.test_accuracy.get(found.sha256),
        "latency_ms": found.measurement.latency_ms,
        "latency_is": latency_words(found.measurement),
        "download_bytes": found.download_bytes,
        "file_bytes": found.file_bytes,
    }


def compare_tables(one: StudyRecord, other: StudyRecord) -> tuple[Table, Table]:
    """What two studies were made with where that differs, and what each of them found."""
    names = ("", one.name, other.name)
    made = differences(one, other)
    return (
        Table(
            title="What they were made with" if made else "They were made with the same",
            header=names,
            lines=tuple(made),
        ),
        Table(title="What they found", header=names, lines=tuple(_found(one, other))),
    )


def differences(one: StudyRecord, other: StudyRecord) -> list[tuple[str, str, str]]:
    """What two studies were not made with alike: (what, in the first, in the second)."""
    rows = [(_words(name), *(_shown(getattr(each, name)) for each in (one, other))) for name in _MADE_WITH]
    rows.append(("constraints", *(" and ".join(map(str, each.constraints)) or "none" for each in (one, other))))
    rows += [(name, *(each.hashes.get(name, "-")[:_SHORT] for each in (one, other))) for name in ("network", "data")]
    names = sorted({*one.versions, *other.versions})
    rows += [(f"{name} version", *(each.versions.get(name, "-") for each in (one, other))) for name in names]
    return [(what, first, second) for what, first, second in rows if first != second]


def _words(name: str) -> str:
    return name.removesuffix("_name").replace("_", " ")


def _shown(value: Any) -> str:
    return ", ".join(value) if isinstance(value, tuple) else str(value)


def not_comparable(one: StudyRecord, other: StudyRecord) -> tuple[str, ...]:
    """What of their figures cannot be compared, a line each."""
    data = [name for name in ("network", "data") if one.hashes.get(name) != other.hashes.get(name)]
    data += ["metric"] if one.metric_name != other.metric_name else []
    found = [f"their {one.metric_name} values are of another {' and '.join(data)}"] if data else []
    if (one.device, one.latency_source) != (other.device, other.latency_source):
        found.append("their latencies are of another device, or one is modelled and the other measured")
    return tuple(f"not to be compared: {line}" for line in found)


def _found(one: StudyRecord, other: StudyRecord) -> list[tuple[str, str, str]]:
    fronts = [front_of(one), front_of(other)]
    rows = [
        ("complete trials", *(str(len(complete(front.record))) for front in fronts)),
        ("points on the front", *(str(len(front.trials)) for front in fronts)),
        ("hypervolume", *("-" if (v := front.hypervolume) is None else f"{v:.4f}" for front in fronts)),
        ("float", *(_point(front.record, front.record.baseline) for front in fronts)),
    ]
    rows += [(name, *(_picked(front, name) for front in fronts)) for name in PICKS]
    return [(str(what), first, second) for what, first, second in rows]


def _picked(front: Front, name: str) -> str:
    if name not in front.picks:
        return "none"
    trial = front.picks[name]
    same = next(each for each, other in front.picks.items() if other is trial)
    if same != name:
        return f"trial {trial.number}, as the {same}"
    return f"trial {trial.number}\n{_point(front.record, evaluated(trial))}"


def _point(record: StudyRecord, evaluation: Evaluation) -> str:
    test = record.test_accuracy.get(evaluation.sha256)
    lines = [
        f"{record.metric_name} {score(evaluation.accuracy, record.metric_scale)}"
        + ("" if test is None else f", test {score(test, record.metric_scale)}"),
        f"latency {milliseconds(evaluation.measurement)} {latency_words(evaluation.measurement, short=True)}",
        f"{kilobytes(evaluation.download_bytes)} download",
    ]
    return "\n".join(lines)
