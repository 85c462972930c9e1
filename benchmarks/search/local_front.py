"""Whether the latencies of a `--device local` search hold: its front measured again by litert-benchmark.

The search is the command line's own, on fashion-mnist. Then the front's files, the float network and plain
int8 (ai-edge-quantizer's own weights and scales) are measured round robin by the console script
`litert-benchmark` of ai-edge-litert, one thread, one fresh process a file and round. It rounds what it writes
to 0.01 ms, more than the points of a front lie apart: its own `main` is run with that rounding taken off.
Compared are each point's latency, ours against the median over the rounds, and the order (Spearman): files that
run the same kernels (network/pattern.py) have no order among themselves, so each of them stands with the median
over the rounds of all; the correlation without that is shown beside. And is a point faster than plain int8 at
plain int8's accuracy? If not, the reason is shown.
About 6 minutes: `python -m benchmarks.search.local_front`."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from autocompress import stats
from autocompress.compression.template import quantize_plainly
from autocompress.latency.source import latency_on
from autocompress.network.graph import trace
from autocompress.network.graph.kernel_pattern import kernel_pattern
from autocompress.network.graph.layers import layers_of
from autocompress.network.tflite import flatbuffer
from autocompress.network.tflite.graph import read_graph
from autocompress.network.tflite.interpreter import Runner
from autocompress.records.configuration import Configuration
from autocompress.records.measurement import Measurement
from autocompress.report.study_document import summary
from autocompress.specs import load_device
from autocompress.tasks import LoadedTask, load_task
from benchmarks.goals import Goal, judge, print_run, print_table
from benchmarks.task_splits import validation_split

LEAST_SPEARMAN, RELATIVE, ABSOLUTE_MS = 0.9, 0.10, 0.005
SCRIPT = "litert-benchmark"
UNROUNDED = "import sys, {module} as tool; tool.round = lambda value, digits: value; sys.exit(tool.{function}())"
PLAIN, FLOAT = "plain int8", "float"
CALIBRATION_SAMPLES, CHUNK, PROCESSES = 512, 64, 5


@dataclass(frozen=True, kw_only=True)
class Point:
    """A file with its validation accuracy, its latency by the search and, a round each, by litert-benchmark."""

    name: str
    file: Path
    accuracy: float
    ours_ms: float
    interval_ms: tuple[float, float] | None
    what: str
    rounds_ms: tuple[float, ...] = ()

    @property
    def theirs_ms(self) -> float:
        """Median over the rounds."""
        return float(np.median(self.rounds_ms))

    @property
    def agrees(self) -> bool:
        """Whether the two differ by no more than 10 % or 5 us."""
        return abs(self.ours_ms - self.theirs_ms) <= max(RELATIVE * self.theirs_ms, ABSOLUTE_MS)


# --- the search


def searched(asked: argparse.Namespace, runs: Path) -> dict[str, Any]:
    """The document of a search on this machine, by the command line."""
    command = [sys.executable, "-m", "autocompress.cli", "search", "--device", "local", "--json"]
    command += ["--task", "fashion-mnist", "--trials", str(asked.trials), "--seed", str(asked.seed)]
    command += ["--space", asked.space, "--runs", str(runs), "--study", "local-front"]
    finished = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    document: dict[str, Any] = json.loads(finished.stdout)
    return document


def points_of(document: Mapping[str, Any], runs: Path) -> list[Point]:
    """The points of the front."""
    return [
        Point(
            name=str(entry["trial"]),
            file=runs / entry["artifact"],
            accuracy=entry["accuracy"],
            ours_ms=entry["latency_ms"],
            interval_ms=tuple(entry["latency_ci_ms"]),
            what=summary(Configuration.from_dict(entry["configuration"])),
        )
        for entry in document["front"]
    ]


def references(task: LoadedTask, folder: Path) -> list[Point]:
    """The float network and plain int8, measured as carefully as the reported front."""
    files = {FLOAT: task.original, PLAIN: plain_int8(task)}
    split = validation_split(task)
    found = []
    with latency_on(load_device("local")) as latency:
        measure = latency.bind(task.original)
        for name, model in files.items():
            path = folder / f"{name.replace(' ', '-')}.tflite"
            path.write_bytes(model)
            found.append(reference(name, path, split.quality(model).value, measure(model, PROCESSES)))
    return found


def reference(name: str, path: Path, accuracy: float, measured: Measurement) -> Point:
    """A file that is not of the search as a point."""
    return Point(
        name=name,
        file=path,
        accuracy=accuracy,
        ours_ms=measured.known_latency_ms,
        interval_ms=measured.latency_ci_ms,
        what="ai-edge-quantizer's own" if name == PLAIN else "as given",
    )


def plain_int8(task: LoadedTask) -> bytes:
    """What ai-edge-quantizer makes of the network: static int8, ranges from the task's calibration data."""
    layers = layers_of(read_graph(task.network))
    indices = Runner(task.network).input_indices
    inputs = {index: task.x_calibration[name][:CALIBRATION_SAMPLES] for name, index in indices.items()}
    return quantize_plainly(task.network, layers, trace.activation_ranges(task.network, inputs, CHUNK, 1))


# --- litert-benchmark


def measured_again(points: Sequence[Point], asked: argparse.Namespace) -> list[Point]:
    """The points with their latencies by litert-benchmark, round robin."""
    rounds: list[list[float]] = [[] for _ in points]
    for number in range(asked.rounds):
        print(f"  {SCRIPT}: round {number + 1} of {asked.rounds}", file=sys.stderr, flush=True)
        for found, point in zip(rounds, points, strict=True):
            found.append(litert_benchmark(point.file, asked.inferences))
    return [replace(point, rounds_ms=tuple(found)) for point, found in zip(points, rounds, strict=True)]


def litert_benchmark(model: Path, inferences: int) -> float:
    """The median latency in milliseconds of one run of the script, unrounded."""
    (script,) = metadata.entry_points(group="console_scripts", name=SCRIPT)
    code = UNROUNDED.format(module=script.module, function=script.attr)
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder, "result.json")
        command = [sys.executable, "-c", code, "--model", str(model), "--num_threads", "1"]
        command += ["--num_runs", str(inferences), "--warmup_runs", str(max(10, inferences // 10))]
        command += ["--result_json", str(result)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if not result.is_file():
            raise RuntimeError(f"{SCRIPT} failed on {model}: {done.stderr[-500:]}")
        return float(json.loads(result.read_text())["latency"]["median_ms"])


# --- comparison


def print_points(points: Sequence[Point], float_ms: float) -> None:
    """Both latencies of each point, beside the float network's."""
    table = []
    for point in points:
        low, high = point.interval_ms or (point.ours_ms, point.ours_ms)
        cells = [point.name, f"{point.accuracy:.4f}", f"{point.ours_ms / float_ms:.3f}"]
        cells += [f"{point.ours_ms * 1e3:.1f}", f"{low * 1e3:.1f}-{high * 1e3:.1f}"]
        cells += [
            f"{point.theirs_ms * 1e3:.1f}",
            f"{min(point.rounds_ms) * 1e3:.1f}-{max(point.rounds_ms) * 1e3:.1f}",
        ]
        cells += [f"{point.ours_ms / point.theirs_ms:.3f}", "" if point.agrees else "APART", point.what]
        table.append(cells)
    header = ("trial", "accuracy", "of float", "ours us", "interval", SCRIPT, "rounds", "ratio", "", "what")
    print_table("Latency by the search and by litert-benchmark (us; validation accuracy)", header, table)


def rank_correlation(points: Sequence[Point]) -> float:
    """Spearman's correlation of both latencies; NaN where one side is all ties."""
    return float(spearmanr([p.ours_ms for p in points], [p.theirs_ms for p in points]).statistic)


def with_pooled_rounds(points: Sequence[Point]) -> list[Point]:
    """The points, those of one kernel pattern each with the rounds of all."""
    rounds: dict[str, tuple[float, ...]] = {}
    patterns = [kernel_pattern(point.file.read_bytes()) for point in points]
    for pattern, point in zip(patterns, points, strict=True):
        rounds[pattern] = (*rounds.get(pattern, ()), *point.rounds_ms)
    return [replace(point, rounds_ms=rounds[pattern]) for pattern, point in zip(patterns, points, strict=True)]


def reversed_pairs(points: Sequence[Point]) -> tuple[int, int]:
    """How many pairs stand in the other order, and how many of them although both sides are sure of theirs: our
    intervals and their rounds do not overlap."""
    swapped = sure = 0
    for n, a in enumerate(points):
        for b in points[n + 1 :]:
            if (a.ours_ms - b.ours_ms) * (a.theirs_ms - b.theirs_ms) < 0:
                swapped += 1
                sure += apart(a.interval_ms, b.interval_ms) and apart(a.rounds_ms, b.rounds_ms)
    return swapped, sure


def apart(a: Sequence[float] | None, b: Sequence[float] | None) -> bool:
    """Whether the ranges of two sets of values do not overlap."""
    return bool(a and b) and (max(a or ()) < min(b or ()) or max(b or ()) < min(a or ()))


def faster_than_plain(front: Sequence[Point], plain: Point) -> tuple[bool, str]:
    """Whether a point of the front is surely faster than plain int8 at its accuracy, and the words for it."""
    able = [point for point in front if point.accuracy >= plain.accuracy]
    if not able:
        best = max(front, key=lambda point: point.accuracy)
        return (
            False,
            f"no point is as accurate ({plain.accuracy:.4f}); the best, {best.name}, has {best.accuracy:.4f}",
        )
    fastest = min(able, key=lambda point: point.ours_ms + point.theirs_ms)
    ratios = np.array(fastest.rounds_ms) / np.array(plain.rounds_ms)
    low, high = stats.bootstrap_interval(ratios, "median")
    ours = fastest.ours_ms / plain.ours_ms
    said = (
        f"trial {fastest.name} ({fastest.what}), fastest of {len(able)} at its accuracy, takes {ours:.3f} of its "
        f"time by the search, {np.median(ratios):.3f} [{low:.3f}, {high:.3f}] by {SCRIPT}"
    )
    if high < 1 and ours < 1:
        return True, said
    return False, f"none: {said}; {why_not_faster(fastest, plain)}"


def why_not_faster(point: Point, plain: Point) -> str:
    """What the operators of the two files say."""
    mine, theirs = operators(point.file), operators(plain.file)
    if mine == theirs:
        return (
            f"both run the same {len(mine)} operators on the same kernels, and zeros, levels and clusters of dense "
            "weights do not change what these do: only fewer channels would"
        )
    more = [op for op in mine if mine.count(op) > theirs.count(op)]
    return f"its operators are others ({len(mine)} against {len(theirs)}; more of: {', '.join(sorted(set(more)))})"


def operators(path: Path) -> list[str]:
    """Each operator of a file with the types of its inputs, in order."""
    tree = flatbuffer.read(path.read_bytes())
    tensors = tree.subgraphs[0].tensors
    return [
        f"{flatbuffer.op_name(tree, op)}({', '.join(str(tensors[i].type) for i in op.inputs if i >= 0)})"
        for op in tree.subgraphs[0].operators
    ]


def goals_of(front: Sequence[Point], plain: Point) -> list[Goal]:
    """Order, agreement, and a point faster than plain int8 or the reason why there is none."""
    pooled = with_pooled_rounds(front)
    spearman, (swapped, sure) = rank_correlation(pooled), reversed_pairs(pooled)
    order = f"{spearman:.3f} over {len(front)} points of {len({p.theirs_ms for p in pooled})} kernel patterns; "
    order += f"{swapped} pairs reversed, {sure} of them surely so; of single files {rank_correlation(front):.3f}"
    apart_names = [point.name for point in front if not point.agrees]
    faster, said = faster_than_plain(front, plain)
    return [
        Goal(wanted=f"Spearman >= {LEAST_SPEARMAN}", got=order, met=spearman >= LEAST_SPEARMAN),
        Goal(
            wanted=f"each point within {RELATIVE:.0%} or {ABSOLUTE_MS * 1e3:.0f} us",
            got=f"apart: {', '.join(apart_names)}" if apart_names else "all",
            met=not apart_names,
        ),
        # Having none is allowed if the reason is told.
        Goal(
            wanted="a point faster than plain int8 at its accuracy, or why not",
            got=said,
            met=faster or bool(said),
        ),
    ]


def main() -> int:
    """Search, measure again, compare; exit code 1 where order or agreement is missed."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("--trials", type=int, default=40, help="complete trials of the search (default 40)")
    parser.add_argument("--space", default="default")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=5, help="runs of litert-benchmark a file (default 5)")
    parser.add_argument("--inferences", type=int, default=1_000, help="inferences of a run (default 1,000)")
    asked = parser.parse_args()
    print_run("A measured front, measured again", ("ai-edge-litert", "ai-edge-quantizer", "optuna"))
    print(f"  fashion-mnist on local, space {asked.space}, {asked.trials} trials, seed {asked.seed};")
    print(f"  {SCRIPT}: {asked.rounds} rounds of {asked.inferences} inferences, 1 thread", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        runs = Path(folder)
        front = points_of(searched(asked, runs), runs)
        everything = measured_again([*references(load_task("fashion-mnist"), runs), *front], asked)
        (float_point, plain), front = everything[:2], everything[2:]
        print(f"  load average {os.getloadavg()[0]:.1f} at the end")
        print_points(everything, float_point.ours_ms)
        return judge(goals_of(front, plain))


if __name__ == "__main__":
    sys.exit(main())
