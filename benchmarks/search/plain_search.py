"""Hypervolume over time: `autocompress search` against the plain pipeline, which TPE chooses the settings for.

The plain pipeline (plain_pipeline.py: tfmot's pruning and clustering, the TFLite converter, the accuracy) has one
sparsity, one cluster count and one dtype for the whole ResNet-8 of `fashion-mnist`, out of those of the default space;
Optuna's TPE proposes them, for the same three objectives. Both sides have the same validation images, modelled
latencies of rpi4, measure of a download, number of threads and time, one after the other. Ours starts as a user
starts it, so its start and its layer tables are in its time; the plain side's imports and first candidate are not.

Candidates of ours are counted twice: those evaluated on all validation data, and all that were begun (independent
solves, which screen, are counted by throughput.py). About 20 minutes: `python -m benchmarks.search.plain_search`."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna

from autocompress import pareto
from autocompress.compression.download import download_bytes
from autocompress.latency.source import latency_on
from autocompress.records.study import StudyRecord
from autocompress.search.storage.study_records import load_study, read_record
from autocompress.specs import load_device, load_space
from autocompress.tasks import load_task
from benchmarks.compress.one_shot import TFMOT_PACKAGES
from benchmarks.goals import Goal, judge, print_plot, print_run, print_table
from benchmarks.search.plain_pipeline import PlainCandidate, PlainPipeline, Setting
from benchmarks.search.wall_clock import run_search

TASK, DEVICE, SPACE, SHORT_EPOCH = "fashion-mnist", "rpi4", "default", 2_000
CORES = len(os.sched_getaffinity(0))  # a search takes all of them too
DTYPES = ("float32", "dynamic", "int8")
FROM_S = 60.0  # from here on ours is to be ahead
FULL = 6.0  # how many times as many candidates at full fidelity


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A candidate that was evaluated in full, `at_s` seconds after the start of its side."""

    at_s: float
    accuracy: float
    latency_ms: float
    download_bytes: int


def ours(asked: argparse.Namespace, runs: Path) -> tuple[StudyRecord, list[Candidate], int]:
    """The study of a search that ran for the asked time, its candidates, and how many trials were begun."""
    start = time.time()
    run_search(runs, TASK, DEVICE, f"{asked.minutes}m", "guided", asked.seed)
    study = load_study(runs, "s", None)
    record = read_record(study)
    ended = {t.number: t.datetime_complete for t in study.get_trials() if t.datetime_complete is not None}
    found = [
        Candidate(
            at_s=ended[trial.number].timestamp() - start,
            accuracy=trial.evaluation.accuracy,
            latency_ms=trial.evaluation.measurement.known_latency_ms,
            download_bytes=trial.evaluation.download_bytes,
        )
        for trial in record.trials
        if trial.evaluation is not None and not trial.cached
    ]
    stopped = sum(trial.state in ("stopped_early", "screened") for trial in record.trials)
    return record, found, len(found) + stopped


def plain(asked: argparse.Namespace) -> list[Candidate]:
    """The plain pipeline under TPE for the asked time."""
    task, profile = load_task(TASK), load_device(DEVICE)
    pipeline = PlainPipeline(task, SHORT_EPOCH, CORES)
    pipeline.candidate()  # imports, and what TensorFlow does once
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.TPESampler(seed=asked.seed, multivariate=True)
    study = optuna.create_study(directions=["maximize", "minimize", "minimize"], sampler=sampler)
    found: list[Candidate] = []
    with latency_on(profile) as latency:
        measure, start = latency.bind(task.original), time.time()
        while time.time() - start < 60 * asked.minutes:
            trial = study.ask()
            made = attempted(pipeline, setting(trial))
            if made is None:
                study.tell(trial, state=optuna.trial.TrialState.FAIL)
                continue
            latency_ms, size = measure(made.file, 1).known_latency_ms, download_bytes(made.file)
            study.tell(trial, [made.accuracy, latency_ms, size])
            found.append(
                Candidate(
                    at_s=time.time() - start,
                    accuracy=made.accuracy,
                    latency_ms=latency_ms,
                    download_bytes=size,
                )
            )
    return found


def attempted(pipeline: PlainPipeline, asked: Setting) -> PlainCandidate | None:
    """The candidate; None, with a line, where tfmot cannot make it: its k-means++ refuses a layer that has fewer
    weights left than clusters."""
    import tensorflow as tf

    try:
        return pipeline.candidate(asked)
    except tf.errors.InvalidArgumentError as fault:
        print(f"  plain: {asked} fails: {' '.join(str(fault).split())[:160]}", flush=True)
        return None


def setting(trial: optuna.Trial) -> Setting:
    """What TPE proposes, out of the space's sparsities and cluster counts."""
    values = load_space(SPACE).rules[0]
    assert values.sparsity is not None
    assert values.clusters is not None
    clusters: Any = trial.suggest_categorical("clusters", list(values.clusters))
    return Setting(
        sparsity=trial.suggest_categorical("sparsity", list(values.sparsity)),
        clusters=clusters,
        dtype=trial.suggest_categorical("dtype", DTYPES),
    )


def volumes(record: StudyRecord, candidates: Sequence[Candidate]) -> Callable[[float], float]:
    """Hypervolume by seconds, in the scale of our study."""
    assert record.int8_download_bytes is not None
    size = float(record.int8_download_bytes)

    def after(seconds: float) -> float:
        seen = [c for c in candidates if c.at_s <= seconds]
        return pareto.study_hypervolume(
            [c.accuracy for c in seen],
            [c.latency_ms for c in seen],
            [c.download_bytes for c in seen],
            baseline_accuracy=record.baseline.accuracy,
            baseline_latency_ms=record.baseline.measurement.known_latency_ms,
            int8_download_bytes=size,
        )

    return after


def main() -> int:
    """Run both sides; exit code 1 where a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=int, default=10, help="of each side (default 10)")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    print_run("Hypervolume over time", ("optuna", "ai-edge-litert", *TFMOT_PACKAGES))
    print(f"  {TASK} on {DEVICE}, {asked.minutes} minutes each, {CORES} threads, seed {asked.seed}", flush=True)
    with tempfile.TemporaryDirectory() as runs:
        record, mine, begun = ours(asked, Path(runs))
    theirs = plain(asked)
    end_s = min(60.0 * asked.minutes, mine[-1].at_s)
    sides = (("ours", volumes(record, mine)), ("plain", volumes(record, theirs)))
    moments = [s for s in (30, 60, 120, 180, 300, 600, 1200, 1800) if s < end_s] + [end_s]
    rows = [[name, *(f"{after(s):.4f}" for s in moments)] for name, after in sides]
    print_table("Hypervolume after so many seconds", ["side", *(f"{s:.0f}" for s in moments)], rows)
    curves = {name: [after(s) for s in np.linspace(0, end_s, 73)[1:]] for name, after in sides}
    print_plot("Hypervolume over time", curves, 0.0, f"0 ... {end_s:.0f} s")
    # Theirs changes when a candidate of theirs ends, ours never falls.
    seconds = [FROM_S, *(c.at_s for c in theirs if c.at_s > FROM_S), end_s]
    ahead = [sides[0][1](s) > sides[1][1](s) for s in seconds]
    per_hour = 3600 * len(theirs) / theirs[-1].at_s
    counted = [3600 * n / mine[-1].at_s for n in (len(mine), begun)]
    rows = [
        ["plain", f"{per_hour:.0f}", ""],
        ["ours, full", f"{counted[0]:.0f}", f"{counted[0] / per_hour:.1f}"],
        ["ours, begun", f"{counted[1]:.0f}", f"{counted[1] / per_hour:.1f}"],
    ]
    print_table("Candidates an hour", ["side", "candidates", "ratio"], rows)
    return judge(
        [
            Goal(
                wanted=f"more hypervolume at every moment from {FROM_S:.0f} s on",
                got=f"{sum(ahead)} of {len(ahead)} moments",
                met=all(ahead),
            ),
            Goal(
                wanted=f">= {FULL:g} x candidates an hour at full fidelity",
                got=f"{counted[0] / per_hour:.1f} x",
                met=counted[0] / per_hour >= FULL,
            ),
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
