"""The samplers at equal wall-clock: what share of each other front the guided sampler's front weakly dominates.

Each sampler runs `autocompress search` as a user does, one after the other, for the same time with all cores: start,
layer tables, storage and the careful end are in it. Fronts are in accuracy on validation data, modelled latency and
download. A point is covered where a point of guided's front is nowhere worse. About five minutes a sampler and seed:
`python -m benchmarks.search.wall_clock`; with `--runs DIR` the studies stay there, and finished ones are not run
again."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from autocompress import pareto
from autocompress.records.front import Front, evaluated_count, objective_vectors
from autocompress.records.study import StudyRecord
from autocompress.search.storage.study_records import load_study, read_record
from benchmarks.goals import Goal, judge, print_run, print_table

LEAST_COVERED = 0.95


def main() -> int:
    """Search with every sampler, compare the fronts; exit code 1 where a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--task", default="fashion-mnist")
    parser.add_argument("--device", default="rpi4")
    parser.add_argument("--time-budget", default="5m")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--samplers", nargs="+", default=["tpe", "nsga2", "random"])
    parser.add_argument("--runs", type=Path, help="keep the studies here")
    asked = parser.parse_args()
    print_run("Samplers at equal wall-clock", ("optuna", "ai-edge-litert", "numpy"))
    print(f"  {asked.task} on {asked.device}, {asked.time_budget} each, seeds {asked.seeds}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        runs = asked.runs or Path(folder)
        found = {
            (sampler, seed): searched(asked, runs / f"{sampler}-{seed}", sampler, seed)
            for seed in asked.seeds
            for sampler in ("guided", *asked.samplers)
        }
    table, goals = [], []
    for sampler in ("guided", *asked.samplers):
        mine = [found[sampler, seed] for seed in asked.seeds]
        share = float(np.median([covered(found["guided", seed], found[sampler, seed]) for seed in asked.seeds]))
        volume = float(np.median([Front(record).hypervolume or 0.0 for record in mine]))
        count = int(np.median([evaluated_count(record) for record in mine]))
        size = int(np.median([len(Front(record).strict) for record in mine]))
        table.append([sampler, str(count), str(size), f"{volume:.4f}", f"{share:.0%}"])
        if sampler != "guided":
            wanted = f"guided covers >= {LEAST_COVERED:.0%} of {sampler}'s front"
            goals.append(Goal(wanted=wanted, got=f"{share:.0%}", met=share >= LEAST_COVERED))
    print_table("Medians over seeds", ["sampler", "candidates", "front", "hypervolume", "covered by guided"], table)
    return judge(goals)


def searched(asked: argparse.Namespace, runs: Path, sampler: str, seed: int) -> StudyRecord:
    """The study of one search; layer tables are its own, so that guided pays for them."""
    done = runs / "done"
    if not done.exists():
        run_search(runs, asked.task, asked.device, asked.time_budget, sampler, seed)
        done.touch()
    return read_record(load_study(runs, "s", None))


def run_search(runs: Path, task: str, device: str, time_budget: str, sampler: str, seed: int) -> None:
    """The study "s" below `runs`, by the command that a user gives, in the default space."""
    command = [sys.executable, "-m", "autocompress.cli", "search", "--task", task, "--device", device]
    command += ["--sampler", sampler, "--seed", str(seed), "--time-budget", time_budget]
    command += ["--trials", "100000", "--runs", str(runs), "--study", "s"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def covered(guided: StudyRecord, other: StudyRecord) -> float:
    """The share of the other's front that a point of guided's front weakly dominates."""
    mine, theirs = vectors(guided), vectors(other)
    return float(np.mean([(mine <= point).all(axis=1).any() for point in theirs])) if len(theirs) else 1.0


def vectors(record: StudyRecord) -> pareto.Floats:
    """The objectives of the strict front, all minimised, (n, objectives)."""
    evaluations = [trial.evaluation for trial in Front(record).strict]
    return objective_vectors(record, [each for each in evaluations if each is not None])


if __name__ == "__main__":
    sys.exit(main())
