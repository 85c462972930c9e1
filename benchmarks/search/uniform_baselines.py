"""Whether a search does better than the uniform baselines of its space: 100 trials of guided, fashion-mnist on rpi4.

For each uniform baseline (all layers dense at one bit-width, for each activation precision) the front must have a point
no larger and at least as accurate on validation data; shown is the smallest such point that is none of them, or else
one that is. The same on test data, where only other points count, and one must be at least a tenth smaller; the
paired interval says what of it is luck. Then the front with its test accuracies, the share of its points that are
no uniform baselines, and its hypervolume. About 3 minutes: `python -m benchmarks.search.uniform_baselines`, with
another sampler `--sampler tpe`."""

from __future__ import annotations

import argparse
import math
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from autocompress import stats
from autocompress.latency.source import latency_on
from autocompress.records.configuration import Configuration
from autocompress.records.front import Front, complete
from autocompress.records.study import Evaluation, StudyRecord, TrialRecord
from autocompress.report import study_document
from autocompress.search.sampler import stock
from autocompress.search.specification import Budget, Resources, Specification
from autocompress.search.study import Search
from autocompress.specs import load_device, load_space
from autocompress.tasks import load_task
from benchmarks.goals import Goal, judge, print_run, print_table
from benchmarks.task_splits import test_split

Array = np.ndarray[Any, Any]
PROGRESS_EVERY = 10


@dataclass(frozen=True, kw_only=True)
class Cover:
    """A uniform baseline with its trial (None where it failed) and the front's point that covers it (None: missed)."""

    uniform_baseline: Configuration
    trial: TrialRecord | None
    by: TrialRecord | None


def searched(asked: argparse.Namespace, runs: Path) -> tuple[StudyRecord, tuple[Configuration, ...]]:
    """The study after the search, and the uniform baselines of its space as the device can run them."""
    task, device = load_task("fashion-mnist"), load_device("rpi4")
    with latency_on(device) as latency:
        specification = Specification(
            task=task,
            profile=device,
            space=load_space(asked.space),
            latency_source=latency.source,
            sampler=asked.sampler,
            seed=asked.seed,
        )
        resources = Resources(runs=runs, name=f"{asked.sampler}-{asked.seed}", threads=asked.threads)
        budget = Budget(trials=asked.trials)
        with Search(specification, resources, latency.bind(task.original), budget=budget) as search:
            return search.run(show_progress), stock.uniform_baselines(search.activations, search.choices)


def show_progress(record: StudyRecord) -> None:
    """A line on standard error now and then."""
    if len(record.trials) % PROGRESS_EVERY == 0:
        print(f"  {len(record.trials)} trials, {len(Front(record).trials)} on the front", file=sys.stderr)


def evaluation_of(trial: TrialRecord) -> Evaluation:
    """The evaluation of a trial that has one, as all of a front have."""
    assert trial.evaluation is not None
    return trial.evaluation


def covers_of(record: StudyRecord, uniform_baselines: Sequence[Configuration]) -> list[Cover]:
    """Each uniform baseline with what covers it."""
    known = {uniform_baseline.digest for uniform_baseline in uniform_baselines}
    by_digest: dict[str, TrialRecord] = {}
    for trial, evaluation in complete(record):
        by_digest.setdefault(evaluation.configuration.digest, trial)
    covers = []
    for uniform_baseline in uniform_baselines:
        own = by_digest.get(uniform_baseline.digest)
        by = None if own is None else smallest_cover(record, own, known)
        covers.append(Cover(uniform_baseline=uniform_baseline, trial=own, by=by))
    return covers


def smallest_cover(record: StudyRecord, uniform_baseline: TrialRecord, known: set[str]) -> TrialRecord | None:
    """The smallest point of the strict front that is no larger than the baseline and at least as accurate; one that
    is none itself where there is any. By values as they are: what the search found, not what can be told apart."""
    wanted = evaluation_of(uniform_baseline)

    def covers(trial: TrialRecord) -> bool:
        mine = evaluation_of(trial)
        return mine.download_bytes <= wanted.download_bytes and mine.accuracy >= wanted.accuracy

    def order(trial: TrialRecord) -> tuple[bool, int]:
        mine = evaluation_of(trial)
        return mine.configuration.digest in known, mine.download_bytes

    return min(filter(covers, Front(record).strict), key=order, default=None)


def print_covers(covers: Sequence[Cover]) -> None:
    """The uniform baselines and what covers each."""
    table = []
    for cover in covers:
        name = study_document.summary(cover.uniform_baseline)
        if cover.trial is None:
            table.append([name, "failed", *[""] * 6])
            continue
        mine = evaluation_of(cover.trial)
        cells = [name, f"{mine.accuracy:.4f}", str(mine.download_bytes)]
        if cover.by is None:
            table.append([*cells, "MISSED", *[""] * 4])
            continue
        theirs = evaluation_of(cover.by)
        cells += ["itself" if cover.by == cover.trial else str(cover.by.number)]
        cells += [f"{theirs.accuracy:.4f}", str(theirs.download_bytes)]
        cells += [
            f"{theirs.download_bytes / mine.download_bytes:.2f}",
            f"{theirs.accuracy - mine.accuracy:+.4f}",
        ]
        table.append(cells)
    header = ("baseline", "accuracy", "download", "by trial", "accuracy", "download", "size ratio", "gain")
    print_table("Corners and the front's point that covers each (validation accuracy, download bytes)", header, table)


@dataclass(frozen=True, kw_only=True)
class Tested:
    """A uniform baseline on test data, and the smallest other point of the front that covers it there; where none does,
    the most accurate that is no larger (None: all are larger). `gain` of that point over the baseline, `interval` its
    paired 95 % interval."""

    uniform_baseline: Configuration
    accuracy: float
    download_bytes: int
    by: Evaluation | None = None
    gain: float = -math.inf
    interval: stats.Interval = (-math.inf, math.inf)

    @property
    def covered(self) -> bool:
        """Whether the point is at least as accurate."""
        return self.gain >= 0

    @property
    def ratio(self) -> float | None:
        """How large the point is as a share of the baseline."""
        return None if self.by is None else self.by.download_bytes / self.download_bytes


def tested_of(record: StudyRecord, covers: Sequence[Cover], runs: Path) -> list[Tested]:
    """Each uniform baseline that could be built against the front, on the test split; nothing was chosen by it."""
    split = test_split(load_task("fashion-mnist"))
    known = {cover.uniform_baseline.digest for cover in covers}

    def scored(evaluation: Evaluation) -> Array:
        scores = split.scores(split.outputs((runs / evaluation.artifact).read_bytes()))
        assert scores is not None
        return np.asarray(scores, np.float64)

    front = [evaluation_of(trial) for trial in Front(record).strict]
    fresh = [(e, scored(e)) for e in front if e.configuration.digest not in known]
    uniform_baselines = [evaluation_of(cover.trial) for cover in covers if cover.trial is not None]
    return [against(uniform_baseline, scored(uniform_baseline), fresh) for uniform_baseline in uniform_baselines]


def against(uniform_baseline: Evaluation, scores: Array, points: Sequence[tuple[Evaluation, Array]]) -> Tested:
    """A uniform baseline against points, by their scores of each test sample."""
    found = Tested(
        uniform_baseline=uniform_baseline.configuration,
        accuracy=float(scores.mean()),
        download_bytes=uniform_baseline.download_bytes,
    )
    fitting = [(e, s) for e, s in points if e.download_bytes <= uniform_baseline.download_bytes]
    covering = [(e, s) for e, s in fitting if s.mean() >= scores.mean()]
    if not fitting:
        return found
    best = max(fitting, key=lambda point: float(point[1].mean()))
    by, theirs = min(covering, key=lambda point: point[0].download_bytes, default=best)
    gain = float(theirs.mean() - scores.mean())
    return replace(found, by=by, gain=gain, interval=stats.paired_interval(scores, theirs))


def print_tested(tested: Sequence[Tested]) -> None:
    """The uniform baselines on test data and what covers each."""
    table = []
    for row in tested:
        cells = [study_document.summary(row.uniform_baseline), f"{row.accuracy:.4f}", str(row.download_bytes)]
        if row.by is None or row.ratio is None:
            table.append([*cells, "MISSED", "", "", ""])
            continue
        cells += [str(row.by.download_bytes), f"{row.ratio:.2f}", f"{row.gain:+.4f}"]
        table.append([*cells, "[{:+.4f}, {:+.4f}]".format(*row.interval) + ("" if row.covered else " MISSED")])
    header = ("baseline", "test", "download", "by download", "size ratio", "gain", "paired 95 %")
    print_table("Corners on test data: the smallest point that covers each, else the most accurate", header, table)


def print_front(record: StudyRecord, uniform_baselines: Sequence[Configuration]) -> None:
    """The front, best first, beside the baseline."""
    known = {uniform_baseline.digest for uniform_baseline in uniform_baselines}
    members = [(str(t.number), evaluation_of(t)) for t in Front(record).trials]
    table = []
    for number, evaluation in [("float", record.baseline), *members]:
        test = record.test_accuracy.get(evaluation.sha256)
        ratio = evaluation.measurement.known_latency_ms / record.baseline.measurement.known_latency_ms
        size = record.baseline.download_bytes / evaluation.download_bytes
        cells = [number, f"{evaluation.accuracy:.4f}", "-" if test is None else f"{test:.4f}"]
        cells += [f"{size:.1f}", f"{evaluation.download_bytes}", f"{ratio:.2f}"]
        cells += ["baseline" if evaluation.configuration.digest in known else ""]
        table.append([*cells, study_document.summary(evaluation.configuration)])
    header = (
        "trial",
        "validation",
        "test",
        "times smaller",
        "download",
        "latency ratio",
        "",
        "configuration",
    )
    print_table("The front", header, table)


def goals_of(covers: Sequence[Cover], tested: Sequence[Tested]) -> list[Goal]:
    """All uniform baselines covered on validation data; on test data by other points, one much smaller."""
    covered = [row.ratio for row in tested if row.covered and row.ratio is not None]
    worse = sum(row.interval[1] < 0 for row in tested)
    smallest = min(covered, default=1.0)
    missed = [study_document.summary(cover.uniform_baseline) for cover in covers if cover.by is None]
    got = f"{len(covers) - len(missed)} of {len(covers)}" + (f", not {'; '.join(missed)}" if missed else "")
    wanted = "each uniform baseline: a point of the front no larger and at least as accurate (validation)"
    wanted_on_test = "each uniform baseline: a point that is none, no larger and at least as accurate (test)"
    return [
        Goal(wanted=wanted, got=got, met=not missed),
        Goal(
            wanted=wanted_on_test,
            got=f"{len(covered)} of {len(tested)}, {worse} surely not",
            met=len(covered) == len(tested),
        ),
        Goal(wanted="one of them at least 10 % smaller", got=f"size ratio {smallest:.2f}", met=smallest <= 0.9),
    ]


def print_summary(record: StudyRecord, covers: Sequence[Cover]) -> None:
    """Shares and hypervolume."""
    known = {cover.uniform_baseline.digest for cover in covers}
    members = [evaluation_of(trial) for trial in Front(record).trials]
    fresh = sum(member.configuration.digest not in known for member in members)
    beaten = sum(cover.by is not None and evaluation_of(cover.by).configuration.digest not in known for cover in covers)
    hypervolume = Front(record).hypervolume
    print(f"\n  points of the front that are none of them: {fresh} of {len(members)}, {fresh / len(members):.0%}")
    print(f"  uniform baselines covered by a point that is none: {beaten} of {len(covers)}")
    print(f"  hypervolume {'unknown' if hypervolume is None else f'{hypervolume:.4f}'}")


def main() -> int:
    """Search and compare; exit code 1 where a uniform baseline is not covered."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("--trials", type=int, default=100, help="complete trials (default 100)")
    parser.add_argument("--sampler", default="guided")
    parser.add_argument("--space", default="default")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--runs", type=Path, help="keep the study there, where a later run goes on")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    asked = parser.parse_args()
    print_run("Uniform baselines against the front", ("optuna", "ai-edge-litert", "ai-edge-quantizer"))
    budget = f"{asked.trials} trials of {asked.sampler}, seed {asked.seed}"
    print(f"  fashion-mnist on rpi4 (latency modelled), space {asked.space}, {budget}")
    with tempfile.TemporaryDirectory() as folder:
        runs = asked.runs or Path(folder)
        record, uniform_baselines = searched(asked, runs)
        covers = covers_of(record, uniform_baselines)
        tested = tested_of(record, covers, runs)
    print_covers(covers)
    print_tested(tested)
    print_front(record, uniform_baselines)
    print_summary(record, covers)
    return judge(goals_of(covers, tested))


if __name__ == "__main__":
    sys.exit(main())
