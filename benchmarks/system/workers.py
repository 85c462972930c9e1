"""What a second worker brings, and that its builds do not disturb a measurement.

Two searches of the ResNet-8 of `fashion-mnist` on rpi4 (modelled latency), default space, on the same layer tables: one
worker on one core, then two workers with one thread each. Candidates a minute from the first trial's begin to the last
one's end, so with suggestions, storage and waiting for each other; beside it the whole command with start and the
careful end. Candidates stopped early count, answers from the records do not.

Then the latency of the float network on `local`: alone; while another process builds candidates and pauses for
measurements, as workers do; and while one builds that does not. Rounds alternate, because a shared machine drifts.

Under 4 minutes: `python -m benchmarks.system.workers`. With --part rate or --part latency only that."""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from autocompress.evaluate.evaluator import Evaluator
from autocompress.latency.host.client import local_host
from autocompress.latency.source import Unscreened, latency_on
from autocompress.network.graph.layers import layers_of
from autocompress.network.tflite.graph import read_graph
from autocompress.records.configuration import Configuration, LayerChoice
from autocompress.search.storage import study_records
from autocompress.search.workers.locks import ProcessorLock
from autocompress.specs import load_device
from autocompress.tasks import load_task
from benchmarks.goals import Goal, judge, print_run, print_table

LEAST_GAIN = 1.7
MOST_CHANGE = 0.03  # of the median latency while another builds
DISTURBANCES = ("alone", "builds that pause", "builds that do not")


@dataclass(frozen=True, kw_only=True)
class Rate:
    """One search: how many candidates in `span_s` from the first trial's begin, `command_s` with start and end."""

    workers: int
    candidates: int
    span_s: float
    command_s: float

    @property
    def per_minute(self) -> float:
        """Candidates a minute."""
        return 60 * self.candidates / self.span_s


def searched(runs: Path, study: str, workers: int, trials: int, sampler: str) -> Rate:
    """A search by the command line. One worker is bound to one core; two get one thread each."""
    bound = ["taskset", "-c", str(min(os.sched_getaffinity(0)))] if workers == 1 else []
    command = [
        *bound,
        sys.executable,
        "-m",
        "autocompress.cli",
        "search",
        "--device",
        "rpi4",
        "--task",
        "fashion-mnist",
        "--runs",
        str(runs),
        "--study",
        study,
        "--workers",
        str(workers),
        "--trials",
        str(trials),
        "--sampler",
        sampler,
    ]
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    command_s = time.perf_counter() - start
    trial_list = study_records.load_study(runs, study, None).get_trials(deepcopy=False)
    fresh = [t for t in trial_list if t.state.is_finished() and not t.user_attrs.get("cached")]
    begins = [t.datetime_start for t in fresh if t.datetime_start is not None]
    ends = [t.datetime_complete for t in fresh if t.datetime_complete is not None]
    span_s = (max(ends) - min(begins)).total_seconds()
    return Rate(workers=workers, candidates=len(fresh), span_s=span_s, command_s=command_s)


def rates(asked: argparse.Namespace) -> list[Goal]:
    """Both searches and the goal on them."""
    with tempfile.TemporaryDirectory() as folder:
        runs = Path(folder)
        searched(runs, "tables", 2, 12, asked.sampler)  # past the uniform baselines: the layer tables are there
        found = [searched(runs, f"w{n}", n, asked.trials, asked.sampler) for n in (1, 2)]
    print_table(
        f"Candidates a minute, sampler {asked.sampler}",
        ["workers", "candidates", "seconds", "a minute", "whole command s"],
        [
            [str(r.workers), str(r.candidates), f"{r.span_s:.1f}", f"{r.per_minute:.1f}", f"{r.command_s:.1f}"]
            for r in found
        ],
    )
    gain = found[1].per_minute / found[0].per_minute
    goal = f"two workers with one thread each make >= {LEAST_GAIN} x the candidates of one"
    return [Goal(wanted=goal, got=f"{gain:.2f} x", met=gain >= LEAST_GAIN)]


def build_on(pauses: bool) -> None:
    """Build and judge candidates until the process is ended, as a worker does."""
    task, profile, floor = load_task("fashion-mnist"), load_device("rpi4"), ProcessorLock()
    with contextlib.ExitStack() as stack:
        latency = stack.enter_context(latency_on(profile)).bind(task.original)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if pauses:
            stack.enter_context(floor.building())
        bench = Evaluator(
            task,
            profile,
            Unscreened(latency),
            runs=folder,
            artifacts=folder,
            seed=0,
            threads=2,
            pause=floor.pause if pauses else lambda: None,
        )
        names = [layer.name for layer in layers_of(read_graph(task.network))]
        random = np.random.default_rng(0)
        for number in range(10**9):
            layers = {n: LayerChoice(bits=8, sparsity=float(random.choice([0.25, 0.5, 0.6]))) for n in names}
            bench.evaluate(Configuration(layers=layers).normalised())
            if number == 0:
                print("building", flush=True)


@contextlib.contextmanager
def builder(kind: str) -> Iterator[None]:
    """Another process that builds, past its start."""
    if kind == "alone":
        yield
        return
    how = "pausing" if kind == DISTURBANCES[1] else "heedless"
    words = [sys.executable, "-m", "benchmarks.system.workers", "--build", how]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"building\n"
            yield
        finally:
            process.kill()


def latencies(asked: argparse.Namespace) -> list[Goal]:
    """Measurements under each disturbance and the goal on them."""
    file, floor = load_task("fashion-mnist").original, ProcessorLock()
    found: dict[str, list[float]] = {kind: [] for kind in DISTURBANCES}
    with local_host("ai-edge-litert", 1) as host, floor.building():
        for _ in range(asked.rounds):
            for kind in DISTURBANCES:
                with builder(kind):
                    for _ in range(asked.measurements):
                        with floor.alone():
                            found[kind].append(host.measure(file, processes=3).known_latency_ms)
                        with floor.idle():
                            time.sleep(0.2)  # the other gets to build
    alone = float(np.median(found["alone"]))
    changes = {kind: float(np.median(values)) / alone - 1 for kind, values in found.items()}
    print_table(
        "Latency of the float ResNet-8 on local (us), measurements of 3 processes",
        ["another process", "measurements", "median", "p10", "p90", "change"],
        [
            [
                kind,
                str(len(values)),
                *(f"{1000 * float(np.quantile(values, q)):.1f}" for q in (0.5, 0.1, 0.9)),
                f"{100 * changes[kind]:+.1f} %",
            ]
            for kind, values in found.items()
        ],
    )
    change = changes[DISTURBANCES[1]]
    goal = f"another worker's builds change the median latency by <= {100 * MOST_CHANGE:.0f} %"
    return [Goal(wanted=goal, got=f"{100 * change:+.1f} %", met=abs(change) <= MOST_CHANGE)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--part", choices=("rate", "latency", "both"), default="both")
    parser.add_argument("--trials", type=int, default=60, help="complete trials of each search")
    parser.add_argument("--sampler", default="guided")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--measurements", type=int, default=5, help="a round and disturbance")
    parser.add_argument("--build", choices=("pausing", "heedless"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.build is not None:
        build_on(asked.build == "pausing")
    print_run("Workers", ("optuna", "ai-edge-litert", "numpy"))
    goals: list[Goal] = []
    if asked.part in ("rate", "both"):
        goals += rates(asked)
    if asked.part in ("latency", "both"):
        goals += latencies(asked)
    return judge(goals)


if __name__ == "__main__":
    sys.exit(main())
