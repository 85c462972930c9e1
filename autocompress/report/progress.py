"""How the front grew: the hypervolume after each trial that changed it. NumPy only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autocompress import pareto
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
    ends = range(1, len(done) + 1) if most is None else sorted({-(-len(done) * k // most) for k in range(1, most + 1)})
    vectors = np.empty((0, len(record.objectives)))
    members: list[Evaluation] = []
    steps: list[Step] = []
    begin = 0
    for end in ends:
        found = [(v, e) for _, e in done[begin:end] if (v := _vector(record, e)) is not None]
        news = [(v, e) for v, e in found if not (vectors <= v).all(axis=1).any()]
        begin = end
        if news:
            vectors = np.vstack([vectors, *(v for v, _ in news)])
            on = pareto.non_dominated(vectors)
            members = [e for e, kept in zip([*members, *(e for _, e in news)], on, strict=True) if kept]
            vectors = vectors[on]
        if news or end == len(done):
            steps.append(_step(record, done[end - 1][0], members))
    return tuple(steps)


def _vector(record: StudyRecord, evaluation: Evaluation) -> pareto.Floats | None:
    """The values of the objectives, to be minimised; None for what cannot be on the front."""
    found = rows.objective_vector(record, evaluation)
    return None if found is None or not rows.feasible(record, evaluation) else np.array(found)


def _step(record: StudyRecord, trial: TrialRecord, front: Sequence[Evaluation]) -> Step:
    volume = rows.volume(record, front)
    assert volume is not None  # there is a plain int8 file
    return Step(number=trial.number, finished_s=trial.finished_s, hypervolume=volume)
