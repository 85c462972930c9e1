"""How much faster a candidate of ours is had than by the plain pipeline of tensorflow-model-optimization.

Both on the ResNet-8 of `fashion-mnist`, 2,000 validation images, in one process and alternating: after every
few of our trials one candidate of the plain pipeline (plain_pipeline.py). Ours is a real search with its
storage: sampler `random`, device rpi4 (modelled latency), default space, once with the solver's independent
tier, once with sequential reconstruction. A trial has two times: from its creation in the storage to its end
there, and from one stored evaluation to the next, which holds everything else too; the ratio is of the
second, the longer. Uniform baselines and the trials right after a plain candidate are left out of the medians. 100
trials are what a search does by default: the independent tier remembers solved layers, so it speeds up.
About 5 minutes: `python -m benchmarks.search.throughput`."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import optuna

from autocompress.latency.source import latency_on
from autocompress.records.study import StudyRecord
from autocompress.search.sampler.stock import uniform_baselines
from autocompress.search.specification import Budget, Resources, Specification
from autocompress.search.study import Search
from autocompress.specs import load_device, load_space
from autocompress.tasks import LoadedTask, load_task
from benchmarks.compress.one_shot import TFMOT_PACKAGES
from benchmarks.goals import Goal, judge, print_run, print_table
from benchmarks.search.plain_pipeline import BATCH, PlainCandidate, PlainPipeline

GOALS = {"independent": 20.0, "sequential": 6.0}
TEST_IMAGES = 100  # the search ends with the front's test accuracy, which is no part of a candidate


@dataclass(frozen=True, kw_only=True)
class TrialTime:
    """What one of our trials took: `trial_s` in the storage, `lap_s` since the evaluation stored before it
    (None for the first and those behind a plain candidate), `build_s` of that for solving and building."""

    number: int
    uniform_baseline: bool
    trial_s: float
    lap_s: float | None
    build_s: float


@dataclass(frozen=True, kw_only=True)
class Side:
    """One tier beside the plain candidates that alternated with it."""

    tier: str
    opening_s: float
    trials: tuple[TrialTime, ...]
    plain: tuple[PlainCandidate, ...]

    @property
    def measured(self) -> list[TrialTime]:
        """The trials that count: sampled at random, not the first behind a plain candidate."""
        return [trial for trial in self.trials if not trial.uniform_baseline and trial.lap_s is not None]

    @property
    def laps_s(self) -> list[float]:
        """Their seconds from evaluation to evaluation."""
        return [trial.lap_s for trial in self.measured if trial.lap_s is not None]

    @property
    def ratio(self) -> float:
        """How many of our candidates are had in the time of a plain one."""
        return float(np.median([c.total_s for c in self.plain]) / np.median(self.laps_s))


def shortened(task: LoadedTask, images: int) -> LoadedTask:
    """The task with the first `images` validation images, and few test images."""
    assert task.y_validation is not None
    assert task.y_test is not None
    return replace(
        task,
        x_validation={name: values[:images] for name, values in task.x_validation.items()},
        y_validation=task.y_validation[:images],
        x_test={name: values[:TEST_IMAGES] for name, values in task.x_test.items()},
        y_test=task.y_test[:TEST_IMAGES],
    )


def run_tier(task: LoadedTask, tier: str, plain: PlainPipeline, asked: argparse.Namespace, runs: Path) -> Side:
    """Search with one tier, and a plain candidate after every few trials that were sampled at random."""
    device = load_device("rpi4")
    made: list[PlainCandidate] = []
    behind: set[int] = set()  # numbers of the trials that come right behind a plain candidate
    with latency_on(device) as latency:
        specification = Specification(
            task=task,
            profile=device,
            space=load_space("default"),
            latency_source=latency.source,
            sampler="random",
            seed=asked.seed,
            tier=tier,
        )
        resources = Resources(runs=runs, name=f"throughput-{tier}", threads=asked.threads)
        budget = Budget(trials=asked.trials)
        start = time.perf_counter()
        with Search(specification, resources, latency.bind(task.original), budget=budget) as search:
            opening_s = time.perf_counter() - start
            known = {
                uniform_baseline.digest for uniform_baseline in uniform_baselines(search.activations, search.choices)
            }
            every = max(1, (asked.trials - len(known)) // (asked.repeats + 1))  # the last trials are ours
            search.run(interlude(plain, made, behind, len(known), every, asked.repeats))
            trials = trial_times(search.study, known, behind)
    return Side(tier=tier, opening_s=opening_s, trials=trials, plain=tuple(made))


def interlude(
    plain: PlainPipeline,
    made: list[PlainCandidate],
    behind: set[int],
    baseline_count: int,
    every: int,
    most: int,
) -> Callable[[StudyRecord], None]:
    """What happens after each trial: nothing, or a plain candidate, appended to `made`."""

    def on_trial(record: StudyRecord) -> None:
        done = len(record.trials)
        sampled = done - baseline_count
        if sampled > 0 and sampled % every == 0 and len(made) < most:
            made.append(plain.candidate())
            print(f"  {done} trials, {len(made)} plain candidates", file=sys.stderr, flush=True)
            behind.add(done)

    return on_trial


def trial_times(study: optuna.Study, known: set[str], behind: set[int]) -> tuple[TrialTime, ...]:
    """The times of all complete trials that were evaluated, not answered from the study's records."""
    from autocompress.records.study import Evaluation

    times = []
    for trial in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,)):
        if trial.user_attrs.get("cached"):
            continue
        evaluation = Evaluation.from_dict(trial.user_attrs["evaluation"])
        assert trial.datetime_start is not None
        assert trial.datetime_complete is not None
        spoiled = trial.number == 0 or trial.number in behind
        times.append(
            TrialTime(
                number=trial.number,
                uniform_baseline=evaluation.configuration.digest in known,
                trial_s=(trial.datetime_complete - trial.datetime_start).total_seconds(),
                lap_s=None if spoiled else float(trial.user_attrs["wall_s"]),
                build_s=evaluation.build_s or 0.0,
            )
        )
    return tuple(times)


def print_sides(sides: Sequence[Side]) -> None:
    """Medians of both, and their ratio."""
    rows = []
    for side in sides:
        plain = [candidate.total_s for candidate in side.plain]
        builds = float(np.median([trial.build_s for trial in side.measured]))
        trials = float(np.median([trial.trial_s for trial in side.measured]))
        plain_median, lap = float(np.median(plain)), float(np.median(side.laps_s))
        low, high = np.quantile(side.laps_s, (0.25, 0.75))
        ours = [str(len(side.laps_s)), f"{lap:.3f}", f"{low:.3f}-{high:.3f}", f"{builds:.3f}"]
        theirs = [str(len(plain)), f"{plain_median:.2f}", f"{min(plain):.2f}-{max(plain):.2f}"]
        rows.append([side.tier, f"{side.ratio:.1f}", f"{plain_median / trials:.1f}", *ours, *theirs])
    ours_header, theirs_header = ("ours", "s", "quartiles", "solve+build s"), ("plain", "s", "range")
    header = ("tier", "ratio", "of trials", *ours_header, *theirs_header)
    print_table("Plain candidate / our candidate (medians; seconds beside)", header, rows)


def print_plain(candidates: Sequence[PlainCandidate]) -> None:
    """Where the plain pipeline's time goes, and that its candidates work."""
    steps = ("prune_s", "cluster_s", "convert_s", "evaluate_s", "total_s")
    medians = [float(np.median([getattr(c, step) for c in candidates])) for step in steps]
    accuracy = np.median([candidate.accuracy for candidate in candidates])
    size = np.median([len(candidate.file) for candidate in candidates])
    row = [*(f"{value:.2f}" for value in medians), f"{accuracy:.4f}", f"{size:.0f}"]
    header = (*(step[:-2] for step in steps), "accuracy", "file bytes")
    print_table("The plain pipeline, median seconds a step", header, [row])


def print_first(side: Side) -> None:
    """The first trials, which trace the network and make templates."""
    first = side.trials[: sum(trial.uniform_baseline for trial in side.trials) + 3]
    shown = " ".join(f"{trial.trial_s:.2f}{'u' if trial.uniform_baseline else ''}" for trial in first)
    print(f"  {side.tier}: opening (baseline, ranges) {side.opening_s:.2f} s")
    print(f"    its first trials (u: uniform baseline) {shown} s")


def goals_of(sides: Sequence[Side]) -> list[Goal]:
    """The stated ratios."""
    return [
        Goal(
            wanted=f"{side.tier} tier: ratio of medians >= {GOALS[side.tier]:g}",
            got=f"{side.ratio:.1f}",
            met=side.ratio >= GOALS[side.tier],
        )
        for side in sides
    ]


def options() -> argparse.Namespace:
    """What was asked for on the command line."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument(
        "--trials", type=int, default=100, help="our trials a tier, uniform ones included (default 100)"
    )
    parser.add_argument("--repeats", type=int, default=4, help="plain candidates beside each tier (default 4)")
    parser.add_argument("--images", type=int, default=2_000, help="validation images (default 2,000)")
    parser.add_argument("--short-epoch", type=int, default=2_000, help="images of a short epoch (default 2,000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    return parser.parse_args()


def main() -> int:
    """Run both sides; exit code 1 where a ratio is missed."""
    asked = options()
    packages = ("optuna", "ai-edge-litert", "ai-edge-quantizer", *TFMOT_PACKAGES)
    print_run("Candidates in the time of a plain pipeline's", packages)
    task = shortened(load_task("fashion-mnist"), asked.images)
    plain = PlainPipeline(task, asked.short_epoch, asked.threads)
    warm_up = plain.candidate()
    sides = []
    with tempfile.TemporaryDirectory() as runs:
        for tier in GOALS:
            sides.append(run_tier(task, tier, plain, asked, Path(runs)))
    print(f"  {asked.images} validation images, {asked.threads} threads each")
    epoch = f"{plain.images} images a short epoch, batches of {BATCH}"
    print(f"  plain: {epoch}; the first candidate (not counted) took {warm_up.total_s:.1f} s")
    for side in sides:
        print_first(side)
    print_sides(sides)
    print_plain([candidate for side in sides for candidate in side.plain])
    return judge(goals_of(sides))


if __name__ == "__main__":
    sys.exit(main())
