"""The Pareto front of a study, its picks and its hypervolume: computed once, from the record alone. Pure.

Values that cannot be told apart are equal (`records/noise.py`), so the front is thinned: no point beats another beyond
noise without being beaten in something else (`records/thinning.py`). The picks go by the same: the fastest is, of those
that cannot be told from the fastest, the most accurate.

The hypervolume is that of all feasible complete trials by their values as they are (strict dominance). It measures a
search and compares nights: it must not fall when a trial is added, nor jump when noise tips which of two equals is
shown. The samplers' own dominance (`search/sampler/history.py`) is strict too: what they add to a front they see is an
expected gain of hypervolume, and a seed keeps its study.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np

from autocompress import pareto
from autocompress.errors import AutocompressError, UnmetError, unknown_name
from autocompress.records.constraint import meets, resolved, value_of, violation
from autocompress.records.hypervolume import scaled, volume_of
from autocompress.records.noise import CERTAIN, Z95, Bools, Column, Figures, Indices
from autocompress.records.study import Constraint, Evaluation, StudyRecord, TrialRecord, value_name
from autocompress.records.thinning import thinned

STATES = ("complete", "stopped_early", "screened", "failed", "running")
PICKS = ("knee", "fastest", "smallest", "best")
FLAT_TRIALS, FLAT_GAIN = 20, 0.005  # a search has gone flat that gained less over so many complete trials
_KEPT = "front"
_FIRST = {"fastest": "latency", "smallest": "size", "best": "metric"}


class Front:
    """The front of a study: `trials`, best metric first, then smallest. Over the study's objectives and those complete
    trials that meet its constraints and have a value of each."""

    def __init__(self, record: StudyRecord) -> None:
        self.record = record
        self._found = complete(record)
        evaluations = [evaluation for _, evaluation in self._found]
        self._numbers = [trial.number for trial, _ in self._found]
        self._figures = Figures(
            evaluations,
            [record.baseline] * len(evaluations),
            higher_is_better=record.higher_is_better,
            size=record.size,
        )

    @cached_property
    def trials(self) -> tuple[TrialRecord, ...]:
        """The points of the front."""
        return self._sorted(self._members)

    @cached_property
    def strict(self) -> tuple[TrialRecord, ...]:
        """The points that no other dominates by its values as they are, in the order of `trials`; of equal vectors the
        lowest trial number. They span the hypervolume."""
        return self._sorted(self._strict)

    @cached_property
    def hypervolume(self) -> float:
        """What the study has found, over its objectives (`records/hypervolume.py`)."""
        return volume_of(self._scaled)

    @cached_property
    def hypervolume_sd(self) -> float:
        """The standard deviation of the hypervolume by the delta method: the metric of each point that spans it and the
        latency of each kernel pattern (points of one are measured once) are moved by theirs. The error of a model is
        common to all that it predicts, and not counted."""
        points, moves = self._scaled, []
        for axis, objective in enumerate(self.record.objectives):
            sd = _sd(self._figures.column(objective), self._strict)
            if objective == "metric":
                unit = pareto.ACCURACY_SCALE * self.record.metric_scale
                moves += [(axis, np.arange(len(points)) == k, sd[k] / unit) for k in _above(sd)]
            else:
                unit = float(np.log(pareto.RATIO_SCALE))
                patterns = {float(points[k, axis]): k for k in _above(sd)}.values()
                moves += [(axis, points[:, axis] == points[k, axis], sd[k] / unit) for k in patterns]
        gains = [_moved_volume(points, *move) - self.hypervolume for move in moves]
        return float(np.hypot.reduce(gains)) if gains else 0.0

    @cached_property
    def picks(self) -> Mapping[str, TrialRecord]:
        """The trial of each of PICKS; empty where the front is. No fastest where no latency is known."""
        if not len(self._members):
            return {}
        known = [name for name in PICKS if name != "fastest" or self.record.latency_source != "none"]
        chosen = {name: self._best(self._members, _FIRST[name]) for name in known if name in _FIRST}
        return {name: self._found[chosen.get(name, self._knee)][0] for name in known}

    def pick(self, which: str | int, bounds: Sequence[Constraint] = ()) -> TrialRecord:
        """The trial that `which` names: knee, fastest, smallest or best of the front, or of the front within `bounds`
        (see `within`), or any complete trial's number.

        The knee is looked for where the metric loses less than the scale of the hypervolume (0.10 of the metric's), if
        the front has such points: networks that no longer work would otherwise stretch the axes. Raises
        AutocompressError."""
        record, text = self.record, str(which)
        if text.isascii() and text.isdecimal():
            if bounds:
                raise AutocompressError(f"trial {text[:20]} is one trial; leave out its number, or the bounds")
            return _trial_number(record, text)
        if text not in PICKS:
            raise unknown_name("pick", text, (*PICKS, "a trial number"))
        if bounds:
            return self.within(bounds).pick(which)
        if not self.picks:
            error = UnmetError if record.constraints and self._found else AutocompressError
            close = f", the nearest is {_missing(record)}" if record.constraints and self._found else ""
            raise error(f"study '{record.name}' has no front to pick from: {why_empty(record)}{close}; search on")
        if text not in self.picks:
            raise AutocompressError(f"study '{record.name}' knows no latency; pick one of {', '.join(self.picks)}")
        return self.picks[text]

    def within(self, bounds: Sequence[Constraint]) -> Front:
        """The front within further bounds: of its own points where some meet them, for these are measured carefully and
        on test data; else of all complete trials. AutocompressError where the float network lacks a value that a bound
        hangs on."""
        record = self.record
        constraints = (*record.constraints, *resolved(bounds, record.baseline))
        own = Front(replace(record, trials=self.trials, constraints=constraints))
        return own if own.trials else Front(replace(record, constraints=constraints))

    @cached_property
    def _vectors(self) -> pareto.Floats:
        return front_vectors(self.record, [evaluation for _, evaluation in self._found])

    @cached_property
    def _usable(self) -> Indices:
        return np.flatnonzero(~np.isnan(self._vectors).any(axis=1))

    @cached_property
    def _strict(self) -> Indices:
        return self._usable[pareto.non_dominated(self._vectors[self._usable])]

    @cached_property
    def _scaled(self) -> pareto.Floats:
        return scaled(self.record, [self._found[k][1] for k in self._strict])

    @cached_property
    def _members(self) -> Indices:
        return thinned(self._figures.columns(self.record.objectives), self._usable, self._certain)

    def _certain(self, among: Indices) -> int:
        return self._figures.chosen(among, CERTAIN, self._numbers)

    def _best(self, among: Indices, first: str) -> int:
        """The best in one objective, beyond noise; of those the most accurate, then the smallest, then the fastest."""
        others = (name for name in ("metric", "size", "latency") if name != first)
        return self._figures.chosen(among, (first, *others), self._numbers)

    @property
    def _knee(self) -> int:
        """By values that are equal where they cannot be told apart: noise must not decide how far a point stands out,
        nor become an axis of its own."""
        record = self.record
        limit = _loss(record, record.baseline) + pareto.ACCURACY_SCALE * record.metric_scale
        works = np.array([_loss(record, self._found[k][1]) < limit for k in self._members])
        return knee(self._figures, record.objectives, self._members, works, self._numbers)

    def _sorted(self, members: Indices) -> tuple[TrialRecord, ...]:
        order = sorted(members, key=lambda k: (*self._order(self._found[k][1]), self._numbers[k]))
        return tuple(self._found[k][0] for k in order)

    def _order(self, evaluation: Evaluation) -> tuple[float, float]:
        size = evaluation.file_bytes if self.record.size == "file" else evaluation.download_bytes
        return _loss(self.record, evaluation), size


def knee(figures: Figures, objectives: Sequence[str], among: Indices, works: Bools, numbers: Sequence[int]) -> int:
    """The knee of the evaluations `among`, of those that work where any does (`works`, (among,)); of several the most
    accurate, then the smallest."""
    left = among[works] if works.any() else among
    points = np.column_stack([column.steps(left) for column in figures.columns(objectives)])
    # Of a front of two both are as far from the chord.
    return figures.chosen(left[pareto.knees(points)], ("metric", "size", "latency"), numbers)


def front_of(record: StudyRecord) -> Front:
    """The front of a record, computed once: whoever asks for it again gets the same."""
    kept: dict[str, Front] = vars(record)  # beside its fields: no part of what it is, nor of what equals it
    if _KEPT not in kept:
        kept[_KEPT] = Front(record)
    return kept[_KEPT]


def complete(record: StudyRecord) -> tuple[tuple[TrialRecord, Evaluation], ...]:
    """The complete trials with their evaluations, by number."""
    trials = sorted(record.trials, key=lambda trial: trial.number)
    return tuple((t, t.evaluation) for t in trials if t.state == "complete" and t.evaluation is not None)


def evaluated(trial: TrialRecord) -> Evaluation:
    """The evaluation of a trial that must have one; AutocompressError where it has none."""
    if trial.evaluation is None:
        raise AutocompressError(f"trial {trial.number} is {trial.state}, without an evaluation; pick another")
    return trial.evaluation


def evaluated_count(record: StudyRecord) -> int:
    """How many candidates were built and evaluated; those answered from the study's records do not count."""
    return sum(trial.evaluation is not None and not trial.cached for trial in record.trials)


def nearest(record: StudyRecord, count: int = 3) -> tuple[TrialRecord, ...]:
    """The complete trials that miss the constraints by least in sum, each relative to its bound."""

    def missed(pair: tuple[TrialRecord, Evaluation]) -> tuple[float, int]:
        return sum(violation(pair[1], constraint) for constraint in record.constraints), pair[0].number

    return tuple(trial for trial, _ in sorted(complete(record), key=missed)[:count])


def _missing(record: StudyRecord) -> str:
    """The trial that misses the constraints by least, and what it has instead."""
    (trial,) = nearest(record, 1)
    found = evaluated(trial)
    missed = [c for c in record.constraints if violation(found, c) > 0]
    values = (f"{c.name} {'missing' if (v := value_of(found, c.name)) is None else f'{v:g}'}" for c in missed)
    return f"trial {trial.number} with {', '.join(values)}"


def plain_int8(record: StudyRecord) -> TrialRecord | None:
    """The trial of the plain static int8 network: 8 bits everywhere, dense, unclustered; None if it was not tried."""
    for trial, evaluation in complete(record):
        choices = evaluation.configuration.layers.values()
        if evaluation.configuration.activations == "int8" and all(
            choice.bits == 8 and choice.sparsity == 0 and choice.normalised().clusters is None for choice in choices
        ):
            return trial
    return None


def why_empty(record: StudyRecord) -> str:
    """One sentence on why the study's front is empty."""
    done = complete(record)
    if not done:
        reasons = [trial.reason for trial in record.trials if trial.state == "failed" and trial.reason]
        last = f"; the last failure: {reasons[-1]}" if reasons else ""
        return f"none of {len(record.trials)} trials is complete{last}"
    if np.isnan(objective_vectors(record, [evaluation for _, evaluation in done])).any(axis=1).all():
        return f"no complete trial has a value for each objective ({', '.join(record.objectives)})"
    asked = " and ".join(str(constraint) for constraint in record.constraints)
    return f"none of {len(done)} complete trials meets {asked}"


def feasible(record: StudyRecord, evaluation: Evaluation) -> bool:
    """Whether it meets the study's constraints."""
    return meets(evaluation, record.constraints)


def is_flat(record: StudyRecord) -> bool:
    """Whether the last FLAT_TRIALS complete trials brought less than FLAT_GAIN of the hypervolume before them."""
    done = [trial for trial, _ in complete(record)]
    if len(done) <= FLAT_TRIALS:
        return False
    before = Front(replace(record, trials=tuple(done[:-FLAT_TRIALS]))).hypervolume
    now = front_of(record).hypervolume
    return before > 0 and now - before < FLAT_GAIN * before


def objective_vectors(record: StudyRecord, evaluations: Sequence[Evaluation]) -> pareto.Floats:
    """The values of the objectives, (n, objectives), each to be minimised; NaN where one is missing or not finite."""
    names = [value_name(objective, record.size) for objective in record.objectives]
    found = np.array([[e.value(name) for name in names] for e in evaluations], dtype=np.float64)
    turned = [o == "metric" and record.higher_is_better for o in record.objectives]
    found = found.reshape(-1, len(names)) * np.where(turned, -1.0, 1.0)
    return np.where(np.isfinite(found), found, np.nan)


def front_vectors(record: StudyRecord, evaluations: Sequence[Evaluation]) -> pareto.Floats:
    """As `objective_vectors`, NaN too for those that miss a constraint: what cannot be on the front."""
    met = np.array([feasible(record, evaluation) for evaluation in evaluations], dtype=np.bool_)
    return np.where(met[:, None], objective_vectors(record, evaluations), np.nan)


def _sd(column: Column, among: Indices) -> pareto.Floats:
    """The standard deviations of values, from their 95 % intervals."""
    found: pareto.Floats = (column.up[among] + column.down[among]) / (2 * Z95)
    return found


def _above(sd: pareto.Floats) -> list[int]:
    return [int(k) for k in np.flatnonzero(sd > 0)]


def _moved_volume(points: pareto.Floats, axis: int, which: Bools, by: float) -> float:
    moved = points.copy()
    moved[which, axis] += by
    return volume_of(moved)


def _loss(record: StudyRecord, evaluation: Evaluation) -> float:
    return -evaluation.accuracy if record.higher_is_better else evaluation.accuracy


def _trial_number(record: StudyRecord, text: str) -> TrialRecord:
    found = {str(trial.number): trial for trial in record.trials}.get(text.lstrip("0") or "0")
    remedy = f"pick a complete trial of study '{record.name}' or one of {', '.join(PICKS)}"
    if found is None:
        raise AutocompressError(f"there is no trial {text[:20]} among {len(record.trials)} trials; {remedy}")
    if found.state != "complete" or found.evaluation is None:
        reason = f" ({found.reason})" if found.reason else ""
        raise AutocompressError(f"trial {found.number} is {found.state.replace('_', ' ')}{reason}; {remedy}")
    return found
