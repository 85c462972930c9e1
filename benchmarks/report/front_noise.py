"""What it changes that values which cannot be told apart are equal: stored studies' strict fronts against their fronts.

    python -m benchmarks.report.front_noise RUNS [--storage URL]

For each study of a runs folder: how many points the strict front has (values as they are), how many of them another one
of it beats in an objective beyond noise while it is level in the rest, and how many cannot be told from another at all;
the same of the front, where both must be 0; the knee of each; and the hypervolume of what was found, with its interval,
beside that of the front's points alone. Looked up pair by pair with plain loops, not by what thins the front."""

from __future__ import annotations

import argparse
import itertools
import math
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from autocompress import pareto
from autocompress.records.front import Front, evaluated, objective_vectors
from autocompress.records.hypervolume import volume
from autocompress.records.noise import Figures
from autocompress.records.study import StudyRecord, TrialRecord
from autocompress.search.storage.all_studies import read_all
from benchmarks.goals import print_run


def relations(record: StudyRecord, trials: Sequence[TrialRecord]) -> tuple[set[int], set[int]]:
    """The numbers of the trials that another of them beats, and of those that are level with another."""
    figures = Figures(
        [evaluated(trial) for trial in trials],
        [record.baseline] * len(trials),
        higher_is_better=record.higher_is_better,
        size=record.size,
    )
    columns, beaten, level = figures.columns(record.objectives), set(), set()
    for i, j in itertools.permutations(range(len(trials)), 2):
        better = [c.values[j] - c.values[i] > _margin(c.up[i], c.down[j], c.least[i], c.least[j]) for c in columns]
        worse = [c.values[i] - c.values[j] > _margin(c.up[j], c.down[i], c.least[j], c.least[i]) for c in columns]
        if any(better) and not any(worse):
            beaten.add(trials[j].number)
        if not any(better) and not any(worse):
            level.add(trials[j].number)
    return beaten, level


def _margin(up: float, down: float, first: float, second: float) -> float:
    return max(math.hypot(up, down), first, second)


def strict_knee(record: StudyRecord, trials: Sequence[TrialRecord]) -> TrialRecord:
    """The knee of the strict front by its values as they are."""
    sign = -1 if record.higher_is_better else 1
    limit = sign * record.baseline.accuracy + pareto.ACCURACY_SCALE
    working = [t for t in trials if sign * evaluated(t).accuracy < limit] or list(trials)
    return working[pareto.knee(objective_vectors(record, [evaluated(t) for t in working]))]


def words(record: StudyRecord, trial: TrialRecord, beaten: set[int]) -> str:
    """A point in a few figures."""
    found, measured = evaluated(trial), evaluated(trial).measurement
    interval = "" if measured.latency_ci_ms is None else " [{:.4g}, {:.4g}]".format(*measured.latency_ci_ms)
    test = record.test_accuracy.get(found.sha256)
    return (
        f"trial {trial.number}{' (beaten)' if trial.number in beaten else ''}: {found.accuracy:.4f} "
        f"(test {'-' if test is None else format(test, '.4f')}), {measured.known_latency_ms:.4g}{interval} ms, "
        f"{found.download_bytes} bytes, {found.configuration.activations}"
    )


def print_study(record: StudyRecord) -> bool:
    """Print a study; whether no point of its front is beaten by another or level with it."""
    front = Front(record)
    (was_beaten, was_level), (beaten, level) = (relations(record, trials) for trials in (front.strict, front.trials))
    print(f"\n{record.name}: {record.task} on {record.device}, {record.latency_source}, {len(record.trials)} trials")
    print(
        f"  strict front {len(front.strict)}: {len(was_beaten)} beaten by another, {len(was_level)} level with another"
    )
    print(f"  front        {len(front.trials)}: {len(beaten)} beaten by another, {len(level)} level with another")
    if front.trials:
        print(f"  knee before  {words(record, strict_knee(record, front.strict), was_beaten)}")
        print(f"  knee now     {words(record, front.pick('knee'), beaten)}")
    shown = volume(record, [evaluated(trial) for trial in front.trials])
    if front.hypervolume:
        print(f"  hypervolume  {front.hypervolume:.4f} ± {1.96 * front.hypervolume_sd:.4f}, of the front {shown:.4f}")
    return not beaten and not level


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--storage")
    arguments = parser.parse_args()
    print_run("Fronts under noise", ("numpy", "optuna"))
    records, unreadable = read_all(arguments.runs, arguments.storage)
    for each in unreadable:
        print(each, file=sys.stderr)
    fine = np.array([print_study(record) for record in records], dtype=np.bool_)
    print(
        f"\n{int(fine.sum())} of {len(records)} fronts hold no point that another beats or that is level with another"
    )
    return 0 if fine.all() and len(records) else 1


if __name__ == "__main__":
    sys.exit(main())
