"""The front against what a user of ai-edge-quantizer gets from its uniform recipes: int8 and int4, each algorithm
that runs, on the ResNet-8 of `fashion-mnist` and this machine (device `local`, latencies measured).

For each recipe the front should have a point that is smaller, not slower and at least as accurate on the **test**
split. The recipes' files are measured by us as the front's are: 5 processes, in turn with the float network; what
counts is the ratio to it, and two ratios are told apart where their 95 % intervals are. A recipe that cannot be made
or run is listed with the reason. The search sees validation data only. About 8 minutes on an idle machine:
`python -m benchmarks.search.recipes`; with `--runs DIR` the study stays there and is gone on with."""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from autocompress.compression.download import download_bytes
from autocompress.errors import CandidateError
from autocompress.evaluate.quality import Split
from autocompress.latency.source import latency_on
from autocompress.network.graph import trace
from autocompress.network.tflite.graph import read_graph
from autocompress.network.tflite.interpreter import Runner
from autocompress.records.front import Front
from autocompress.records.measurement import Measurement
from autocompress.records.study import StudyRecord
from autocompress.search.specification import Budget, Resources, Specification
from autocompress.search.study import Search
from autocompress.specs import load_device, load_space
from autocompress.tasks import LoadedTask, load_task
from benchmarks.goals import Goal, judge, print_run, print_table
from benchmarks.task_splits import test_split

RECIPES = (
    "static_wi8_ai8",
    "static_wi8_ai16",
    "dynamic_wi8_afp32",
    "weight_only_wi8_afp32",
    "dynamic_wi4_afp32",
    "weight_only_wi4_afp32",
)
ALGORITHMS = ("MIN_MAX_UNIFORM_QUANT", "MSE", "OCTAV", "GPTQ", "OSCAR", "HADAMARD_ROTATION")
CALIBRATION = 512
PROCESSES = 5


@dataclass(frozen=True, kw_only=True)
class Point:
    """A file: its download, accuracy on test data, and latency measured in turn with the float network's."""

    name: str
    download_bytes: int
    test_accuracy: float
    latency: Measurement

    @property
    def ratio(self) -> float:
        """Its time in units of the float network's."""
        assert self.latency.ratio_to_baseline is not None
        return self.latency.ratio_to_baseline

    def beats(self, other: Point) -> bool:
        """Smaller, not slower and at least as accurate."""
        fastest, slowest = (self.latency.ratio_ci or (self.ratio,))[0], (other.latency.ratio_ci or (other.ratio,))[-1]
        not_slower = self.ratio <= other.ratio or fastest <= slowest
        return self.download_bytes < other.download_bytes and self.test_accuracy >= other.test_accuracy and not_slower


def recipe_files(task: LoadedTask) -> Iterator[tuple[str, bytes | str]]:
    """Each recipe's file, or why there is none."""
    from ai_edge_quantizer import algorithm_manager, recipe

    statistics = calibrated(task)
    for name in RECIPES:
        for algorithm in ALGORITHMS:
            key = algorithm_manager.AlgorithmName[algorithm]
            yield f"{name} {algorithm}", made(task.network, getattr(recipe, name), key, statistics)


def calibrated(task: LoadedTask) -> dict[str, Any]:
    """The smallest and largest value of every tensor on calibration data."""
    runner = Runner(task.network)
    chosen = {i: task.x_calibration[name][:CALIBRATION] for name, i in runner.input_indices.items()}
    ranges = trace.activation_ranges(task.network, chosen, 64, 1)
    ranks = {tensor.name: (1,) * len(tensor.shape) for tensor in read_graph(task.network).tensors}
    return {
        name: {"min": np.full(ranks[name], low, np.float32), "max": np.full(ranks[name], high, np.float32)}
        for name, (low, high) in ranges.items()
    }


def made(network: bytes, recipe: Any, algorithm: Any, statistics: dict[str, Any]) -> bytes | str:
    """The quantized network; the reason, as one line, where the recipe fails."""
    from ai_edge_quantizer import quantizer

    nowhere = io.StringIO()
    try:
        with contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            asked = recipe(algorithm_key=algorithm)
            maker = quantizer.Quantizer(bytearray(network), asked)
            needed = statistics if maker.need_calibration else None
            return bytes(maker.quantize(needed, enable_progress_report=False).quantized_model)
    except Exception as fault:  # whatever it is: another's program, and the reason is printed
        return f"{type(fault).__name__}: {' '.join(str(fault).split())[:90]}"


def searched(asked: argparse.Namespace, task: LoadedTask, runs: Path) -> tuple[StudyRecord, list[Point], list[Point]]:
    """The study, the front's points and the recipes', measured on one host."""
    profile = load_device("local")
    with latency_on(profile) as latency:
        specification = Specification(
            task=task, profile=profile, space=load_space(asked.space), latency_source=latency.source, seed=asked.seed
        )
        resources = Resources(runs=runs, name="recipes", threads=asked.threads)
        budget = Budget(trials=asked.trials)
        measure = latency.bind(task.original)
        with Search(specification, resources, measure, budget=budget) as search:
            record = search.run(lambda _: None)
        split = test_split(task)
        recipes = list(recipe_points(task, split, measure))
    front = [
        Point(
            name=f"trial {t.number}",
            download_bytes=t.evaluation.download_bytes,
            test_accuracy=split.quality((runs / t.evaluation.artifact).read_bytes()).value,
            latency=t.evaluation.measurement,
        )
        for t in Front(record).strict
        if t.evaluation is not None
    ]
    return record, front, recipes


def recipe_points(task: LoadedTask, split: Split, measure: Any) -> Iterator[Point]:
    """The recipes that run; the others are printed with the reason."""
    known: dict[bytes, str] = {}
    for name, file in recipe_files(task):
        if isinstance(file, str):
            print(f"  {name}: {file}")
            continue
        if file in known:
            print(f"  {name}: the same file as {known[file]}")
            continue
        known[file] = name
        try:
            yield Point(
                name=name,
                download_bytes=download_bytes(file),
                test_accuracy=split.quality(file).value,
                latency=measure(file, PROCESSES),
            )
        except CandidateError as fault:
            print(f"  {name}: {fault}")


def line_of(point: Point, better: Sequence[Point]) -> list[str]:
    """A row of the table: the recipe, and the smallest point of the front that beats it."""
    best = min(better, key=lambda p: p.download_bytes, default=None)
    cells = [f"{point.download_bytes / 1000:.1f}", f"{point.test_accuracy:.4f}", f"{point.ratio:.3f}"]
    if best is None:
        return [point.name, *cells, "none", "", "", ""]
    return [
        point.name,
        *cells,
        best.name,
        f"{best.download_bytes / 1000:.1f}",
        f"{best.test_accuracy:.4f}",
        f"{best.ratio:.3f}",
    ]


def main() -> int:
    """Search, make the recipes, compare; exit code 1 where a recipe is not beaten."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--space", default="default")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=Path, help="keep the study here")
    asked = parser.parse_args()
    print_run("The front against uniform recipes", ("ai-edge-quantizer", "ai-edge-litert"))
    with tempfile.TemporaryDirectory() as folder:
        _, front, recipes = searched(asked, load_task("fashion-mnist"), asked.runs or Path(folder))
    header = ["recipe", "KB", "test", "x float", "beaten by", "KB", "test", "x float"]
    print_table("Recipes", header, [line_of(r, [p for p in front if p.beats(r)]) for r in recipes])
    header = ["front", "KB", "test", "x float"]
    lines = [[p.name, f"{p.download_bytes / 1000:.1f}", f"{p.test_accuracy:.4f}", f"{p.ratio:.3f}"] for p in front]
    print_table("Front", header, lines)
    return judge(
        [
            Goal(
                wanted=f"a smaller, not slower, at least as accurate point than {r.name}",
                got=f"{sum(p.beats(r) for p in front)} points",
                met=any(p.beats(r) for p in front),
            )
            for r in recipes
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
