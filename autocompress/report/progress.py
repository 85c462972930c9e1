"""How the front grew: the hypervolume after each trial that changed it. NumPy only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from autocompress.records import Evaluation, StudyRecord, TrialRecord
from autocompress.report import rows


@dataclass(frozen=True, kw_only=True)
class Step:
    """The hypervolume of the front once trial `number` was complete; `finished_s` in seconds since the epoch."""

    number: int
    finished_s: float | None
    hypervolume: float


def hypervolume_steps(record: StudyRecord, most: int | None = None) -> tuple[Step, ...]:
    """The hypervolume after each complete trial that changed the front, by number, and after the last one; empty while
    no plain int8 file is known. With `most`: at so many trials, evenly spread, since each takes a while to compute."""
    done = rows.complete(record)
    if record.int8_download_bytes is None or not done:
        return ()
    places = range(len(done)) if most is None else {len(done) - 1 - k * len(done) // most for k in range(most)}
    members: list[tuple[Sequence[float], Evaluation]] = []
    steps: list[Step] = []
    changed = False
    for place, (trial, evaluation) in enumerate(done):
        members, news = _joined(members, record, evaluation)
        changed = changed or news
        if (changed and place in places) or place == len(done) - 1:
            steps.append(_step(record, trial, [e for _, e in members]))
            changed = False
    return tuple(steps)


def _joined(
    members: list[tuple[Sequence[float], Evaluation]], record: StudyRecord, evaluation: Evaluation
) -> tuple[list[tuple[Sequence[float], Evaluation]], bool]:
    """The front with one more evaluation, and whether that changed it."""
    vector = rows.objective_vector(record, evaluation)
    if vector is None or any(rows.violation(evaluation, constraint) for constraint in record.constraints):
        return members, False
    if any(all(a <= b for a, b in zip(other, vector, strict=True)) for other, _ in members):
        return members, False
    kept = [m for m in members if not all(a <= b for a, b in zip(vector, m[0], strict=True))]
    return [*kept, (vector, evaluation)], True


def _step(record: StudyRecord, trial: TrialRecord, front: Sequence[Evaluation]) -> Step:
    volume = rows.volume(record, front)
    assert volume is not None  # there is a plain int8 file
    return Step(number=trial.number, finished_s=trial.finished_s, hypervolume=volume)
