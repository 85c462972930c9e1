"""All studies beside each other: per task and device the front, the best by constraint, and how the studies rank. Pure.

Studies stand in one group only where their results can be compared: the same network, data, metric and device with the
same runtime, version, threads, bits and way to a latency. A group's front is over metric, latency and download, and
thinned as theirs are: values that cannot be told apart are equal, and so are ranks (`records/noise.py`). It consists of
points of the fronts of its studies, because only those have careful latencies and values on test data. Hypervolumes are
over the studies' objectives where all of a group have the same, else over those of the front."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import partial

import numpy as np

from autocompress import pareto
from autocompress.records.constraint import parse_constraint, value_of, violation
from autocompress.records.front import Front, complete, feasible, front_of, knee, plain_int8
from autocompress.records.hypervolume import scaled, volume_of
from autocompress.records.noise import CERTAIN, Z95, Figures
from autocompress.records.study import Constraint, Evaluation, StudyRecord, TrialRecord
from autocompress.records.thinning import thinned
from autocompress.report.progress import Step, hypervolume_steps

_STEPS = 12  # points of a study's curve
_DAY_S = 86_400
_OBJECTIVES = ("metric", "latency", "size")
_OBJECTIVE_OF = {"accuracy": "metric", "latency_ms": "latency", "download_bytes": "size"}
WANTED = {"accuracy": "most accurate", "latency_ms": "fastest", "download_bytes": "smallest"}


@dataclass(frozen=True, kw_only=True)
class Point:
    """A trial on a front, with the record of its study."""

    record: StudyRecord
    trial: TrialRecord
    evaluation: Evaluation


@dataclass(frozen=True, kw_only=True)
class Best:
    """The point that is `wanted` (one of WANTED's values) among those that meet `limit`; None where none does."""

    limit: Constraint
    wanted: str
    point: Point | None


@dataclass(frozen=True, kw_only=True)
class Standing:
    """A study in its group. `rank` by hypervolume, from 1, those that cannot be told apart alike.
    `on_front`: how many points of the group's front are its own; `int8`: its plain static int8 network, where it was
    tried."""

    record: StudyRecord
    rank: int
    hypervolume: float
    on_front: int
    int8: Evaluation | None
    steps: tuple[Step, ...]


@dataclass(frozen=True, kw_only=True)
class Night:
    """The hypervolume of all that a group's studies had found by the end of a day (UTC), its trials that day, and when
    the last of them was finished, in seconds since the epoch."""

    day: str
    finished_s: float
    hypervolume: float
    trials: int


@dataclass(frozen=True, kw_only=True)
class Group:
    """The studies that can be compared, best first, and what they found together."""

    key: tuple[tuple[str, str], ...]
    standings: tuple[Standing, ...]
    front: tuple[Point, ...]
    others: tuple[Point, ...]  # on the front of their study, but not of the group
    best: tuple[Best, ...]
    knee: Point | None  # of the front: what is recommended
    nights: tuple[Night, ...]


def default_limits(record: StudyRecord) -> tuple[Constraint, ...]:
    """What loses next to nothing: one point of a metric in [0, 1], one percent of one that has no upper end."""
    return (parse_constraint("accuracy >= float - 1 point" if record.higher_is_better else "accuracy <= float + 1 %"),)


def groups_of(
    records: Sequence[StudyRecord], limits: Sequence[Constraint] = (), usable: Callable[[Point], bool] = lambda _: True
) -> tuple[Group, ...]:
    """The groups by network, data and device, whatever the tasks were called. Without `limits`: `default_limits`.
    `usable` says whether a point may be shown (its file may have changed); it is asked only of those that would
    be."""
    grouped: defaultdict[tuple[tuple[str, str], ...], list[StudyRecord]] = defaultdict(list)
    for record in records:
        grouped[_content(record)].append(record)
    keyed = {_named(content, found): found for content, found in grouped.items()}
    return tuple(_group(key, keyed[key], limits, usable) for key in sorted(keyed))


def _content(record: StudyRecord) -> tuple[tuple[str, str], ...]:
    """What a study must share with others to be compared: not the name of its task where network and data are known by
    their hashes."""
    key = dict(_key(record))
    if "unknown" not in (key["network"], key["data"]):
        key["task"] = ""
    return tuple(key.items())


def _named(content: tuple[tuple[str, str], ...], records: Sequence[StudyRecord]) -> tuple[tuple[str, str], ...]:
    """The key of a group, with all names that its task has."""
    return tuple((dict(content) | {"task": ", ".join(sorted({record.task for record in records}))}).items())


def _key(record: StudyRecord) -> tuple[tuple[str, str], ...]:
    measured = record.baseline.measurement
    hashes = {name: record.hashes.get(name, "unknown") for name in ("network", "data", "latency_model")}
    hashes["device_profile"] = record.hashes.get("device", "unknown")
    runtime = f"{measured.runtime or 'unknown'} {measured.runtime_version or ''}".strip()
    named = {
        "task": record.task,
        "device": record.device,
        "metric": record.metric_name,
        "latency": record.latency_source,
        "runtime": runtime,
        "threads": str(measured.threads),
        "bits": str(measured.os_bits),
        **hashes,
    }
    if record.output is not None and record.output.named is not None:
        named["output"] = record.output.named
    return tuple(named.items())


def _group(
    key: tuple[tuple[str, str], ...],
    records: Sequence[StudyRecord],
    limits: Sequence[Constraint],
    usable: Callable[[Point], bool],
) -> Group:
    points = [
        Point(record=record, trial=trial, evaluation=trial.evaluation)
        for record in records
        for trial in front_of(record).trials
        if trial.evaluation is not None
    ]
    front = _front(points, usable)
    best = tuple(
        Best(limit=limit, wanted=words, point=_best(points, limit, name, usable))
        for limit in limits or default_limits(records[0])
        for name, words in WANTED.items()
        if name != limit.name and (name != "latency_ms" or records[0].latency_source != "none")
    )
    on = {id(point) for point in front}
    others = tuple(point for point in points if id(point) not in on)
    return Group(
        key=key,
        standings=_standings(records, front),
        front=front,
        others=others,
        best=best,
        knee=_knee(front),
        nights=_nights(records),
    )


def _vector(point: Point) -> list[float]:
    evaluation = point.evaluation
    loss = -evaluation.accuracy if point.record.higher_is_better else evaluation.accuracy
    return [loss, evaluation.measurement.latency_ms or 0.0, evaluation.download_bytes]


def _front(points: Sequence[Point], usable: Callable[[Point], bool]) -> tuple[Point, ...]:
    """The front of the usable points, best metric first: thinned as that of a study."""
    left = [point for point in points if np.isfinite(_vector(point)).all()]
    while True:
        figures, order = _figures(left), range(len(left))
        choose = partial(figures.chosen, by=CERTAIN, numbers=order)
        members = thinned(figures.columns(_objectives(left)), np.arange(len(left)), choose)
        front = [left[k] for k in members]
        damaged = [point for point in front if not usable(point)]
        if not damaged:
            return tuple(sorted(front, key=_vector))
        left = [point for point in left if point not in damaged]


def _objectives(points: Sequence[Point]) -> tuple[str, ...]:
    """What is compared: without latency where the device has none."""
    known = not points or points[0].record.latency_source != "none"
    return tuple(name for name in _OBJECTIVES if known or name != "latency")


def _knee(front: Sequence[Point]) -> Point | None:
    """What the front recommends, as a study's does; None where it is empty."""
    if not front:
        return None
    works = np.array([_works(point) for point in front])
    order = np.arange(len(front))
    return front[knee(_figures(front), _objectives(front), order, works, range(len(front)))]


def _works(point: Point) -> bool:
    record, gain = point.record, point.evaluation.accuracy - point.record.baseline.accuracy
    return (-gain if record.higher_is_better else gain) < pareto.ACCURACY_SCALE * record.metric_scale


def _best(points: Sequence[Point], limit: Constraint, name: str, usable: Callable[[Point], bool]) -> Point | None:
    """The usable point within the limit whose value called `name` is best beyond noise; of those that cannot be told
    from it the better metric, then the smaller and the faster."""
    fitting = [point for point in points if _fits(point, limit) and value_of(point.evaluation, name) is not None]
    while fitting:
        by = dict.fromkeys((_OBJECTIVE_OF[name], "metric", "size", "latency"))
        chosen: Point = fitting[_figures(fitting).chosen(np.arange(len(fitting)), tuple(by), range(len(fitting)))]
        if usable(chosen):
            return chosen
        fitting = [point for point in fitting if point is not chosen]
    return None


def _fits(point: Point, limit: Constraint) -> bool:
    constraint = limit.resolved(point.record.baseline)
    return constraint is not None and violation(point.evaluation, constraint) == 0


def _figures(points: Sequence[Point]) -> Figures:
    return Figures(
        [point.evaluation for point in points],
        [point.record.baseline for point in points],
        higher_is_better=not points or points[0].record.higher_is_better,
        size="download",
    )


def _standings(records: Sequence[StudyRecord], front: Sequence[Point]) -> tuple[Standing, ...]:
    fronts = {record.name: Front(_comparable(record, records)) for record in records}
    ranks = _ranks(fronts)
    found = [
        Standing(
            record=record,
            rank=ranks[record.name],
            hypervolume=fronts[record.name].hypervolume,
            on_front=sum(point.record is record for point in front),
            int8=None if (int8 := plain_int8(record)) is None else int8.evaluation,
            steps=hypervolume_steps(fronts[record.name].record, most=_STEPS),
        )
        for record in records
    ]
    return tuple(sorted(found, key=lambda s: (s.rank, -s.hypervolume, s.record.name)))


def _comparable(record: StudyRecord, among: Sequence[StudyRecord]) -> StudyRecord:
    """The study with objectives over which the hypervolumes of all of them can be compared."""
    if len({(each.objectives, each.size) for each in among}) == 1:
        return record
    known = tuple(name for name in _OBJECTIVES if name != "latency" or record.latency_source != "none")
    return replace(record, objectives=known, size="download")


def _ranks(fronts: Mapping[str, Front]) -> dict[str, int]:
    """One more than how many studies have a hypervolume that is greater beyond noise: studies that cannot be told apart
    share a rank."""
    known = [(front.hypervolume, front.hypervolume_sd) for front in fronts.values()]
    return {
        name: 1 + sum(v - own > Z95 * math.hypot(sd, own_sd) for v, sd in known)
        for name, (own, own_sd) in zip(fronts, known, strict=True)
    }


def _nights(records: Sequence[StudyRecord]) -> tuple[Night, ...]:
    """What is compared, in each study's own scales, day after day."""
    days: defaultdict[int, list[pareto.Floats]] = defaultdict(list)
    last_s: dict[int, float] = {}
    for record in records:
        found: defaultdict[int, list[Evaluation]] = defaultdict(list)
        for trial, evaluation in complete(record):
            if trial.finished_s is not None and feasible(record, evaluation):
                day = int(trial.finished_s // _DAY_S)
                found[day].append(evaluation)
                last_s[day] = max(trial.finished_s, last_s.get(day, 0.0))
        for day, evaluations in found.items():
            days[day].append(scaled(_comparable(record, records), evaluations))
    front, nights = np.empty((0, 0)), []
    for day in sorted(days):
        joined = np.vstack([front.reshape(-1, days[day][0].shape[1]), *days[day]])
        joined = joined[~np.isnan(joined).any(axis=1)]
        front = joined[pareto.non_dominated(joined)]
        trials = sum(map(len, days[day]))
        nights.append(Night(day=_date(day), finished_s=last_s[day], hypervolume=volume_of(front), trials=trials))
    return tuple(nights)


def _date(day: int) -> str:
    return datetime.fromtimestamp(day * _DAY_S, timezone.utc).strftime("%Y-%m-%d")
