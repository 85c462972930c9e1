"""Whether our latencies agree with those of litert-benchmark: same file, threads and runtime, in turn.

ResNet-8 (fashion-mnist) in float and plain static int8, and MobileNetV2 1.0 224 in float, one thread. A pair is one
process of ours and one run of the console script of ai-edge-litert, unrounded (see local_front.py); which of the two
goes first alternates. Compared are the medians over the pairs. About 3 minutes: `python -m
benchmarks.latency.agreement`."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from autocompress.latency.host.client import LEAST_RUN_S, Host, local_host
from autocompress.tasks import load_task
from benchmarks.goals import Goal, judge, print_run, print_table
from benchmarks.latency.published_points import convert
from benchmarks.search.local_front import SCRIPT, litert_benchmark, plain_int8

RELATIVE, ABSOLUTE_MS = 0.03, 0.005
LEAST_INFERENCES = 50


def networks() -> Iterator[tuple[str, bytes]]:
    """The files that are measured, by name."""
    task = load_task("fashion-mnist")
    yield "ResNet-8 float", task.original
    yield "ResNet-8 int8", plain_int8(task)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tf_keras

    yield "MobileNetV2 float", convert(tf_keras.applications.MobileNetV2(weights=None), "float32")


def pairs_of(host: Host, model: bytes, path: Path, pairs: int) -> tuple[list[float], list[float]]:
    """Milliseconds of ours and of the script's, a pair each; the script runs about as long as we do."""
    path.write_bytes(model)
    inferences = max(LEAST_INFERENCES, round(1e3 * LEAST_RUN_S / ours_of(host, model)))
    ours, theirs = [], []
    for number in range(pairs):
        if number % 2:
            theirs.append(litert_benchmark(path, inferences))
        ours.append(ours_of(host, model))
        if number % 2 == 0:
            theirs.append(litert_benchmark(path, inferences))
    return ours, theirs


def ours_of(host: Host, model: bytes) -> float:
    """The median of one process, in milliseconds."""
    return host.measure(model, processes=1).known_latency_ms


def main() -> int:
    """Measure in turn, print both sides, judge; exit code 1 where they do not agree."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=10)
    asked = parser.parse_args()
    print_run(f"Ours against {SCRIPT}", ("ai-edge-litert",))
    rows, goals = [], []
    with tempfile.TemporaryDirectory() as folder, local_host("ai-edge-litert", 1) as host:
        for name, model in list(networks()):  # all of them first: making them loads the machine
            ours, theirs = pairs_of(host, model, Path(folder, "model.tflite"), asked.pairs)
            us, them = float(np.median(ours)), float(np.median(theirs))
            rows.append([name, *(f"{1e3 * n:.1f}" for n in (us, min(ours), max(ours), them, min(theirs), max(theirs)))])
            rows[-1].append(f"{us / them:.3f}")
            wanted = f"{name} within {RELATIVE:.0%} or {1e3 * ABSOLUTE_MS:.0f} us"
            met = abs(us - them) <= max(RELATIVE * them, ABSOLUTE_MS)
            goals.append(Goal(wanted=wanted, got=f"ratio {us / them:.3f}, {1e3 * (us - them):+.1f} us", met=met))
    header = ("file", "ours us", "least", "most", SCRIPT, "least", "most", "ratio")
    print_table(f"Median of {asked.pairs} pairs (us)", header, rows)
    print(f"  load average {os.getloadavg()[0]:.1f} at the end")
    return judge(goals)


if __name__ == "__main__":
    sys.exit(main())
