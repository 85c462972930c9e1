"""How the front grew: the hypervolume after each trial that changed it. NumPy only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autocompress import pareto
from autocompress.records.front import complete, front_vectors
from autocompress.records.hypervolume import volume
from autocompress.records.study import Evaluation, StudyRecord, TrialRecord


@dataclass(frozen=True, kw_only=True)
class Step:
    """The hypervolume of the front once trial `number` was complete; `finished_s` in seconds since the epoch."""

    number: int
    finished_s: float | None
    hypervolume: float


def hypervolume_steps(record: StudyRecord, most: int | None = None) -> tuple[Step, ...]:
    """The hypervolume after each complete trial that changed the front, by number, and after the last one. With
    `most`: at so many trials, evenly spread, since each takes a while to compute."""
    done = complete(record)
    if not done:
        return ()
    ends = range(1, len(done) + 1) if most is None else sorted({-(-len(done) * k // most) for k in range(1, most + 1)})
    vectors = front_vectors(record, [evaluation for _, evaluation in done])
    usable = np.flatnonzero(~np.isnan(vectors).any(axis=1))
    front = usable[:0]
    steps: list[Step] = []
    begin = 0
    for end in ends:
        found = usable[(usable >= begin) & (usable < end)]
        covered = (vectors[front] <= vectors[found][:, None]).all(axis=2).any(axis=1)
        begin = end
        if not covered.all():
            front = np.concatenate([front, found[~covered]])
            front = front[pareto.non_dominated(vectors[front])]
        if not covered.all() or end == len(done):
            steps.append(_step(record, done[end - 1][0], [done[k][1] for k in front]))
    return tuple(steps)


def _step(record: StudyRecord, trial: TrialRecord, front: Sequence[Evaluation]) -> Step:
    return Step(number=trial.number, finished_s=trial.finished_s, hypervolume=volume(record, front))
