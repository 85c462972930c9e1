"""Whether a measurement repeats: the ratio to the interleaved baseline and the printed intervals, over 10
measurements of one file, and what a process costs beside its warm-up and timed runs.

The file is ResNet-8 (fashion-mnist) in plain static int8, the baseline the float network, on this machine, one thread;
3 processes each, as while searching, and 5, as for the reported front and `autocompress measure`. As in a search, a
doubtful measurement (the baseline moved by more than 5 %) is made again, at most twice.
About 2 minutes: `python -m benchmarks.latency.repeatability`."""

from __future__ import annotations

import argparse
import os
import sys
import time

import numpy as np

from autocompress.latency.host.client import LEAST_RUN_S, WARMUP_S, Host, local_host
from autocompress.latency.source import steady
from autocompress.records.measurement import Measurement
from autocompress.tasks import load_task
from benchmarks.goals import Goal, judge, print_run, print_table
from benchmarks.search.local_front import plain_int8

MOST_SPREAD, LEAST_HELD, MOST_COST_MS = 0.05, 0.9, 50.0
CHILDREN = 20


def held(values: list[float], intervals: list[tuple[float, float] | None]) -> int:
    """In how many of the intervals the median of all values lies."""
    grand = float(np.median(values))
    return sum(ends is not None and ends[0] <= grand <= ends[1] for ends in intervals)


def spread(values: list[float]) -> float:
    """(p90 - p10) / median."""
    low, middle, high = np.quantile(values, (0.1, 0.5, 0.9))
    return float((high - low) / middle)


def width(values: list[float], intervals: list[tuple[float, float] | None]) -> float:
    """The median width of the intervals, of the value they are around."""
    return float(np.median([(e[1] - e[0]) / v for v, e in zip(values, intervals, strict=True) if e is not None]))


def goals_of(processes: int, found: list[Measurement]) -> tuple[list[list[str]], list[Goal]]:
    """Table rows and goals of the measurements with so many processes each."""
    sides = {
        "ratio": ([m.ratio_to_baseline or np.nan for m in found], [m.ratio_ci for m in found]),
        "latency": ([m.known_latency_ms for m in found], [m.latency_ci_ms for m in found]),
    }
    rows, goals = [], []
    for name, (values, intervals) in sides.items():
        count = held(values, intervals)
        rows.append([f"{processes} processes", name, f"{np.median(values):.4f}", f"{min(values):.4f}"])
        rows[-1] += [f"{max(values):.4f}", f"{spread(values):.2%}", f"{width(values, intervals):.2%}"]
        rows[-1] += [f"{count} of {len(found)}"]
        if name == "ratio":
            got = f"{spread(values):.2%}"
            wanted = f"{processes} processes: (p90 - p10) / median of the ratio <= {MOST_SPREAD:.0%}"
            goals.append(Goal(wanted=wanted, got=got, met=spread(values) <= MOST_SPREAD))
        wanted = f"{processes} processes: the grand median of the {name} in >= {LEAST_HELD:.0%} of the intervals"
        goals.append(Goal(wanted=wanted, got=f"{count} of {len(found)}", met=count >= LEAST_HELD * len(found)))
    return rows, goals


def cost_ms(host: Host, model: bytes) -> list[float]:
    """Milliseconds of a measurement of one process beside its warm-up and timed runs: the request, the fork, loading,
    the first inference, the samples' way back. Whatever the loops run over counts too."""
    costs = []
    for _ in range(CHILDREN):
        start = time.perf_counter()
        host.measure(model, processes=1)
        costs.append(1e3 * (time.perf_counter() - start - WARMUP_S - LEAST_RUN_S))
    return costs


def main() -> int:
    """Measure, print, judge; exit code 1 where a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measurements", type=int, default=10)
    asked = parser.parse_args()
    print_run("The same measurement again", ("ai-edge-litert",))
    task = load_task("fashion-mnist")
    model, baseline, rows, goals = plain_int8(task), task.original, [], []
    with local_host("ai-edge-litert", 1) as host:
        for processes in (3, 5):
            found = [steady(host, model, baseline, processes) for _ in range(asked.measurements)]
            more = goals_of(processes, found)
            rows += more[0]
            goals += more[1]
            print(f"  {processes} processes: {sum(m.doubtful for m in found)} of {len(found)} stayed doubtful")
        costs = cost_ms(host, model)
    header = ("", "what", "median", "least", "most", "(p90-p10)/median", "interval's width", "held")
    print_table(f"{asked.measurements} measurements of one file", header, rows)
    got = f"median {np.median(costs):.1f} ms, most {max(costs):.1f} ms over {CHILDREN}"
    goals.append(
        Goal(
            wanted=f"a process costs <= {MOST_COST_MS:.0f} ms more", got=got, met=bool(np.median(costs) <= MOST_COST_MS)
        )
    )
    print(f"  load average {os.getloadavg()[0]:.1f} at the end")
    return judge(goals)


if __name__ == "__main__":
    sys.exit(main())
